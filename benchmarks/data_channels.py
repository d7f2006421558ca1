"""Data channels: messages and bytes per second, next to bare aiortc.

Both sides of the connection are in one process, on loopback. The two take turns, each in a
process of its own, so that what else the machine does hits both. Bare aiortc sends from a
coroutine that waits while more than 1 MiB is buffered, and receives with a handler; ours sends
from one thread and receives in another. Ratios above 1 mean that we are faster.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import threading
import time

from aiortc import RTCPeerConnection

from metered_sync import DataChannel
from metered_sync.bridge import engines
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.event_loop import new_event_loop
from metered_sync.engine.webrtc.data_channel import ChannelLink
from metered_sync.engine.webrtc.peer_connection import gather_on, peer_connection

SIZES = {"messages of 64 B": (64, 8000), "messages of 16 KiB": (16384, 1000)}
MAX_BUFFERED = 1 << 20


async def connect(one: RTCPeerConnection, two: RTCPeerConnection) -> None:
    """Negotiate."""
    await one.setLocalDescription(await one.createOffer())
    await two.setRemoteDescription(one.localDescription)
    await two.setLocalDescription(await two.createAnswer())
    await one.setRemoteDescription(two.localDescription)


async def bare() -> dict[str, float]:
    """Return the seconds that bare aiortc takes."""
    gather_on.set("127.0.0.1")
    one, two = peer_connection(()), peer_connection(())
    raw = one.createDataChannel("bench")
    opened, low, done = asyncio.Event(), asyncio.Event(), asyncio.Event()
    expected = arrived = 0

    def on_message(message: object) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == expected:
            done.set()

    raw.on("open", opened.set)
    raw.on("bufferedamountlow", low.set)
    raw.bufferedAmountLowThreshold = MAX_BUFFERED // 2
    two.on("datachannel", lambda channel: channel.on("message", on_message))
    await connect(one, two)
    await opened.wait()
    seconds = {}
    for name, (size, count) in SIZES.items():
        message, expected, arrived = b"x" * size, count, 0
        done.clear()
        started = time.perf_counter()
        for _ in range(count):
            while raw.bufferedAmount + size > MAX_BUFFERED:
                low.clear()
                await low.wait()
            raw.send(message)
        await done.wait()
        seconds[name] = time.perf_counter() - started
    await one.close()
    await two.close()
    return seconds


def ours() -> dict[str, float]:
    """Return the seconds that our channels take."""
    engine = engines.current()
    links: list[ChannelLink] = []

    async def open_channels() -> tuple[RTCPeerConnection, RTCPeerConnection]:
        gather_on.set("127.0.0.1")
        one, two = peer_connection(()), peer_connection(())
        two.on("datachannel", lambda raw: links.append(ChannelLink(raw, engine)))
        links.append(ChannelLink(one.createDataChannel("bench"), engine))
        await connect(one, two)
        return one, two

    async def close(*connections: RTCPeerConnection) -> None:
        for connection in connections:
            await connection.close()

    pair = engine.call(open_channels, deadline=Deadline(20), what="connect")
    sender = DataChannel(links[0])
    sender.send("ready", timeout=20)
    while len(links) < 2:
        time.sleep(0.01)
    receiver = DataChannel(links[1])
    receiver.get(timeout=20)
    seconds = {}
    for name, (size, count) in SIZES.items():

        def send(message: bytes = b"x" * size, count: int = count) -> None:
            for _ in range(count):
                sender.send(message, timeout=60)

        thread = threading.Thread(target=send)
        started = time.perf_counter()
        thread.start()
        for _ in range(count):
            receiver.get(timeout=60)
        seconds[name] = time.perf_counter() - started
        thread.join()
    sender.close()
    receiver.close()
    engine.call(close, *pair, deadline=Deadline(20), what="close")
    return seconds


def measure(which: str) -> dict[str, float]:
    """Run one side's part in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--run", which], stdout=subprocess.PIPE, check=True, timeout=300
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def run_bare() -> dict[str, float]:
    """Run bare aiortc on the kind of loop that ours runs on."""
    return new_event_loop().run_until_complete(bare())


def main() -> None:
    """Take turns, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--run", choices=["bare", "ours"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        print(json.dumps(run_bare() if args.run == "bare" else ours()))
        return
    turns = [(measure("bare"), measure("ours")) for _ in range(args.rounds)]
    print(f"{'':<24}{'bare aiortc':>18}{'metered_sync':>18}{'ratio':>8}")
    for name, (size, count) in SIZES.items():
        peer = statistics.median(count / bare[name] for bare, _ in turns)
        mine = statistics.median(count / our[name] for _, our in turns)
        ratio = statistics.median(bare[name] / our[name] for bare, our in turns)
        unit, factor = ("/s", 1.0) if size < 1024 else (" MB/s", size / 1e6)
        print(
            f"{name:<24}{peer * factor:>13.1f}{unit:<5}{mine * factor:>13.1f}{unit:<5}{ratio:>8.2f}"
        )


if __name__ == "__main__":
    main()
