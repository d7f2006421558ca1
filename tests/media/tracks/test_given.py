"""Test which tracks users mean by what they give where a track is taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiortc.mediastreams import AudioStreamTrack

from metered_sync import (
    AudioSource,
    MediaError,
    MediaStream,
    Recorder,
    VideoSource,
    from_file,
    iter_frames,
)
from metered_sync.media.tracks.given import one_track, sendable, tracks_of
from metered_sync.testing import PatternSource, ToneSource
from tests.support.far_end import Far
from tests.support.media_files import write

ONE_TRACK: list[Callable[[], Any]] = [
    AudioSource,
    lambda: VideoSource(64, 64),
    lambda: PatternSource(64, 64),
    ToneSource,
]


@pytest.mark.parametrize("make", ONE_TRACK)
def test_a_source_that_has_one_track_stands_for_it(make: Callable[[], Any], tmp_path: Path) -> None:
    with make() as source:
        (track,) = source.tracks
        assert one_track(source, "add_track()") is source.track is track
        assert tracks_of(source) == ([track], False)
        assert (source.kind, source.id, source.kinds) == (track.kind, track.id, (track.kind,))
        stream = MediaStream(source)
        assert stream.tracks == MediaStream([source, track]).tracks == [track]
        stream.remove_track(source)
        assert stream.tracks == []
        recorder = Recorder(tmp_path / "a.mkv", source)
        recorder.add(track)
        assert len(recorder._tracks) == 1


@pytest.mark.parametrize("make", [lambda: PatternSource(64, 64, 30), ToneSource, AudioSource])
def test_its_frames_are_iterated_over(make: Callable[[], Any]) -> None:
    with make() as source:
        frame = next(iter_frames(source, timeout=20))
        assert type(frame).__name__.lower().startswith(source.kind)


def test_a_file_stands_for_its_track_where_it_has_one(tmp_path: Path) -> None:
    both, pictures = write(tmp_path / "both.mkv"), write(tmp_path / "v.mkv", audio=None)
    with from_file(pictures) as source:
        assert source.kinds == ("video",)
        assert one_track(source, "add_track()") is source.video
        assert tracks_of(source) == ([source.video], True)
        assert next(iter_frames(source, timeout=20)).width
    with from_file(both) as source:
        assert tracks_of(source) == ([source.video, source.audio], True)
        for call in (lambda: one_track(source, "x()"), lambda: iter_frames(source)):
            with pytest.raises(
                TypeError, match=r"pictures and sound: pass its \.video or its \.au"
            ):
                call()


def test_a_file_that_is_refused_is_not_decoded_for_it(tmp_path: Path) -> None:
    with from_file(write(tmp_path / "both.mkv")) as source:
        with pytest.raises(TypeError):
            one_track(source, "x()")
        assert not any(track._queue.wanted for track in source._tracks.values())


def test_tracks_that_arrive_are_taken() -> None:
    far = Far()
    assert one_track(far.track, "add_track()") is far.track
    assert tracks_of(MediaStream([far.track])) == ([far.track], True)
    relay = sendable(far.track)
    assert (relay.kind, relay.readyState) == ("video", "live")
    assert sendable(far.track) is relay
    own = AudioStreamTrack()
    assert sendable(own) is own


@pytest.mark.parametrize("wrong", ["clip.mp4", 5, object(), [AudioStreamTrack()], b"", {}])
def test_anything_else_is_refused(wrong: object) -> None:
    for take in (tracks_of, lambda value: one_track(value, "add_track()")):
        with pytest.raises(TypeError, match="a track or a source is needed"):
            take(wrong)


def test_a_stream_is_no_track() -> None:
    with pytest.raises(TypeError, match=r"add_track\(\) takes one track: pass one of the \.tracks"):
        one_track(MediaStream(AudioStreamTrack()), "add_track()")


def test_an_array_is_refused_in_few_words() -> None:
    with pytest.raises(TypeError) as caught:
        tracks_of(np.zeros((480, 640, 3), np.uint8))
    assert len(str(caught.value)) < 300


def test_nothing_is_no_track() -> None:
    with PatternSource(64, 64) as pattern, ToneSource() as tone:
        for nothing in (tone.video, pattern.audio, None):
            for take in (tracks_of, lambda value: one_track(value, "add_track()")):
                with pytest.raises(MediaError, match=r"either a source has no pict.* or no track"):
                    take(nothing)
