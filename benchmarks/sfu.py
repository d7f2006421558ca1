"""The local SFU: what a subscriber costs, what arrives, and how late.

The peer is a relay that decodes once and encodes for each subscriber, as one is made with
aiortc's ``MediaRelay``. Server, publisher, relay and subscribers are processes of their own; the
CPU time is that of the server, or of the relay, alone. Subscribers count complete frames, which
are told by their RTP timestamps, and do not decode them, so that twenty-four fit on a small
machine. How late pictures are, and how many of them come where packets are lost, is measured
next to two peers of aiortc with nothing between them, which lose as many.

    python benchmarks/sfu.py                # all of it: three minutes
    python benchmarks/sfu.py cpu            # one part: cpu, latency
    SECONDS=20 python benchmarks/sfu.py     # each measurement longer than 6 seconds
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import random
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import aiortc.rtcrtpreceiver
from _processes import answer, child, cpu, questions
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection
from aiortc.contrib.media import MediaRelay
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcdtlstransport import RTCDtlsTransport
from av import VideoFrame

from metered_sync import MeteredError, SfuClient
from metered_sync.engine.webrtc.aiortc_private import decoding
from metered_sync.engine.webrtc.peer_connection import gather_on
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, read_number

WIDTH, HEIGHT, FPS, BITRATE = 640, 480, 30, 1_000_000
SECONDS = float(os.environ.get("SECONDS", "6"))
ROUNDS = 2
"""How often latency is measured; the best counts."""
GOAL = 20
"""How many times a subscriber's cost the relay's is to be, at least."""


# --- the processes --------------------------------------------------------------------


def serve() -> None:
    with LocalCloud(limits=False) as cloud:
        for loss in questions():
            cloud.faults.lose_media(loss)
            answer(cloud.sfu_options())


def publish(options: dict[str, Any]) -> None:
    sent: dict[int, None] = {}
    send = RTCDtlsTransport._send_rtp

    async def record(transport: RTCDtlsTransport, data: bytes) -> None:
        if not 192 <= data[1] < 224:  # RTP, not RTCP (RFC 5761)
            sent[int.from_bytes(data[4:8], "big")] = None
        await send(transport, data)

    with (
        mock.patch.object(RTCDtlsTransport, "_send_rtp", record),
        SfuClient(**options) as client,
        PatternSource(WIDTH, HEIGHT, FPS) as source,
    ):
        client.publish(source.video, name="pattern", video_bitrate=BITRATE)
        for _ in questions():
            answer(list(sent))


complete: list[list[int]] = []
"""The RTP timestamps of each subscriber's frames. The SFU leaves them as they are."""


class CountedFrames:
    """Stand in for a decoder: count complete frames."""

    def __init__(self) -> None:
        self._counted: list[int] = []
        complete.append(self._counted)

    def decode(self, encoded: Any) -> list[VideoFrame]:
        self._counted.append(encoded.timestamp)
        frame = VideoFrame(16, 16)
        frame.pts, frame.time_base = encoded.timestamp, aiortc.mediastreams.VIDEO_TIME_BASE
        return [frame]


def subscribe(options: dict[str, Any], name: str, count: int) -> None:
    decoding._new_decoder = lambda _codec: CountedFrames()
    # It would let every subscriber's timestamps begin at 0.
    aiortc.rtcrtpreceiver.TimestampMapper.map = lambda _mapper, timestamp: timestamp
    clients = [SfuClient(**options, timeout=60) for _ in range(count)]
    try:
        for client in clients:
            client.connect()
        found = clients[0].wait_for_track(name=name, timeout=60)
        tracks = [client.subscribe(found) for client in clients]
        for track in tracks:
            track.frames().get(timeout=60)
        for question in questions():
            if question == "clear":
                for frames in complete:
                    frames.clear()
            answer(complete)
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


def relay(options: dict[str, Any], count: int) -> None:
    with SfuClient(**options, timeout=60) as client:
        found = client.wait_for_track(name="pattern", timeout=60)
        frames = client.subscribe(found).frames(mode="fifo")
        frames.get(timeout=60)
        hub, source = MediaRelay(), Frames(frames)
        copies = [hub.subscribe(source) for _ in range(count)]
        client.publish(copies, name="relayed", video_bitrate=BITRATE)
        for _ in questions():
            answer("ready")


# --- what is measured -----------------------------------------------------------------


def share_of_a_core(pid: int) -> float:
    """Return what a process takes of a core for some seconds."""
    started, before = time.monotonic(), cpu(pid)
    time.sleep(SECONDS)
    return (cpu(pid) - before) / (time.monotonic() - started)


