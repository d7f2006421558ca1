"""Spread a received track's frames over readers, without a connection."""

from __future__ import annotations

import asyncio
import gc
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpreceiver import RemoteStreamTrack
from av import VideoFrame

from metered_sync import ClosedError, MediaError
from metered_sync.bridge.reader import Reader
from metered_sync.engine.webrtc import incoming as incoming_module
from metered_sync.engine.webrtc.incoming import IncomingTrack


def frame(pts: int | None, rate: int = 90000) -> VideoFrame:
    made = VideoFrame(2, 2, "yuv420p")
    if pts is not None:
        made.pts, made.time_base = pts, Fraction(1, rate)
    return made


class Receiver:
    """A track of aiortc's that hands out frames, and ends."""

    def __init__(self, *frames: VideoFrame) -> None:
        self._frames = list(frames)

    async def recv(self) -> Any:
        if not self._frames:
            raise MediaStreamError
        return self._frames.pop(0)


def run(track: IncomingTrack, *frames: VideoFrame) -> None:
    source: Any = Receiver(*frames)
    asyncio.run(track.run(source))


def reader() -> Reader[Any]:
    return Reader("reader")


def test_each_reader_gets_each_frame_from_the_moment_it_was_added() -> None:
    track = IncomingTrack("video", id="t")
    one, two = reader(), reader()
    track.add(one)
    run(track, frame(0), frame(3000))
    track.add(two)
    run(track, frame(0))
    assert (len(one), len(two), track.frames, track.decoded) == (3, 1, 3, 3)
    track.remove(one)
    run(track, frame(0))
    assert (len(one), len(two)) == (3, 2)


def test_readers_are_held_weakly() -> None:
    track = IncomingTrack("video", id="t")
    kept, forgotten = reader(), reader()
    track.add(kept)
    track.add(forgotten)
    del forgotten
    gc.collect()
    assert track.readers == [kept]


def test_timestamps_go_on_over_receivers(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(incoming_module, "monotonic", lambda: clock.now)
    track, one = IncomingTrack("video", id="t"), reader()
    track.add(one)
    run(track, frame(0), frame(3000))
    clock.now += 2  # without a connection
    run(track, frame(0), frame(3000))
    times = [one.get_nowait().time for _ in range(4)]
    assert times == pytest.approx([0, 1 / 30, 1 / 30 + 2, 2 / 30 + 2], abs=1e-3)
    clock.now -= 1  # (never: but they rise all the same)
    run(track, frame(0))
    assert one.get_nowait().time > times[-1]


def test_frames_are_taken_at_once_and_in_order_where_some_are_turned() -> None:
    async def test() -> None:
        track, one = IncomingTrack("video", id="t"), reader()
        track.add(one)
        source = RemoteStreamTrack("video")
        running = asyncio.ensure_future(track.run(source))
        await asyncio.sleep(0)
        for number in range(3):
            source._queue.put_nowait(frame(number))
            assert len(one) == number + 1
        track.appears(3, 1, None)
        track.appears(5, 0, None)
        for number in range(3, 8):
            source._queue.put_nowait(frame(number))
        assert len(one) == 3
        await source._queue.put(None)
        await asyncio.wait_for(running, 20)
        assert [one.get_nowait().pts for _ in range(8)] == [*range(8)]
        source._queue.put_nowait(frame(8))  # nobody takes it
        assert len(one) == 0

    asyncio.run(test())


def test_frames_without_a_time_pass() -> None:
    track, one = IncomingTrack("video", id="t"), reader()
    track.add(one)
    run(track, frame(None))
    assert one.get_nowait().pts is None


def test_frames_are_wanted_while_somebody_reads_and_a_little_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(incoming_module, "monotonic", lambda: clock.now)
    track = IncomingTrack("video", id="t")
    assert not track.wanted()  # nobody has read it yet
    one = reader()
    track.add(one)
    assert track.wanted()
    del one
    gc.collect()
    assert track.wanted()
    clock.now += incoming_module.UNREAD_DECODING + 1
    assert not track.wanted()
    track.leave_out()
    assert (track.frames, track.decoded, track.last) == (1, 0, clock.now)


@pytest.mark.parametrize("error", [None, MediaError("it broke")])
def test_the_end_is_told_to_readers_also_to_late_ones(error: MediaError | None) -> None:
    track, one, late = IncomingTrack("video", id="t"), reader(), reader()
    track.add(one)
    run(track, frame(0))
    track.end(error)
    track.end(MediaError("the first one counts"))
    track.add(late)
    assert one.get_nowait() is not None  # what came can still be read
    for each in (one, late):
        with pytest.raises(
            ClosedError if error is None else MediaError, match=str(error or "reader")
        ):
            each.get(1)
    run(track, frame(0))
    assert track.frames == 1


def test_a_sender_without_key_frames_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    track = IncomingTrack("video", id="t")
    for lacking in (True, False, True):
        track.lack_key_frame(lacking)
        assert track.stats()["lacks_key_frame"] is lacking
    assert caplog.text.count("sends no key frame") == 1


def test_statistics_count_what_is_not_decoded() -> None:
    track = IncomingTrack("video", id="t", max_pixels=100)
    track.drop(3)
    track.drop(1)
    assert not track.admits(11, 10)
    assert (track.stats()["dropped"], track.stats()["oversized"]) == (4, 1)


def test_statistics_name_the_track() -> None:
    track = IncomingTrack("audio", id="t", name="voice", stream_id="s")
    counts = track.stats()
    assert (counts["kind"], counts["id"], counts["name"]) == ("audio", "t", "voice")
    assert (counts["frames_decoded"], counts["restarts"], counts["packets_lost"]) == (0, 0, 0)
