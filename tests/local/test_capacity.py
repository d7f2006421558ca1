"""Test many clients of the local cloud at once, from another process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from metered_sync.local import LocalCloud
from tests.conftest import ROOT, wait_until
from tests.support.raw_client import raw

CONNECTIONS = 400
MESSAGES = 25

CHILD = """
import asyncio, json, sys
import websockets
from websockets.asyncio.client import connect

OPTIONS = {"proxy": None} if int(websockets.__version__.split(".")[0]) >= 15 else {}
URL, COUNT, MESSAGES = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

async def client(opened, joined, done):
    # One by one would take longer; all at once is what a server meets after its restart.
    async with connect(URL, compression=None, ping_interval=None, **OPTIONS) as connection:
        assert json.loads(await connection.recv())["type"] == "welcome"
        opened()
        await connection.send('{"type":"subscribe","channel":"crowd","requestId":"s"}')
        there, received = set(), []
        while len(received) < MESSAGES:
            frame = json.loads(await connection.recv())
            if frame["type"] == "presence":
                there |= {peer["peerId"] for peer in frame["joined"]}
                if len(there) == COUNT - 1:  # all but itself
                    joined()
                    there.add(None)
            elif frame["type"] == "message":
                received.append(frame["data"])
        assert received == list(range(MESSAGES)), received
        done()
        await asyncio.sleep(60)  # connected until the parent has looked

def stage(name):
    left = COUNT
    def one():
        nonlocal left
        left -= 1
        if not left:
            print(name, flush=True)
    return one

async def main():
    stages = [stage(name) for name in ("opened", "joined", "done")]
    await asyncio.gather(*(client(*stages) for _ in range(COUNT)))

asyncio.run(main())
"""


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def test_a_crowd() -> None:
    with LocalCloud(limits=False) as cloud, raw(cloud) as outside:
        files = open_files()
        url = f"{cloud.url}/v1?key={cloud.publishable_key}"
        start = time.monotonic()
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, url, str(CONNECTIONS), str(MESSAGES)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        ) as child:
            try:
                assert child.stdout is not None
                assert child.stdout.readline() == "opened\n"
                assert child.stdout.readline() == "joined\n"  # everybody knows of everybody
                for number in range(MESSAGES):
                    asked = time.monotonic()
                    outside.send(type="publish", channel="crowd", data=number, requestId="1")
                    assert outside.receive() == {"type": "ack", "requestId": "1"}
                    assert time.monotonic() - asked < 5
                assert child.stdout.readline() == "done\n"
                assert time.monotonic() - start < 60
                usage = cloud.control_plane().usage()
                assert usage.concurrent_now == CONNECTIONS + 1
                assert len(cloud.control_plane().peers("crowd")) == CONNECTIONS
            finally:
                child.kill()
        wait_until(lambda: cloud.control_plane().usage().concurrent_now == 1, 20)
        wait_until(lambda: open_files() <= files + 5, 20, "their files are closed")
        assert outside.silent()


def test_a_publisher_who_does_not_wait(shared_cloud: LocalCloud) -> None:
    """Bursts are written as one; their order and number are what they were."""
    with raw(shared_cloud) as publisher, raw(shared_cloud) as reader:
        reader.ask(type="subscribe", channel="burst")
        for first in range(0, 5000, 500):
            numbers = range(first, first + 500)
            for number in numbers:
                text = {"type": "publish", "channel": "burst", "data": number}
                publisher.connection.send(json.dumps({**text, "requestId": str(number)}))
            assert [publisher.receive()["requestId"] for _ in numbers] == [str(n) for n in numbers]
            assert [reader.receive()["data"] for _ in numbers] == list(numbers)
