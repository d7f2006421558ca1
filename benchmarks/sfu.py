"""The local SFU: what a subscriber costs, what arrives, and how late.

The peer is a relay that decodes once and encodes for each subscriber, as one is made with
aiortc's ``MediaRelay``. Server, publisher, relay and subscribers are processes of their own; the
CPU time is that of the server, or of the relay, alone. Subscribers count complete frames and do
not decode them, so that twenty-four fit on a small machine.

    python benchmarks/sfu.py                # all of it: three minutes
    python benchmarks/sfu.py cpu loss       # parts: cpu, loss, latency
"""

from __future__ import annotations

import asyncio
import json
import queue
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiortc.rtcrtpreceiver
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection
from aiortc.contrib.media import MediaRelay
from aiortc.mediastreams import MediaStreamError
from av import VideoFrame

from metered_sync import MeteredError, SfuClient
from metered_sync.engine.rtc import gather_on
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, read_number

WIDTH, HEIGHT, FPS, BITRATE = 640, 480, 30, 1_000_000
SECONDS = 6.0


# --- the processes --------------------------------------------------------------------


@contextmanager
def child(role: str, *args: Any) -> Iterator[Any]:
    """Run a part in a process of its own; yield a function that asks it something."""
    command = [sys.executable, __file__, "--role", role, *map(str, args)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def ask(question: str = "") -> Any:
            if question:
                print(question, file=stdin, flush=True)
            return json.loads(stdout.readline())

        yield ask
        stdin.close()


def answer(value: Any) -> None:
    print(json.dumps(value), flush=True)


def cpu() -> float:
    """Return this process's CPU time in seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def questions() -> Iterator[str]:
    for line in sys.stdin:
        yield line.strip()


def serve() -> None:
    with LocalCloud(limits=False) as cloud:
        answer(cloud.sfu_options())
        for question in questions():
            if question.startswith("lose"):
                cloud.faults.lose_media(float(question.split()[1]))
            answer(cpu())


def publish(options: dict[str, Any]) -> None:
    with SfuClient(**options) as client, PatternSource(WIDTH, HEIGHT, FPS) as source:
        client.publish(source.video, name="pattern", video_bitrate=BITRATE)
        answer("ready")
        for _ in questions():
            answer(source.frames_sent["video"])


def count_only(loop: Any, given: Any, out: Any, _error: Any) -> None:
    """Stand in for aiortc's decoder thread: count complete frames."""
    while (task := given.get()) is not None:
        frame = VideoFrame(16, 16)
        frame.pts, frame.time_base = task[1].timestamp, aiortc.mediastreams.VIDEO_TIME_BASE
        asyncio.run_coroutine_threadsafe(out.put(frame), loop)
    asyncio.run_coroutine_threadsafe(out.put(None), loop)


def subscribe(options: dict[str, Any], name: str, count: str) -> None:
    aiortc.rtcrtpreceiver.decoder_worker = count_only
    clients = [SfuClient(**options, timeout=60) for _ in range(int(count))]
    try:
        for client in clients:
            client.connect()
        found = clients[0].wait_for_track(name=name, timeout=60)
        tracks = [client.subscribe(found) for client in clients]
        for track in tracks:
            track.frames().get(timeout=60)
        answer("ready")
        for _ in questions():
            answer([track.frames_received for track in tracks])
    finally:
        for client in clients:
            client.close()


class Frames(MediaStreamTrack):
    """A received track as a source for others."""

    kind = "video"

    def __init__(self, frames: Any) -> None:
        super().__init__()
        self._frames = frames

    async def recv(self) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(None, self._frames.get)
        except MeteredError:
            raise MediaStreamError from None


def relay(options: dict[str, Any], count: str) -> None:
    with SfuClient(**options, timeout=60) as client:
        found = client.wait_for_track(name="pattern", timeout=60)
        frames = client.subscribe(found).frames(mode="fifo")
        frames.get(timeout=60)
        hub, source = MediaRelay(), Frames(frames)
        copies = [hub.subscribe(source) for _ in range(int(count))]
        client.publish(copies, name="relayed", video_bitrate=BITRATE)
        answer("ready")
        for _ in questions():
            answer(cpu())


# --- what is measured -----------------------------------------------------------------


def cost_of_subscribers() -> None:
    print(f"CPU, {WIDTH}x{HEIGHT} at {FPS} pictures and {BITRATE // 1000} kbit/s a second")
    used: dict[int, float] = {}
    for count in (1, 8, 24):
        with child("serve") as server:
            options = json.dumps(server())
            with child("publish", options) as publisher:
                publisher()
                with child("subscribe", options, "pattern", count) as subscriber:
                    subscriber()
                    time.sleep(1)
                    sent, got, before = publisher("?"), subscriber("?"), server("?")
                    started = time.monotonic()
                    time.sleep(SECONDS)
                    used[count] = (server("?") - before) / (time.monotonic() - started)
                    got = [b - a for a, b in zip(got, subscriber("?"), strict=True)]
                    sent = publisher("?") - sent
        share = statistics.mean(got) / sent
        print(
            f"  SFU, {count:2} subscribers: {used[count]:6.2%} of a core; of {sent} frames "
            f"{share:.1%} arrived (least: {min(got) / sent:.1%})"
        )
    further = (used[24] - used[1]) / 23
    relayed: dict[int, float] = {}
    for count in (1, 3):
        with child("serve") as server:
            options = json.dumps(server())
            with child("publish", options) as publisher, child("relay", options, count) as relaying:
                publisher()
                relaying()
                time.sleep(1)
                started, before = time.monotonic(), relaying("?")
                time.sleep(SECONDS)
                relayed[count] = (relaying("?") - before) / (time.monotonic() - started)
        print(f"  relay, {count} subscribers: {relayed[count]:6.2%} of a core")
    more = (relayed[3] - relayed[1]) / 2
    print(
        f"  each further subscriber: SFU {further:.2%}, relay {more:.2%} of a core: "
        f"{more / further:.0f} times as much"
    )


def frames_at_losses() -> None:
    print("pictures delivered, of those sent")
    with child("serve") as server:
        options = json.dumps(server())
        with child("publish", options) as publisher:
            publisher()
            with child("subscribe", options, "pattern", 1) as subscriber:
                subscriber()
                for loss in (0.0, 0.03, 0.10):
                    server(f"lose {loss}")
                    time.sleep(2)
                    sent, (got,) = publisher("?"), subscriber("?")
                    started = time.monotonic()
                    time.sleep(SECONDS)
                    passed = time.monotonic() - started
                    sent, got = publisher("?") - sent, subscriber("?")[0] - got
                    print(
                        f"  {loss:4.0%} of packets lost, on the way in and on the way out: "
                        f"{got / sent:.1%}, {got / passed:.1f} a second"
                    )


def through_the_sfu(options: dict[str, Any]) -> list[float]:
    ages = []
    with (
        SfuClient(**options) as sender,
        SfuClient(**options) as receiver,
        PatternSource(WIDTH, HEIGHT, FPS) as source,
    ):
        track = receiver.subscribe(sender.publish(source.video, video_bitrate=BITRATE))
        frames = track.frames()
        frames.get(timeout=30)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            frame, now = frames.get(timeout=10), time.monotonic()
            ages.append((frame, now))
        return latencies(source, ages)


def direct() -> list[float]:
    """The same with two peer connections of aiortc, and nothing between them."""
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()

    async def run(source: PatternSource) -> None:
        gather_on.set("127.0.0.1")
        one, two = (RTCPeerConnection(RTCConfiguration([])) for _ in range(2))
        one.addTrack(source.video)
        arrived: asyncio.Queue[Any] = asyncio.Queue()
        two.on("track", arrived.put_nowait)
        await one.setLocalDescription(await one.createOffer())
        await two.setRemoteDescription(one.localDescription)
        await two.setLocalDescription(await two.createAnswer())
        await one.setRemoteDescription(two.localDescription)
        track = await arrived.get()
        await track.recv()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            seen.put((await track.recv(), time.monotonic()))
        await one.close()
        await two.close()

    with PatternSource(WIDTH, HEIGHT, FPS) as source:
        thread = threading.Thread(target=asyncio.run, args=(run(source),))
        thread.start()
        thread.join()
        return latencies(source, [seen.get() for _ in range(seen.qsize())])


def latencies(source: PatternSource, arrivals: list[tuple[Any, float]]) -> list[float]:
    """Return the seconds from the capture of each picture to its arrival."""
    result = []
    for frame, moment in arrivals:
        number = read_number(frame.to_ndarray(format="gray"))
        captured = None if number is None else source.captured(number)
        if captured is not None:
            result.append(moment - captured)
    return result


def latency() -> None:
    print("milliseconds from a picture's capture to its reader")
    for name in ("direct", "SFU", "direct", "SFU"):
        if name == "direct":
            times = direct()
        else:
            with child("serve") as server:
                times = through_the_sfu(server())
        points = statistics.quantiles(times, n=100)
        print(f"  {name:6}: p50 {points[49] * 1e3:5.1f}, p95 {points[94] * 1e3:5.1f}")


PARTS = {"cpu": cost_of_subscribers, "loss": frames_at_losses, "latency": latency}
ROLES: dict[str, Any] = {
    "serve": serve,
    "publish": publish,
    "subscribe": subscribe,
    "relay": relay,
}


def main() -> None:
    if sys.argv[1:2] == ["--role"]:
        role, *args = sys.argv[2:]
        ROLES[role](*([json.loads(args[0]), *args[1:]] if args else []))
        return
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()


if __name__ == "__main__":
    main()
