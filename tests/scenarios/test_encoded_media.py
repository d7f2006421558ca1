"""Media that is encoded already, in rooms over a mesh and over the SFU, as members see it."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from aiortc.contrib.media import MediaPlayer

from metered_sync import (
    BitrateWanted,
    EncodedSource,
    KeyFrameWanted,
    MediaError,
    Recorder,
    RemoteTrack,
    SfuClient,
    VideoSource,
    from_file,
)
from metered_sync.engine.sending import kept_group
from metered_sync.engine.sfu_rooms import room_track
from metered_sync.engine.webrtc import incoming
from metered_sync.local import LocalCloud
from metered_sync.media.tracks.track import core_of
from metered_sync.testing import dominant_frequency
from tests.conftest import wait_until
from tests.support.encoded import NUMBERS, units, write
from tests.support.media_files import number_of
from tests.support.rooms import PeerFactory

SIZE = (160, 96)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of 20 s with one key frame, in High profile, and a tone of 500 Hz."""
    folder = tmp_path_factory.mktemp("encoded")
    return write(folder / "film.mkv", count=500, gop=1000, size=SIZE, audio="libopus")


def shown(track: RemoteTrack, count: int = 10) -> list[int]:
    """Return the numbers of the next pictures, each of which is taken.

    Those that are sent again, to somebody who is late, come all at once.
    """
    with track.frames(mode="fifo", maxsize=500) as frames:
        return [number_of(frames.get(timeout=20)) for _ in range(count)]


def is_a_run(numbers: list[int]) -> bool:
    """Whether pictures follow each other."""
    return all((b - a) % NUMBERS <= 3 for a, b in itertools.pairwise(numbers))