def cost_of_subscribers() -> None:
    print(f"CPU, {WIDTH}x{HEIGHT} at {FPS} pictures and {BITRATE // 1000} kbit/s a second")
    used: dict[int, float] = {}
    for count in (1, 8, 24):
        with child(__file__, "serve") as (server, serving):
            options = serving(0.0)
            with child(__file__, "publish", options) as (_, publisher):
                publisher("ready?")
                with child(__file__, "subscribe", options, "pattern", count) as (_, subscriber):
                    subscriber("ready?")
                    time.sleep(1)
                    subscriber("clear")
                    used[count] = share_of_a_core(server)
                    shares = shares_that_arrived(subscriber("frames"), publisher("frames"))
        print(
            f"  SFU, {count:2} subscribers: {used[count]:6.2%} of a core; "
            f"{statistics.mean(shares):.2%} of the frames arrived (least: {min(shares):.2%})"
        )
    further = (used[24] - used[1]) / 23
    relayed: dict[int, float] = {}
    for count in (1, 3):
        with child(__file__, "serve") as (_, serving):
            options = serving(0.0)
            with (
                child(__file__, "publish", options) as (_, publisher),
                child(__file__, "relay", options, count) as (relaying, ready),
            ):
                publisher("ready?")
                ready("ready?")
                time.sleep(1)
                relayed[count] = share_of_a_core(relaying)
        print(f"  relay, {count} subscribers: {relayed[count]:6.2%} of a core")
    more = (relayed[3] - relayed[1]) / 2
    print(
        f"  each further subscriber: SFU {further:.2%}, relay {more:.2%} of a core: "
        f"{more / further:.0f} times as much (goal: {GOAL})"
    )


def shares_that_arrived(arrived: list[list[int]], sent: list[int]) -> list[float]:
    """Return each subscriber's share of the frames sent while all of them were counting."""
    place = {frame: index for index, frame in enumerate(sent)}
    places = [[place[frame] for frame in frames] for frames in arrived]
    first = max(each[0] for each in places)
    last = max(each[-1] for each in places) - 2  # what comes after may be under way
    return [sum(first <= one <= last for one in each) / (last - first + 1) for each in places]


def through_the_sfu(loss: float) -> list[float]:
    arrivals = []
    with child(__file__, "serve") as (_, serving):
        options = serving(0.0)
        with (
            SfuClient(**options) as sender,
            SfuClient(**options) as receiver,
            PatternSource(WIDTH, HEIGHT, FPS) as source,
        ):
            track = receiver.subscribe(sender.publish(source.video, video_bitrate=BITRATE))
            frames = track.frames(mode="fifo")
            frames.get(timeout=30)
            serving(loss)
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                arrivals.append((frames.get(timeout=10), time.monotonic()))
            return latencies(source, arrivals)


def direct(loss: float) -> list[float]:
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
        with losing(1 - (1 - loss) ** 2):  # as on the way in and on the way out
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


@contextmanager
def losing(fraction: float) -> Iterator[None]:
    """Let aiortc lose that fraction of media packets, reports and requests included."""
    with ExitStack() as stack:
        for name in ("_handle_rtp_data", "_handle_rtcp_data"):
            handle = getattr(RTCDtlsTransport, name)

            async def take(*args: Any, handle: Any = handle, **more: Any) -> None:
                if random.random() >= fraction:
                    await handle(*args, **more)

            stack.enter_context(mock.patch.object(RTCDtlsTransport, name, take))
        yield


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
    print("milliseconds from a picture's capture to its reader, and pictures a second")
    ways = {"direct": direct, "SFU": through_the_sfu}
    for loss in (0.0, 0.03, 0.10):
        print(f"  {loss:.0%} of packets lost on the way in, and on the way out")
        runs: dict[str, list[list[float]]] = {name: [] for name in ways}
        for name, way in [*ways.items()] * ROUNDS:
            runs[name].append(way(loss))
        p50: dict[str, float] = {}
        for name, times in runs.items():
            points = [statistics.quantiles(one, n=100) for one in times]
            p50[name], p95 = (min(one[at] for one in points) * 1e3 for at in (49, 94))
            rate = max(map(len, times)) / SECONDS
            print(f"    {name:6}: p50 {p50[name]:6.1f}, p95 {p95:6.1f}; {rate:4.1f} a second")
        print(f"    ratio : p50 {p50['SFU'] / p50['direct']:6.2f}")


PARTS = {"cpu": cost_of_subscribers, "latency": latency}
ROLES: dict[str, Any] = {
    "serve": serve,
    "publish": publish,
    "subscribe": subscribe,
    "relay": relay,
}


def main() -> None:
    if sys.argv[1:2] and sys.argv[1] in ROLES:
        ROLES[sys.argv[1]](*json.loads(sys.argv[2]))
        return
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()


if __name__ == "__main__":
    main()
