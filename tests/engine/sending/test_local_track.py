"""One local track, many senders: through real peer connections on loopback, and without."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from aiortc import RTCRtpSender
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, VideoFrame

from metered_sync.bridge import loop
from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.sending import outlet as outlet_module
from metered_sync.engine.sending import shared_encoder
from metered_sync.engine.sending.local_track import LocalTrack, Outlet
from metered_sync.engine.webrtc.encoding import Encoding, prefer_codec
from metered_sync.engine.webrtc.peer_connection import gather_on, peer_connection
from metered_sync.testing import PatternSource, ToneSource, dominant_frequency, read_number
from tests.rules.test_leaks import check

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


# --- without a connection ---


def test_all_outlets_get_the_frames_and_the_source_is_read_once() -> None:
    async def test() -> None:
        source = Scripted("video", plain)
        local = LocalTrack(source)
        outlets = [local.outlet() for _ in range(3)]
        assert [outlet.id for outlet in outlets] == [source.id] * 3
        got = await asyncio.gather(*(take(outlet, 10) for outlet in outlets))
        assert all(rising(frames) for frames in got)
        assert source.reads < 25
        # What a sender writes into its frame must not reach another's.
        assert len({id(frame) for frames in got for frame in frames}) == 30
        local.close()

    run(test())


def test_nothing_is_read_before_an_outlet_is_consumed_nor_while_none_is() -> None:
    async def test() -> None:
        source = Scripted("video", plain)
        local = LocalTrack(source)
        first = local.outlet()
        await asyncio.sleep(0.1)
        assert source.reads == 0
        await take(first, 3)
        first.close()
        await asyncio.sleep(0.05)
        reads = source.reads
        await asyncio.sleep(0.2)
        assert source.reads == reads
        await take(local.outlet(), 3)
        assert source.reads > reads
        local.close()

    run(test())


def test_who_joins_late_gets_what_is_current() -> None:
    async def test() -> None:
        local = LocalTrack(picture(20))
        first = local.outlet()
        await take(first, 2)
        first.close()
        began = time.monotonic()
        await asyncio.sleep(1)
        (frame,) = await take(local.outlet(), 1)
        number = read_number(frame.to_ndarray(format="gray"))
        # It has played on: less than half a second of it may be old.
        assert number is not None
        assert number >= (time.monotonic() - began) * 20 - 10
        local.close()

    run(test())


def test_a_source_that_queues_by_itself_is_read_on() -> None:
    class Queued(MediaStreamTrack):
        kind = "video"

        def __init__(self) -> None:
            super().__init__()
            self._queue: asyncio.Queue[VideoFrame] = asyncio.Queue()

        async def recv(self) -> VideoFrame:
            return await self._queue.get()

    async def test() -> None:
        source = Queued()
        local = LocalTrack(source)
        outlet = local.outlet()
        for number in range(20):  # it has piled up before anybody consumed it
            source._queue.put_nowait(plain(number))
        first = asyncio.ensure_future(take(outlet, 1))
        while not source._queue.empty():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert not first.done()
        source._queue.put_nowait(plain(50))
        (frame,) = await first
        assert frame.to_ndarray(format="gray").mean() == pytest.approx(50, abs=2)
        outlet.close()
        for number in range(1, 50):
            source._queue.put_nowait(plain(number))
        while not source._queue.empty():
            await asyncio.sleep(0.01)
        local.close()

    run(test())


def test_a_slow_outlet_holds_up_nothing_and_counts_what_it_drops() -> None:
    async def test() -> None:
        for kind, make, most in (("video", plain, 1), ("audio", beep, outlet_module.SOUND_QUEUE)):
            local = LocalTrack(Scripted(kind, make))
            slow, quick = local.outlet(), local.outlet()
            await take(slow, 1)
            frames = await take(quick, 30)
            assert rising(frames)
            assert len(slow._items) <= most
            assert slow.dropped >= 30 - most - 3
            late = await take(slow, 1)
            # Video: the newest one. Audio: the oldest of a few.
            assert times(frames)[-1] - times(late)[0] < 0.3
            local.close()

    run(test())


def test_an_outlet_outlives_its_source_and_ends_when_closed() -> None:
    async def test() -> None:
        local = LocalTrack(Scripted("video", plain, count=3))
        outlet = local.outlet()
        before = await take(outlet, 3)
        waiting = asyncio.ensure_future(outlet.recv())
        await asyncio.sleep(0.1)
        assert local.ended
        assert not waiting.done()
        other = LocalTrack(Scripted("video", plain))
        outlet.switch(other)
        after = [await asyncio.wait_for(waiting, 10), *await take(outlet, 2)]
        assert rising(before + after)
        other.close()
        with suppress(asyncio.TimeoutError):  # at most what was read already
            await take(outlet, 1, timeout=0.2)
        with pytest.raises(asyncio.TimeoutError):
            await take(outlet, 1, timeout=0.2)
        waiting = asyncio.ensure_future(outlet.recv())
        await asyncio.sleep(0)
        outlet.close()
        with pytest.raises(MediaStreamError):
            await asyncio.wait_for(waiting, 10)
        assert outlet.readyState == "ended"
        local.close()

    run(test())


def test_a_source_that_fails_is_logged_and_ends_no_sender(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(number: int) -> VideoFrame:
        return plain(number // (number - 3) if number == 3 else number)

    async def test() -> None:
        local = LocalTrack(Scripted("video", broken))
        outlet = local.outlet()
        before = await take(outlet, 3)
        waiting = asyncio.ensure_future(outlet.recv())
        await asyncio.sleep(0.1)
        assert local.ended
        other = local.successor(Scripted("video", plain))
        outlet.switch(other)
        assert rising([*before, await asyncio.wait_for(waiting, 10)])
        local.close()
        other.close()

    run(test())
    assert "ZeroDivisionError" in caplog.text


def test_the_users_source_is_never_stopped() -> None:
    async def test() -> None:
        source = Scripted("video", plain)
        local = LocalTrack(source, encoding=Encoding(max_framerate=20))
        outlet = local.outlet()
        await take(outlet, 2)
        outlet.stop()
        local.close()
        assert source.readyState == "live"
        assert await source.recv()

    run(test())


SWAPS: dict[str, tuple[str, Callable[[int], Any], Callable[[int], Any]]] = {
    "video, another time base and size": (
        "video",
        lambda n: plain(n, start=900_000, rate=90_000),
        lambda n: plain(n, rate=1000, size=48),
    ),
    "audio, another rate and layout": (
        "audio",
        lambda n: beep(n, rate=44100, layout="stereo"),
        lambda n: beep(n, rate=8000),
    ),
}


@pytest.mark.parametrize("name", SWAPS)
@pytest.mark.parametrize("how", ["switch", "restart"])
def test_timestamps_go_on_over_a_swap(name: str, how: str) -> None:
    kind, one, other = SWAPS[name]

    async def test() -> None:
        local = LocalTrack(Scripted(kind, one))
        second = LocalTrack(Scripted(kind, other))
        outlet, bystander = local.outlet(), second.outlet()
        await take(bystander, 5)  # it has been running, from another moment on
        got = await take(outlet, 10)
        for _ in range(3):
            if how == "restart":
                outlet.switch(None)
                await asyncio.sleep(0.3)
            outlet.switch(second)
            got += await take(outlet, 10)
            outlet.switch(local)
            got += await take(outlet, 10)
        assert rising(got)
        if kind == "audio":
            assert {frame.sample_rate for frame in got} == {48000}
            assert {(frame.layout.name, frame.samples) for frame in got} == {("stereo", 960)}
        local.close()
        second.close()

    run(test())


SEAMS = {
    # The clock at the end of what came before, at the beginning of what follows; the latter sent.
    "sound goes on a little later": ("audio", 96_000, 98_000, 96_000),
    "sound goes on from before": ("audio", 96_000, 90_000, 96_000),
    "sound was silent": ("audio", 96_000, 192_000, 192_000),
    "a picture comes later": ("video", 90_001, 95_000, 95_000),
}


@pytest.mark.parametrize("name", SEAMS)
def test_the_seam_between_two_tracks(name: str) -> None:
    kind, end, start, sent = SEAMS[name]
    content: Any = plain(0) if kind == "video" else bytes(960 * 4)
    length, rate = (1, 90_000) if kind == "video" else (960, 48_000)

    async def test() -> None:
        one, other = (LocalTrack(Scripted(kind, plain, count=0)) for _ in range(2))
        outlet = one.outlet()
        outlet.asked = True
        outlet.put(end - length, content)
        assert times(await take(outlet, 1)) == [(end - length) / rate]
        outlet.switch(other)
        for pts in (start, start + 5000):
            outlet.put(pts, content)
            assert times(await take(outlet, 1)) == [(pts - start + sent) / rate]
        one.close()
        other.close()

    run(test())


def test_a_picture_of_a_track_whose_clock_is_behind() -> None:
    async def test() -> None:
        one, other = (LocalTrack(Scripted("video", plain, count=0)) for _ in range(2))
        outlet = one.outlet()
        outlet.asked = True
        outlet.put(90_000, plain(0))
        got = await take(outlet, 1)
        outlet.switch(other)
        await asyncio.sleep(0.1)
        outlet.put(9_000, plain(0))
        got += await take(outlet, 1)
        outlet.put(12_000, plain(0))
        got += await take(outlet, 1)
        first, second, third = times(got)
        assert 0.05 < second - first < 5  # what has passed
        assert third - second == pytest.approx(3000 / 90_000)
        one.close()
        other.close()

    run(test())


def test_timestamps_rise_whatever_the_source_does() -> None:
    def wild(number: int) -> VideoFrame:
        frame = plain(number)
        frame.pts = [0, 500, 100, 10**9, -5, 20, 20, None][number % 8]  # type: ignore[assignment]
        return frame

    async def test() -> None:
        local = LocalTrack(Scripted("video", wild))
        began = time.monotonic()
        got = await take(local.outlet(), 50)
        assert rising(got)
        assert times(got)[-1] - times(got)[0] < time.monotonic() - began + 3
        local.close()

    run(test())


def test_sound_of_any_shape() -> None:
    def wild(number: int) -> AudioFrame:
        rate, layout, format_ = [
            (48000, "5.1", "fltp"),
            (11025, "mono", "s16"),
            (48000, "stereo", "s32"),
        ][number // 10 % 3]
        frame = AudioFrame(format_, layout, rate // 50)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate = rate
        frame.pts = [None, 7, -3, 10**12][number % 4]  # type: ignore[assignment]
        if number % 3:
            frame.time_base = Fraction(1, 1000)
        return frame

    async def test() -> None:
        local = LocalTrack(Scripted("audio", wild))
        got = await take(local.outlet(), 60)
        assert rising(got)
        assert times(got)[-1] - times(got)[0] < 5
        local.close()

    run(test())


@pytest.mark.parametrize("kind", ["audio", "video"])
def test_a_source_that_never_waits_is_held_to_real_time(kind: str) -> None:
    async def test() -> None:
        local = LocalTrack(Scripted(kind, beep if kind == "audio" else plain, interval=0))
        outlet = local.outlet()
        began = time.monotonic()
        got = [await outlet.recv()]
        while time.monotonic() < began + 1.5:
            got.append(await outlet.recv())
        assert rising(got)
        assert times(got)[-1] - times(got)[0] < time.monotonic() - began + 1
        local.close()

    run(test())


def test_the_frame_rate_is_limited() -> None:
    async def test() -> None:
        local = LocalTrack(Scripted("video", plain), encoding=Encoding(max_framerate=10))
        got = await take(local.outlet(), 8)
        assert times(got)[-1] - times(got)[0] > 0.6
        local.close()

    run(test())


def test_kinds_do_not_mix() -> None:
    async def test() -> None:
        local = LocalTrack(Scripted("video", plain))
        other = LocalTrack(Scripted("audio", beep))
        with pytest.raises(ValueError, match="'video' cannot go on with 'audio'"):
            local.outlet().switch(other)

    run(test())


# --- through connections ---


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
            await asyncio.wait_for(pc.close(), 10)
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


def test_two_receivers_go_on_over_every_kind_of_swap() -> None:
    async def test() -> None:
        video, audio = LocalTrack(picture()), LocalTrack(tone(440))
        small, high = LocalTrack(picture(10, 128, 96)), LocalTrack(tone(1000))
        async with links(2) as (one, two):
            outlets = [(video.outlet(), audio.outlet()) for _ in range(2)]
            for link, pair in zip((one, two), outlets, strict=True):
                await link.open(*pair)

            async def both(width: int, frequency: float) -> None:
                await together(*(link.numbers(width) for link in (one, two)))
                await together(*(link.hears(frequency) for link in (one, two)))

            await both(160, 440)
            for pictures, sound in outlets:  # another track
                pictures.switch(small)
                sound.switch(high)
            await both(128, 1000)
            for pictures, sound in outlets:  # none, and then the first one again
                pictures.switch(None)
                sound.switch(None)
            await asyncio.sleep(0.3)
            for link in (one, two):
                link.received["audio"].clear()
            await asyncio.sleep(0.3)
            assert all(len(link.received["audio"]) < 5 for link in (one, two))
            for pictures, sound in outlets:
                pictures.switch(video)
                sound.switch(audio)
            await both(160, 440)
            for link in (one, two):
                link.assert_rising()
        for local in (video, audio, small, high):
            local.close()

    run(test())


def test_removing_and_adding_goes_on_too() -> None:
    async def test() -> None:
        first, second = LocalTrack(picture()), LocalTrack(picture(10, 128, 96))
        async with links() as (link,):
            outlet = first.outlet()
            await link.open(outlet)
            await link.numbers(160)
            outlet.switch(None)
            (transceiver,) = link.near.getTransceivers()
            transceiver.direction = "inactive"
            await link.negotiate()
            outlet.switch(second)
            transceiver.direction = "sendonly"
            await link.negotiate()
            await link.numbers(128)
            link.assert_rising()
        first.close()
        second.close()

    run(test())


def test_not_being_allowed_to_send_for_a_while_goes_on_too() -> None:
    async def test() -> None:
        local = LocalTrack(picture())
        async with links() as (link,):
            outlet = local.outlet()
            await link.open(outlet)
            await link.numbers(160)
            (transceiver,) = link.near.getTransceivers()
            transceiver.direction = "inactive"
            await link.negotiate()
            await asyncio.sleep(0.5)
            link.received["video"].clear()
            transceiver.direction = "sendonly"
            await link.negotiate()
            await link.numbers(160)
            assert outlet.encoder is not None
        local.close()

    run(test())


def test_closing_late_leaves_nothing() -> None:
    async def test() -> None:
        local = LocalTrack(picture())
        async with links() as (link,):
            outlet = local.outlet()
            await link.open(outlet)
            await link.numbers(160)
            local.close()
            await asyncio.sleep(0.1)
            assert outlet.readyState == "live"
        assert outlet.readyState == "ended"
        outlet.close()
        outlet.switch(local)
        local.close()

    run(test())


# --- encoding once ---


def taking(local: LocalTrack, codec: str = "vp8") -> Outlet:
    """Return an outlet that takes what is encoded, as for a sender with this codec."""
    outlet = local.outlet()
    pc = peer_connection([])
    outlet._sender = pc.addTransceiver("video").sender  # never connected
    assert outlet._settle(codec) is not None
    return outlet


def test_what_several_send_is_encoded_once() -> None:
    async def test() -> None:
        local = LocalTrack(picture())
        async with links(3) as made:
            outlets = [local.outlet() for _ in made]
            for link, outlet in zip(made, outlets, strict=True):
                await link.open(outlet)
            await together(*(link.numbers(160) for link in made))
            await together(*(link.more("video", 2 * FPS) for link in made))
            (encoder,) = local._encoders.values()
            assert encoder.consumers == 3
            assert all(outlet.encoder is encoder for outlet in outlets)
            assert encoder.pictures <= local.sent.frames
            assert sum(outlet.frames for outlet in outlets) > 2 * encoder.pictures
            for link in made:
                link.assert_rising()
                # A busy machine blurs a picture now and then; without the one before, all
                # that follow would be.
                seen = [read_number(f.to_ndarray(format="gray")) for f in link.received["video"]]
                assert seen.count(None) <= len(seen) / 4, seen
        local.close()

    run(test())


def test_two_codecs_and_a_swap() -> None:
    async def test() -> None:
        local, other = LocalTrack(picture()), LocalTrack(picture(10, 128, 96))
        async with links(2) as made:
            outlets = [local.outlet(), local.outlet()]
            for link, outlet, codec in zip(made, outlets, ("vp8", "h264"), strict=True):
                await link.open(outlet, codec=codec)
            await together(*(link.numbers(160) for link in made))
            assert {*local._encoders} == {"vp8", "h264"}
            for outlet in outlets:
                outlet.switch(other)
            await together(*(link.numbers(128) for link in made))
            assert not local._encoders
            assert {*other._encoders} == {"vp8", "h264"}
            for link in made:
                link.assert_rising()
        local.close()
        other.close()

    run(test())


@pytest.mark.parametrize("codec", ["vp8", "h264"])
def test_who_joins_late_begins_with_a_key_frame(codec: str) -> None:
    async def test() -> None:
        local = LocalTrack(picture())
        first = taking(local, codec)
        keys = [encoded.key for encoded in await take(first, 10)]
        assert keys == [True] + [False] * 9
        late = taking(local, codec)
        both = await asyncio.gather(take(first, 6), take(late, 3))
        assert both[1][0].key
        assert [encoded.pts for encoded in both[1]] == sorted({e.pts for e in both[1]})
        assert sum(encoded.key for encoded in both[0]) == 1
        local.close()

    run(test())


def test_a_late_receiver_sees_the_picture_without_asking() -> None:
    async def test() -> None:
        local = LocalTrack(picture())
        async with links(2) as (one, two):
            await one.open(local.outlet())
            await one.more("video", 10)
            late = local.outlet()
            await two.open(late)
            await two.numbers(160)
            seen = [read_number(f.to_ndarray(format="gray")) for f in two.received["video"]]
            assert any(number is not None for number in seen[:3]), seen  # not grey, not smeared
        local.close()

    run(test())


@pytest.mark.parametrize("codec", ["vp8", "h264"])
def test_a_receiver_that_asks_for_a_key_frame_gets_one(codec: str) -> None:
    async def test() -> None:
        local = LocalTrack(picture(15))
        probe = taking(local, codec)
        async with links() as (link,):
            await link.open(local.outlet(), codec=codec)
            await together(link.numbers(160), take(probe, 10))
            (encoder,) = local._encoders.values()
            assert encoder.consumers == 2
            while any(encoded.key for encoded in await take(probe, 5)):
                pass
            (receiver,) = link.far.getReceivers()
            await receiver._send_rtcp_pli(link.senders[0]._ssrc)
            for _ in range(100):
                (encoded,) = await take(probe, 1)
                if encoded.key:
                    break
            assert encoded.key
        probe.close()
        local.close()

    run(test())


def test_any_size_can_be_encoded() -> None:
    async def test() -> None:
        sizes = [(33, 65), (64, 64), (1, 1)]
        local = LocalTrack(
            Scripted("video", lambda n: VideoFrame(*sizes[n // 5 % 3], ("rgb24", "yuv420p")[n % 2]))
        )
        for codec in ("vp8", "h264"):
            outlet = taking(local, codec)
            got = await take(outlet, 15)
            assert sum(encoded.key for encoded in got) >= 3
            outlet.close()
        local.close()

    run(test())


def test_pictures_that_cannot_be_encoded_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        # VP8 counts the width in 14 bits (RFC 6386, 9.1).
        local = LocalTrack(
            Scripted("video", lambda n: VideoFrame(16_386, 2, "yuv420p") if n < 3 else plain(n))
        )
        outlet = taking(local)
        assert [encoded.key for encoded in await take(outlet, 3)] == [True, False, False]
        local.close()

    run(test())
    assert caplog.text.count("pictures cannot be encoded as vp8") == 1


def test_a_sender_that_sends_already_is_attached() -> None:
    async def test() -> None:
        local, other = LocalTrack(picture()), LocalTrack(picture(10, 128, 96))
        async with links() as (link,):
            outlet = local.outlet()
            link.near.addTransceiver(outlet, "sendonly")
            await link.negotiate()
            await link.numbers(160)
            assert not local._encoders
            (sender,) = link.near.getSenders()
            for _ in range(2):
                outlet.attach(sender)
            await link.wait(lambda: local._encoders)
            await link.more("video", 10)
            # The sender may be given another outlet as well, attached at once or later.
            later = other.outlet()
            sender.replaceTrack(later)
            outlet.switch(other)  # lets go of its present recv()
            await link.numbers(128)
            later.attach(sender)
            await link.wait(lambda: later.encoder is not None)
            await link.more("video", 10)
            link.assert_rising()
            outlet.close()
        local.close()
        other.close()

    run(test())


def test_many_who_ask_get_few_key_frames() -> None:
    async def test() -> None:
        local = LocalTrack(Scripted("video", plain))
        outlet = taking(local)
        began = time.monotonic()
        got = await take(outlet, 1)
        while time.monotonic() < began + 1:
            outlet.wants_key()
            got += await take(outlet, 1)
        keys = sum(encoded.key for encoded in got)
        assert 2 <= keys <= (time.monotonic() - began) / 0.25 + 2
        local.close()

    run(test())


def test_a_picture_that_stands_still_reaches_who_joins_late() -> None:
    class Still(Scripted):
        async def recv(self) -> Any:
            if self.reads:
                await asyncio.Event().wait()
            return await super().recv()

    async def test() -> None:
        local = LocalTrack(Still("video", plain))
        first = taking(local)
        got = await take(first, 1)
        late = taking(local)
        (shown,) = await take(late, 1)
        assert shown.key
        got += await take(first, 1)
        assert [encoded.pts for encoded in got] == sorted({encoded.pts for encoded in got})
        late.wants_key()
        assert (await take(late, 1))[0].key
        local.close()  # nor is it shown when it is to be seen no more
        with pytest.raises(asyncio.TimeoutError):
            await take(taking(local), 1, timeout=0.6)

    run(test())


def test_a_sender_that_is_stuck_goes_on_with_a_key_frame() -> None:
    async def test() -> None:
        local = LocalTrack(Scripted("video", lambda n: plain(n, rate=90_000)))
        stuck, quick = taking(local), taking(local)
        await take(stuck, 1)
        await take(quick, outlet_module.ENCODED_QUEUE + 20)
        assert stuck.dropped >= outlet_module.ENCODED_QUEUE
        assert len(stuck._items) <= outlet_module.ENCODED_QUEUE
        assert (await take(stuck, 1))[0].key
        local.close()

    run(test())


def test_the_bit_rate_is_the_least_that_a_receiver_wishes() -> None:
    async def test() -> None:
        local, pinned = (
            LocalTrack(picture(), encoding=Encoding(video_bitrate=bitrate))
            for bitrate in (None, 2_000_000)
        )
        one, two = taking(local), taking(local)
        assert one.encoder is not None
        for outlet, wish, rate in (
            (one, 900_000, 900_000),
            (two, 1_200_000, 900_000),
            (two, 600_000, 600_000),
            (two, 1_000, 250_000),  # the limits of aiortc
        ):
            outlet.wishes(wish)
            assert one.encoder.bitrate == rate
        two.close()
        assert one.encoder.bitrate == 900_000
        held = taking(pinned)
        held.wishes(300_000)
        assert held.encoder is not None
        assert held.encoder.bitrate == 2_000_000
        assert (await take(held, 1))[0].payloads
        local.close()
        pinned.close()

    run(test())


def test_a_receivers_estimate_arrives() -> None:
    async def test() -> None:
        local = LocalTrack(picture(15))
        async with links() as (link,):
            outlet = local.outlet()
            await link.open(outlet)
            await link.wait(lambda: outlet.wish is not None, 30)
            assert outlet.encoder is not None
            assert 250_000 <= outlet.encoder.bitrate <= 1_500_000
        local.close()

    run(test())


def test_an_aiortc_that_hides_its_encoders(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shared_encoder, "ENCODER", "_RTCRtpSender__renamed")
    shared_encoder.can_share.cache_clear()

    async def test() -> None:
        local = LocalTrack(picture())
        async with links(2) as made:
            for link in made:
                await link.open(local.outlet())
            await together(*(link.numbers(160) for link in made))
            assert not local._encoders
        local.close()

    try:
        run(test())
    finally:
        shared_encoder.can_share.cache_clear()
    assert caplog.text.count("is encoded for each of them") == 1


def test_nothing_is_held_after_the_end() -> None:
    async def test() -> None:
        held: list[weakref.ref[Any]] = []

        async def once() -> None:
            local = LocalTrack(picture())
            async with links(2) as made:
                for link in made:
                    outlet = local.outlet()
                    await link.open(outlet)
                    await link.numbers(160)
                    assert outlet.encoder is not None
                    held.extend(map(weakref.ref, (outlet, outlet.encoder, link.near)))
            held.append(weakref.ref(local))
            local.close()

        threads = set(threading.enumerate())
        for _ in range(3):
            await once()
        deadline = time.monotonic() + 10
        while True:
            gc.collect()
            left = sum(ref() is not None for ref in held)
            names = {thread.name for thread in {*threading.enumerate()} - threads}
            if not left and all("asyncio" in name for name in names):  # the executor's stay
                break
            assert time.monotonic() < deadline, (left, names)
            await asyncio.sleep(0.05)

    run(test())


def test_nothing_leaks() -> None:
    async def round_() -> None:
        local, other = (LocalTrack(Scripted("video", plain, interval=0.001)) for _ in range(2))
        sound = LocalTrack(Scripted("audio", beep, interval=0.001))
        outlets = [taking(local), taking(local, "h264"), local.outlet(), sound.outlet()]
        await asyncio.gather(*(take(outlet, 2) for outlet in outlets))
        for outlet in outlets[:3]:
            outlet.switch(other)
        await asyncio.gather(*(take(outlet, 1) for outlet in outlets))
        waiting = [asyncio.ensure_future(take(outlet, 10**6)) for outlet in outlets]
        await asyncio.sleep(0)
        for closable in (local, *outlets, other, sound):
            closable.close()
        await asyncio.wait(waiting, timeout=10)
        assert all(isinstance(task.exception(), MediaStreamError) for task in waiting)

    async def fill_executor() -> None:  # its threads come one by one, and stay
        running = asyncio.get_running_loop()
        await asyncio.gather(*(running.run_in_executor(None, time.sleep, 0.1) for _ in range(40)))

    engine = loop.current()
    engine.call(fill_executor, deadline=Deadline(30), what="executor")
    check(lambda: engine.call(round_, deadline=Deadline(30), what="round"), rounds=60)
