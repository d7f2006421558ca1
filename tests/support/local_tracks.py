"""Sources made by functions, connections that send outlets, and what comes out of them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from aiortc import RTCRtpSender
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, VideoFrame

from metered_sync.engine.sending.local_track import LocalTrack, Outlet
from metered_sync.engine.webrtc.encoding import prefer_codec
from metered_sync.engine.webrtc.peer_connection import gather_on, peer_connection
from metered_sync.testing import PatternSource, ToneSource, dominant_frequency, read_number

FPS = 12


def run(test: Coroutine[Any, Any, None], timeout: float = 60) -> None:
    """Run a test on a loop; nothing may be left on it."""

    async def checked() -> None:
        gather_on.set("127.0.0.1")
        await asyncio.wait_for(test, timeout)
        deadline = time.monotonic() + 5
        while left := asyncio.all_tasks() - {asyncio.current_task()}:
            assert time.monotonic() < deadline, f"tasks are left: {left}"
            await asyncio.sleep(0.01)

    asyncio.run(checked())


def picture(fps: float = FPS, width: int = 160, height: int = 120) -> MediaStreamTrack:
    track = PatternSource(width, height, fps).video
    assert track is not None
    return track


def tone(frequency: float) -> MediaStreamTrack:
    track = ToneSource(frequency).audio
    assert track is not None
    return track


class Scripted(MediaStreamTrack):
    """A user's track: frames made by a function of their number, each after a pause."""

    def __init__(
        self, kind: str, make: Callable[[int], Any], interval: float = 0.02, count: int = 10**9
    ) -> None:
        super().__init__()
        self.kind = kind
        self.reads = 0
        self.cancelled = False
        self._make = make
        self._interval = interval
        self._count = count
        self._due = 0.0

    async def recv(self) -> Any:
        if self.reads >= self._count:
            raise MediaStreamError("it is over")
        number = self.reads
        self.reads += 1
        if self._interval:
            now = time.monotonic()
            self._due = max(self._due + self._interval, now - 0.1)
            await asyncio.sleep(self._due - now)
        return self._make(number)


def plain(number: int, *, start: int = 0, rate: int = 1000, size: int = 32) -> VideoFrame:
    """A small grey picture, 20 ms after the one before, in a time base of its own."""
    image = np.full((size, size, 3), number % 200, np.uint8)
    frame = VideoFrame.from_ndarray(image, "bgr24")
    frame.pts, frame.time_base = start + number * rate // 50, Fraction(1, rate)
    return frame


def beep(number: int, *, rate: int = 8000, layout: str = "mono") -> AudioFrame:
    samples = rate // 50
    frame = AudioFrame("s16", layout, samples)
    frame.planes[0].update(bytes(frame.planes[0].buffer_size))
    frame.sample_rate, frame.pts, frame.time_base = rate, number * samples, Fraction(1, rate)
    return frame


async def take(outlet: MediaStreamTrack, count: int, timeout: float = 20) -> list[Any]:
    """Return the next frames."""

    async def taken() -> list[Any]:
        return [await outlet.recv() for _ in range(count)]

    return await asyncio.wait_for(taken(), timeout)


def times(frames: list[Any]) -> list[float]:
    return [frame.time for frame in frames]


def rising(frames: list[Any]) -> bool:
    """Whether timestamps rise strictly, without a jump of more than some seconds."""
    stamps = times(frames)
    return all(0 < b - a < 10 for a, b in itertools.pairwise(stamps))


class Link:
    """A connection that sends outlets, and what comes out at its other end."""

    def __init__(self) -> None:
        self.near, self.far = peer_connection([]), peer_connection([])
        self.senders: list[RTCRtpSender] = []
        self.received: dict[str, list[Any]] = {"audio": [], "video": []}
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.far.on("track", self._on_track)

    def _on_track(self, track: MediaStreamTrack) -> None:
        async def collect() -> None:
            with suppress(MediaStreamError):
                while True:
                    self.received[track.kind].append(await track.recv())
                    self._changed.set()

        self._tasks.append(asyncio.ensure_future(collect()))

    async def open(self, *outlets: Outlet, codec: str | None = None) -> None:
        for outlet in outlets:
            transceiver = self.near.addTransceiver(outlet, "sendonly")
            if outlet.kind == "video":
                prefer_codec(transceiver, codec)
            outlet.attach(transceiver.sender)
            self.senders.append(transceiver.sender)
        await self.negotiate()

    async def negotiate(self) -> None:
        await self.near.setLocalDescription(await self.near.createOffer())
        await self.far.setRemoteDescription(self.near.localDescription)
        await self.far.setLocalDescription(await self.far.createAnswer())
        await self.near.setRemoteDescription(self.far.localDescription)

    async def wait(self, condition: Callable[[], object], timeout: float = 20) -> None:
        """Wait until something holds, which is looked at with each frame."""

        async def held() -> None:
            while not condition():
                self._changed.clear()
                await self._changed.wait()

        try:
            await asyncio.wait_for(held(), timeout)
        except asyncio.TimeoutError:
            counts = {kind: len(frames) for kind, frames in self.received.items()}
            pytest.fail(f"did not come within {timeout:g} s; frames so far: {counts}")

    async def more(self, kind: str, count: int = 10, timeout: float = 20) -> list[Any]:
        """Wait for so many more frames, and return them."""
        start = len(self.received[kind])
        await self.wait(lambda: len(self.received[kind]) >= start + count, timeout)
        return self.received[kind][start:]

    async def numbers(self, width: int, timeout: float = 20) -> None:
        """Wait for a picture of a pattern of some width that can be read."""

        def seen() -> bool:
            frame = self.received["video"][-1] if self.received["video"] else None
            return (
                frame is not None
                and frame.width == width
                and read_number(frame.to_ndarray(format="gray")) is not None
            )

        await self.wait(seen, timeout)

    async def hears(self, frequency: float, timeout: float = 20) -> None:
        def heard() -> bool:
            frames = self.received["audio"][-10:]
            if len(frames) < 10:
                return False
            sound = np.concatenate([frame.to_ndarray().reshape(-1, 2)[:, 0] for frame in frames])
            return abs(dominant_frequency(sound, 48000) - frequency) < 20

        await self.wait(heard, timeout)

    def assert_rising(self) -> None:
        for frames in self.received.values():
            assert rising(frames), times(frames)

    async def close(self) -> None:
        for pc in (self.near, self.far):
            await asyncio.wait_for(pc.close(), 20)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def links(count: int = 1) -> AsyncIterator[list[Link]]:
    made = [Link() for _ in range(count)]
    try:
        yield made
    finally:
        for link in made:
            await link.close()


async def together(*waits: Awaitable[Any]) -> None:
    await asyncio.gather(*waits)


def taking(local: LocalTrack, codec: str = "vp8") -> Outlet:
    """Return an outlet that takes what is encoded, as for a sender with this codec."""
    outlet = local.outlet()
    pc = peer_connection([])
    outlet._sender = pc.addTransceiver("video").sender  # never connected
    outlet._settle(codec)
    assert outlet.codec == codec
    return outlet
