"""Iterate over the frames of remote tracks, sources and any aiortc tracks."""

from __future__ import annotations

import threading
from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
from aiortc.mediastreams import AudioStreamTrack, MediaStreamError, MediaStreamTrack

from metered_sync import MediaError, MeteredTimeoutError, iter_frames
from metered_sync.engine.sending import feed
from metered_sync.testing import PatternSource, ToneSource, read_number
from tests.support.far_end import Far, picture


class Counting(MediaStreamTrack):
    """An aiortc track of somebody's own that never waits, and ends."""

    kind = "video"

    def __init__(self, count: int) -> None:
        super().__init__()
        self._left = count

    async def recv(self) -> Any:
        if not self._left:
            self.stop()
            raise MediaStreamError
        self._left -= 1
        frame = picture(self._left, 16, 16)
        frame.pts, frame.time_base = self._left, Fraction(1, 30)
        return frame


def test_a_remote_tracks() -> None:
    far = Far()
    every, newest = iter_frames(far.track, mode="fifo"), iter_frames(far.track)
    short = iter_frames(far.track, mode="fifo", maxsize=2, timeout=0)
    with pytest.raises(MeteredTimeoutError):
        next(short)
    far.send(*(picture(number) for number in range(4)))
    assert [next(short).pts // 3000 for _ in range(2)] == [2, 3]
    far.incoming.end()
    assert [frame.pts // 3000 for frame in every] == [0, 1, 2, 3]
    assert [frame.pts // 3000 for frame in newest] == [3]
    assert list(short) == list(newest) == []
    far = Far()
    frames = iter_frames(far.track)
    far.incoming.end(MediaError("its connection broke"))
    for _ in range(2):
        with pytest.raises(MediaError, match="its connection broke"):
            next(frames)


def test_a_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("MAX_OVERDUE", "MAX_PRODUCER_LAG", "END_WAIT"):  # a busy machine drops nothing
        monkeypatch.setattr(feed, bound, 60.0)
    with PatternSource(64, 64, fps=40, duration=0.5) as pattern:
        numbers = [
            read_number(frame.to_ndarray(format="gray")) for frame in iter_frames(pattern.video)
        ]
    assert numbers == list(range(20))
    with ToneSource(440, duration=0.2) as tone:
        assert [frame.samples for frame in iter_frames(tone.audio, timeout=20)] == [960] * 10


def test_any_aiortc_tracks() -> None:
    track = Counting(200)
    assert [frame.pts for frame in iter_frames(track)] == list(range(199, -1, -1))
    assert list(iter_frames(track)) == []
    silence = iter_frames(AudioStreamTrack())
    assert next(silence).samples == next(silence).samples == 160


def test_a_deadline_passes_and_one_may_go_on() -> None:
    with PatternSource(64, 64, fps=2) as pattern:
        frames = iter_frames(pattern.video, timeout=0.05)
        next(iter_frames(pattern.video, timeout=20))
        with pytest.raises(MeteredTimeoutError, match=r"iter_frames\(\) of a local video track"):
            next(frames)
        patient = iter_frames(pattern.video, timeout=20)
        assert read_number(next(patient).to_ndarray(format="gray")) == 1
        pattern.stop()
        assert list(frames) == list(patient) == []


def test_threads_share_the_frames() -> None:
    frames = iter_frames(Counting(120))
    seen: list[int] = []
    threads = [
        threading.Thread(target=lambda: seen.extend(frame.pts for frame in frames))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert Counter(seen) == Counter(range(120))


def test_what_is_no_track_is_refused_at_once() -> None:
    anything: Any = iter_frames
    with ToneSource(440) as tone:
        with pytest.raises(MediaError, match="None is no track"):
            iter_frames(tone.video)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="go with a RemoteTrack"):
            anything(tone.audio, mode="latest")
        for timeout in (-1, True):
            with pytest.raises(ValueError, match="timeout"):
                anything(tone.audio, timeout=timeout)
    with pytest.raises(TypeError):
        anything("clip.mp4")
    with pytest.raises(ValueError, match="mode"):
        anything(Far().track, mode="all")
