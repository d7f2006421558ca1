"""Read a user's track once: sharing, pacing, pausing, failing."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from fractions import Fraction

import pytest
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, VideoFrame

from metered_sync.engine.sending import source_reader
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.engine.webrtc.encoding import Encoding
from metered_sync.testing import read_number
from tests.support.connections import until
from tests.support.local_tracks import (
    Scripted,
    beep,
    picture,
    plain,
    rising,
    run,
    take,
    times,
)


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
        await asyncio.sleep(0.5)
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
        await asyncio.sleep(3)
        (frame,) = await take(local.outlet(), 1)
        number = read_number(frame.to_ndarray(format="gray"))
        # It has played on: not many of them may be old.
        assert number is not None
        assert number >= (time.monotonic() - began) * 20 - 40
        local.close()

    run(test())


def test_a_source_that_queues_by_itself_is_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_reader, "READY_WITHIN", 0.04)  # this machine may be busy

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
        await asyncio.sleep(0.1)
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
        await until(lambda: local.ended)
        other = local.successor(Scripted("video", plain))
        outlet.switch(other)
        assert rising([*before, await asyncio.wait_for(waiting, 20)])
        local.close()
        other.close()

    run(test())
    assert "ZeroDivisionError" in caplog.text


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


def test_all_local_tracks_of_a_source_share_one_reader() -> None:
    async def test() -> None:
        source = Scripted("video", plain)
        one, two = LocalTrack(source), LocalTrack(source, encoding=Encoding(max_framerate=10))
        first, second, third = one.outlet(), one.outlet(), two.outlet()
        got = await asyncio.gather(take(first, 20), take(second, 20), take(third, 5))
        assert one._reader is two._reader is not None
        assert all(rising(frames) for frames in got)
        assert source.reads <= one._reader.frames + 2
        one.close()
        assert one._reader is None
        assert rising([*got[2], *await take(third, 3)])  # the other goes on
        two.close()

    run(test())


def test_with_its_last_holder_a_source_is_let_go() -> None:
    async def test() -> None:
        source = Scripted("video", plain)
        one, two = LocalTrack(source), LocalTrack(source)
        await asyncio.gather(take(one.outlet(), 2), take(two.outlet(), 2))
        reader = one._reader
        assert reader is not None
        one.close()
        assert reader._reading is not None
        two.close()
        assert reader._reading is None
        await asyncio.sleep(0.5)
        reads = source.reads
        await asyncio.sleep(0.1)
        assert source.reads == reads
        assert source.readyState == "live"
        again = LocalTrack(source)
        await take(again.outlet(), 2)
        assert again._reader is not reader
        again.close()

    run(test())


def test_a_reader_of_another_loop_is_not_used() -> None:
    source = Scripted("video", plain)
    local = LocalTrack(source)

    async def forgotten() -> None:
        await take(local.outlet(), 2)

    async def later() -> None:
        other = LocalTrack(source)
        await take(other.outlet(), 2)
        assert other._reader is not local._reader
        other.close()

    asyncio.run(forgotten())  # the loop has gone, the track is held
    run(later())


def test_readers_are_found_by_identity_and_held_by_their_users_only() -> None:
    class Alike(Scripted):
        def __eq__(self, other: object) -> bool:
            raise AssertionError("no code of a user's is called for this")

        __hash__ = None  # type: ignore[assignment]

    async def test() -> None:
        one, two = (LocalTrack(Alike("audio", beep)) for _ in range(2))
        await asyncio.gather(take(one.outlet(), 2), take(two.outlet(), 2))
        assert one._reader is not two._reader
        held = weakref.ref(one._reader)
        one.close()
        two.close()
        await asyncio.sleep(0)
        del one
        deadline = time.monotonic() + 5
        while held() is not None:
            gc.collect()
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    run(test())


def test_a_source_of_something_else_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        local = LocalTrack(Scripted("video", lambda _: "text"))
        outlet = local.outlet()
        waiting = asyncio.ensure_future(take(outlet, 1))
        while not local.ended:
            await asyncio.sleep(0.01)
        assert outlet.readyState == "live"
        outlet.close()
        with pytest.raises(MediaStreamError):
            await waiting
        local.close()

    run(test())
    assert "can be sent, not str" in caplog.text
