"""Group tracks of any origin into streams."""

from __future__ import annotations

import threading

import pytest
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack

from metered_sync import MediaError, MediaStream
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.media.tracks.given import tracks_of
from metered_sync.media.tracks.track import RemoteTrack
from metered_sync.testing import PatternSource, ToneSource


def test_tracks_of_any_origin_are_taken() -> None:
    source, own = PatternSource(64, 64), AudioStreamTrack()
    remote = RemoteTrack(IncomingTrack("video", id="far"), None)
    for tracks in (
        [source.video, own],
        (source, own),
        (one for one in (source, own)),
        MediaStream([source, own]),
        MediaStream([*source.tracks, own, source.video]).tracks,
    ):
        assert MediaStream(tracks).tracks == [source.video, own]
    assert MediaStream(source).tracks == source.tracks
    assert MediaStream(own).tracks == [own]
    assert MediaStream([remote]).tracks == [remote]
    assert tracks_of(MediaStream([source, own])) == ([source.video, own], True)


def test_adding_and_removing() -> None:
    video, audio, source = VideoStreamTrack(), AudioStreamTrack(), ToneSource()
    stream = MediaStream(id="camera")
    for track in (video, audio, source, video):
        stream.add_track(track)
    assert stream.tracks == [video, audio, source.audio]
    stream.tracks.clear()
    stream.remove_track(video)
    stream.remove_track(video)
    stream.remove_track(source)
    assert stream.tracks == [audio]
    assert repr(stream) == "<MediaStream 'camera': audio>"
    assert repr(MediaStream(id="empty")) == "<MediaStream 'empty': no tracks>"


def test_tracks_by_kind() -> None:
    video, audio, screen = VideoStreamTrack(), AudioStreamTrack(), VideoStreamTrack()
    remote = RemoteTrack(IncomingTrack("audio", id="far"), None)
    stream = MediaStream([video, audio, screen, remote])
    assert stream.get_tracks() == stream.tracks == [video, audio, screen, remote]
    assert stream.get_audio_tracks() == [audio, remote]
    assert stream.get_video_tracks() == [video, screen]
    stream.get_tracks().clear()
    stream.get_video_tracks().clear()
    assert len(stream.tracks) == 4
    assert MediaStream().get_tracks() == MediaStream().get_audio_tracks() == []


def test_ids() -> None:
    assert MediaStream(id="screen-2.{a}").id == "screen-2.{a}"
    assert MediaStream().id != MediaStream().id
    assert MediaStream(id=MediaStream().id)
    for bad in ("", "-", "two words", "a/b", "ä", "x" * 257, "line\n"):
        with pytest.raises(ValueError, match="cannot be a stream's id"):
            MediaStream(id=bad)
    with pytest.raises(TypeError, match="must be a str, not int"):
        MediaStream(id=1)  # type: ignore[arg-type]


def test_what_a_source_lacks_is_named() -> None:
    source = PatternSource(64, 64)
    with pytest.raises(MediaError, match="None is no track"):
        MediaStream([source.video, source.audio])
    with pytest.raises(MediaError, match="None is no track"):
        MediaStream(source.audio)
    with pytest.raises(MediaError, match="None is no track"):
        MediaStream().add_track(source.audio)


@pytest.mark.parametrize("bad", ["camera", b"camera", 1, ["camera"], [[]], object()])
def test_anything_else_is_refused(bad: object) -> None:
    with pytest.raises(TypeError, match="a track or a source is needed"):
        MediaStream(bad)
    with pytest.raises(TypeError, match="a track or a source is needed"):
        MediaStream().remove_track(bad)


def test_threads_may_add_at_once() -> None:
    stream = MediaStream()
    tracks = [[AudioStreamTrack() for _ in range(50)] for _ in range(8)]

    def add(own: list[AudioStreamTrack]) -> None:
        for track in own:
            stream.add_track(track)

    threads = [threading.Thread(target=add, args=(own,)) for own in tracks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(stream.tracks) == 400