def test_a_film_in_a_room(
    cloud: LocalCloud, peer: PeerFactory, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All see it from its first picture, though there is no other key frame, and they come late."""
    # (Connecting takes long where a machine is busy.)
    monkeypatch.setattr(kept_group, "MAX_GROUP_SECONDS", 60.0)
    with (
        peer(cloud, "cinema") as cinema,
        peer(cloud, "first") as first,
        peer(cloud, "late") as late,
        from_file(film, encoded=True, loop=True) as source,
    ):
        pictures, sound = source.tracks
        cinema.add_track(sound)
        cinema.join("cinema")
        first.join("cinema")
        remote = first.wait_for_peer("cinema", timeout=20)
        with remote.track("audio", timeout=20).frames() as frames:
            heard = [frames.get(timeout=20).to_ndarray()[0, ::2] for _ in range(60)]
        assert dominant_frequency(np.concatenate(heard[20:]), 48000) == pytest.approx(500, abs=10)
        cinema.add_track(pictures, metadata={"role": "film"})
        began = time.monotonic()
        video = remote.track("video", timeout=20)
        assert video.metadata == {"role": "film"}
        numbers = shown(video, 20)
        assert time.monotonic() - began < 12  # not only when it is shown again
        assert numbers[0] == 0
        assert is_a_run(numbers)
        late.join("cinema")
        track = late.wait_for_peer("cinema", timeout=20).track("video", timeout=20)
        assert track.read(timeout=15).shape == (*SIZE[::-1], 3)  # the next key frame is far
        # (What the late one was sent again comes to both through the SFU, and quickly: a decoder
        # that is late leaves some of it out.)
        assert any(is_a_run(shown(video)) for _ in range(10))


def test_an_encoder_of_ones_own(cloud: LocalCloud, peer: PeerFactory) -> None:
    made = units("vp8", 60, gop=30, size=SIZE)
    with (
        peer(cloud, "encoder") as sender,
        peer(cloud, "viewer") as viewer,
        EncodedSource("vp8", fps=50) as source,
        source.feedback() as feedback,
    ):
        source.write(made[0])
        sender.add_track(source)
        sender.join("own")
        viewer.join("own")
        track = viewer.wait_for_peer("encoder", timeout=20).track("video", timeout=20)
        wanted = feedback.get(timeout=20)
        assert isinstance(wanted, KeyFrameWanted)
        with track.frames(mode="fifo") as frames:
            for unit in made[1:]:
                source.write(unit)
            seen: list[int] = []
            while 59 not in seen:
                seen.append(number_of(frames.get(timeout=20)))
        assert is_a_run(sorted(seen))
        assert len(set(seen)) > 20
        deadline = time.monotonic() + 30
        while not isinstance(wanted, BitrateWanted):
            assert time.monotonic() < deadline, "no receiver reports a bit rate"
            source.write(made[0])
            with suppress(queue.Empty):
                wanted = feedback.get_nowait()
        assert wanted.bitrate > 10_000


def test_who_begins_late_sees_a_picture_though_none_is_written(
    shared_cloud: LocalCloud, peer: Any
) -> None:
    """What came before anybody read was left out; the next picture may be minutes away."""

    def sees() -> None:
        with track.frames() as frames:
            while number_of(frames.get(timeout=20)) < 2:
                pass

    with (
        peer(shared_cloud, "seldom") as sender,
        peer(shared_cloud, "viewer") as viewer,
        EncodedSource("h264", fps=50) as source,
    ):
        for unit in units("h264", 3, size=SIZE):
            source.write(unit)
        sender.add_track(source)
        sender.join("seldom")
        viewer.join("seldom")
        track = viewer.wait_for_peer("seldom", timeout=20).track("video", timeout=20)
        if peer.keywords["through"] == "mesh":
            wait_until(lambda: track.frames_received)
        sees()
        time.sleep(1)  # no picture is expected any more
        sees()


def test_who_pauses_goes_on_with_a_key_frame(
    cloud: LocalCloud, peer: PeerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody reads is not decoded, nor while it is recorded: that begins with one as well."""
    monkeypatch.setattr(incoming, "UNREAD_DECODING", 0.1)
    monkeypatch.setattr(room_track, "LINGER", 0.1)
    gop = NUMBERS // 5
    made = units("h264", NUMBERS, gop=gop, size=SIZE)
    written, stopped = 0, threading.Event()

    def play(source: EncodedSource) -> None:
        nonlocal written
        while not stopped.is_set():
            source.write(made[written % NUMBERS])
            written += 1

    def pause(track: RemoteTrack) -> None:
        far = core_of(track).incoming
        wait_until(lambda: not far.wanted())
        until = written + gop // 2
        wait_until(lambda: written > until)

    def can_be_decoded(seen: list[int]) -> bool:
        """Say whether each picture follows the one before, or is a key frame, as the first is."""
        steps = itertools.pairwise(seen)
        return seen[0] % gop == 0 and all(b % gop == 0 or b == a + 1 for a, b in steps)

    with (
        peer(cloud, "sender") as sender,
        peer(cloud, "viewer") as viewer,
        EncodedSource("h264", fps=25) as source,
    ):
        thread = threading.Thread(target=play, args=(source,))
        thread.start()
        try:
            sender.add_track(source)
            sender.join("pauses")
            viewer.join("pauses")
            track = viewer.wait_for_peer("sender", timeout=20).track("video", timeout=20)
            for _ in range(2):
                seen = shown(track, gop)
                assert can_be_decoded(seen), seen
                pause(track)
            decoded = track.stats()["frames_decoded"]
            with Recorder(tmp_path / "a.mp4", track) as recorder:
                wait_until(lambda: recorder.info.frames > gop)
            assert track.stats()["frames_decoded"] - decoded < gop // 2  # (one may be on its way)
        finally:
            stopped.set()
            thread.join(20)
    with av.open(str(tmp_path / "a.mp4")) as container:
        recorded = [number_of(frame) for frame in container.decode(video=0)]
    assert len(recorded) == recorder.info.frames
    assert can_be_decoded(recorded), recorded


def test_what_cannot_be_done_says_so(shared_cloud: LocalCloud, film: Path, peer: Any) -> None:
    with (
        SfuClient(**shared_cloud.sfu_options()) as sfu,
        peer(shared_cloud, "wrong") as sender,
        from_file(film, encoded=True) as source,
        VideoSource(64, 48) as screen,
    ):
        video: Any = source.video
        player = MediaPlayer(str(film), decode=False)
        for act in (sfu.publish, sender.add_track):
            with pytest.raises(MediaError, match=r"MediaPlayer with decode=False.*from_file\("):
                act(player.video)
        with pytest.raises(ValueError, match="the video is encoded already"):
            sfu.publish(video, video_bitrate=500_000)
        with pytest.raises(ValueError, match=r"codec='vp8' cannot be: the video is H\.264 \(High"):
            sender.add_track(video, codec="vp8")
        sender.add_track(video, codec="h264")
        with pytest.raises(MediaError, match=r"the old video track is H\.264 .*, the new one enc"):
            sender.replace_track(video, screen.video)
        player.video.stop()


def test_the_sfu_is_offered_the_profile_of_the_stream(
    shared_cloud: LocalCloud, tmp_path: Path
) -> None:
    """And others that are published beside it, and after it, go on."""
    options = shared_cloud.sfu_options()
    profiles = ("baseline", "main", "high")
    files = [write(tmp_path / f"{p}.mp4", size=SIZE, profile=p) for p in profiles]
    with SfuClient(**options) as sender, SfuClient(**options) as receiver:
        sources = [from_file(path, encoded=True, loop=True) for path in files]
        plain = VideoSource(*SIZE)
        tracks = []
        for source in (*sources, plain):
            tracks.append(receiver.subscribe(sender.publish(source.video)))
        plain.write(np.full((*SIZE[::-1], 3), 80, np.uint8))
        for track in tracks[:3]:
            with track.frames(mode="fifo") as frames:
                seen: set[int] = set()
                while len(seen) < 15:  # (some are sent again to who asks for a key frame)
                    seen.add(number_of(frames.get(timeout=20)))
        assert tracks[3].read(timeout=20).shape == (*SIZE[::-1], 3)
        for source in (*sources, plain):
            source.stop()
