"""Test that sources, and tracks that arrive, stand for tracks in the calls of a room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiortc.mediastreams import AudioStreamTrack

from metered_sync import (
    AudioSource,
    MediaError,
    MediaStream,
    MeteredPeerStateError,
    Recorder,
    SfuClient,
    from_file,
    iter_frames,
)
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource, read_number
from tests.conftest import ROOT
from tests.support.rooms import PeerFactory, pattern, peer

CLIP = ROOT / "metered_sync" / "demo" / "bunny.mp4"


def test_a_source_is_added_replaced_and_removed(
    shared_cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    with (
        AudioSource() as voice,
        ToneSource(440) as tone,
        pattern() as screen,
        peer(shared_cloud, "ann") as ann,
        peer(shared_cloud, "bob") as bob,
    ):
        ann.add_track(voice, MediaStream(id="agent-voice"))
        ann.add_stream(MediaStream(screen, id="screen"))
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer(timeout=20)
        sound = there.track("audio", timeout=20)
        pictures = there.track("video", stream_id="screen", timeout=20)
        assert sound.stream_id == "agent-voice"
        if there.pc is not None:  # (the SFU's ids are its own)
            assert (sound.id, pictures.id) == (voice.id, screen.id)
        sound.frames().get(timeout=20)
        ann.add_track(voice)  # and again: nothing changes
        ann.add_track(voice.audio, MediaStream(id="agent-voice"))
        ann.replace_track(voice, voice)
        with pytest.raises(TypeError, match="audio cannot become video"):
            ann.replace_track(voice, screen)
        ann.replace_track(voice, tone)
        with pytest.raises(MeteredPeerStateError, match="the new audio track is sent already"):
            ann.replace_track(tone.audio, tone.audio and _added(ann, voice))
        ann.remove_track(voice)
        ann.remove_track(tone)
        ann.remove_track(screen)
        with there.events() as events:
            while there.tracks:
                events.get(timeout=20)


def _added(ann: Any, source: Any) -> Any:
    """Add a source, and return it."""
    ann.add_track(source)
    return source


def test_a_file_is_sent_where_it_has_one_track(
    shared_cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    with from_file(CLIP) as film, peer(shared_cloud, "ann") as ann:
        for call in (
            lambda: ann.add_track(film),
            lambda: ann.remove_track(film),
            lambda: ann.replace_track(film, None),
        ):
            if film.audio is None:
                call()
                continue
            with pytest.raises(TypeError, match=r"pass its \.video or its \.audio"):
                call()
        ann.add_track(film.video)
        assert ann._sent.tracks == [film.video]


@pytest.mark.parametrize("wrong", ["camera", 5, object(), [AudioStreamTrack()]])
def test_what_is_no_track_is_refused(shared_cloud: LocalCloud, wrong: Any) -> None:
    with ToneSource(440) as tone, peer(shared_cloud, "ann") as ann:
        ann.add_track(tone)
        for call in (
            lambda: ann.add_track(wrong),
            lambda: ann.remove_track(wrong),
            lambda: ann.replace_track(wrong, tone),
            lambda: ann.replace_track(tone, wrong),
            lambda: SfuClient(**shared_cloud.sfu_options()).publish([wrong, [wrong]]),
        ):
            with pytest.raises(TypeError, match="a track or a source is needed"):
                call()
        for method, call in (
            ("add_track", lambda: ann.add_track(tone, wrong)),
            ("add_stream", lambda: ann.add_stream(wrong)),
            ("remove_stream", lambda: ann.remove_stream(wrong)),
        ):
            with pytest.raises(TypeError, match=rf"{method}\(\) takes a MediaStream, not"):
                call()
        assert ann._sent.tracks == [tone.audio]


def test_a_source_is_no_stream_and_a_stream_no_track(shared_cloud: LocalCloud) -> None:
    ours: Any = peer(shared_cloud, "ann")
    with ToneSource(440) as tone, ours as ann:
        for call in (
            lambda: ann.add_stream(tone),
            lambda: ann.remove_stream(tone),
            lambda: ann.remove_stream(tone.audio),
            lambda: ann.add_track(tone, tone),
        ):
            with pytest.raises(TypeError, match=r"MediaStream\(…\) makes one of"):
                call()
        with pytest.raises(TypeError, match=r"MediaStream\(id='camera'\)"):
            ann.add_track(tone, "camera")
        for call in (
            lambda: ann.add_track(MediaStream(tone)),
            lambda: ann.remove_track(MediaStream(tone)),
        ):
            with pytest.raises(TypeError, match="takes one track"):
                call()
        for call in (lambda: ann.remove_track(None), lambda: ann.add_track(tone.video)):
            with pytest.raises(MediaError, match="None is no track"):
                call()
        with pytest.raises(TypeError, match="old must be a track that is sent, not None"):
            ann.replace_track(None, tone)


def test_a_track_that_is_there_in_another_way_is_told(shared_cloud: LocalCloud) -> None:
    with pattern() as screen, ToneSource() as tone, peer(shared_cloud, "ann") as ann:
        ann.add_track(screen, metadata={"n": 1}, video_bitrate=300_000, max_framerate=10)
        for again in (
            {},
            {"metadata": {"n": 1}},
            {"video_bitrate": 300_000, "max_framerate": 10},
        ):
            ann.add_track(screen, **again)
        for other, what in (
            ({"metadata": {"n": 2}}, "with other metadata"),
            ({"video_bitrate": 400_000}, "with other options"),
            ({"video_bitrate": 300_000}, "with other options"),
            ({"codec": "h264"}, "with other options"),
            ({"stream": MediaStream(id="x")}, "in no stream"),
        ):
            with pytest.raises(MeteredPeerStateError, match=f"is sent already, {what}") as caught:
                ann.add_track(screen, **other)
            assert caught.value.code == "track_already_attached"
        ann.add_stream(MediaStream(tone, id="one"))
        with pytest.raises(MeteredPeerStateError, match="in the stream 'one'"):
            ann.add_stream(MediaStream(tone, id="two"))


def test_what_has_ended_is_not_sent(shared_cloud: LocalCloud) -> None:
    with pattern() as screen, pattern() as over, peer(shared_cloud, "ann") as ann:
        track = over.video
        over.stop()
        ann.add_track(screen)
        for call in (
            lambda: ann.add_track(over),
            lambda: ann.add_track(track),
            lambda: ann.add_stream(MediaStream([track])),
            lambda: ann.replace_track(screen, over),
        ):
            with pytest.raises(MediaError, match="has ended: there is nothing to send"):
                call()
        assert ann._sent.tracks == [screen.video]


def sees(track: Any, width: int, count: int = 3) -> None:
    """Wait for so many new pictures of a width, in order."""
    numbers: list[int] = []
    with track.frames(mode="fifo") as frames:
        while len(numbers) < count:
            frame = frames.get(timeout=20)
            number = read_number(frame.to_ndarray(format="gray"))
            if frame.width == width and number is not None:
                numbers.append(number)
    assert numbers == sorted(set(numbers))


def test_a_bridge_from_a_room_to_the_sfu_and_back(
    shared_cloud: LocalCloud, room: str, tmp_path: Path, peer: PeerFactory
) -> None:
    options = shared_cloud.sfu_options()
    with (
        PatternSource(320, 240, 15) as camera,
        ToneSource(440) as tone,
        peer(shared_cloud, "ann") as ann,
        peer(shared_cloud, "bob") as bob,
        SfuClient(**options) as bridge,
        SfuClient(**options) as receiver,
    ):
        ann.add_stream(MediaStream([camera, tone], id="camera"))
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer(timeout=20)
        pictures = there.track("video", timeout=20)
        sound = there.track("audio", timeout=20)
        publication = bridge.publish(pictures, name="bridged")
        assert (publication.kind, publication.name) == ("video", "bridged")
        listening = receiver.subscribe(bridge.publish([sound, sound])[0])
        watching = receiver.subscribe(publication)
        bob.add_track(watching)  # a track from the SFU goes to the room
        back = ann.wait_for_peer("bob", timeout=20).track("video", timeout=20)
        with Recorder(tmp_path / "all.mkv", pictures, watching, sound) as recorder:
            sees(watching, 320)
            sees(back, 320)
            sees(pictures, 320)
            assert listening.frames().get(timeout=20).samples
            assert next(iter_frames(watching, timeout=20)).width == 320
        assert [s.kind for s in recorder.info.streams].count("video") == 2
        with pytest.raises(MeteredPeerStateError, match="sent already"):
            bob.add_track(watching, MediaStream(id="x"))
        bob.remove_track(watching)
        publication.close()
        camera.stop()
        pictures.wait_ended(timeout=20)
        with pytest.raises(MediaError, match="has ended"):
            bridge.publish(pictures)
