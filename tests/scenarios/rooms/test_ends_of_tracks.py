"""Test that a track ends for all who read it when its sender ends it, or has gone; and not before.

What is sent here is real, and so is the way that it comes to its end.
"""

from __future__ import annotations

import dataclasses
import gc
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metered_sync import (
    AudioSource,
    ClosedError,
    ConnectionReset,
    MediaStream,
    MeteredTimeoutError,
    Recorder,
    RemoteTrack,
    StreamRemoved,
    Track,
    TrackEnded,
    VideoSource,
    from_file,
    iter_frames,
)
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.conftest import wait_until
from tests.support.media_files import write
from tests.support.outage import outage
from tests.support.rooms import PeerFactory, pattern, peer

QUICK = dataclasses.replace(DEFAULT_TIMINGS, track_return=0.8, limbo=0.5, room_limbo=0.5)


class Readers:
    """All ways to read a track, each on a thread of its own, until it ends."""

    def __init__(self, track: RemoteTrack) -> None:
        self.track = track
        self.ended: list[str] = []
        self.told: list[TrackEnded] = []
        ways: dict[str, Callable[[], object]] = {
            "frames": lambda: list(track.frames()),
            "iter_frames": lambda: list(iter_frames(track)),
            "wait_ended": track.wait_ended,
            "wait_for": lambda: track.wait_for(TrackEnded),
        }
        if track.kind == "audio":
            ways["pcm"] = lambda: list(track.pcm())
        else:
            ways |= {"capture": self._capture, "read": self._read}
        track.on(TrackEnded, self.told.append)
        self.callback = track.on_frame(lambda frame: None)
        self.threads = [
            threading.Thread(target=self._run, args=item, daemon=True) for item in ways.items()
        ]
        for thread in self.threads:
            thread.start()
        wait_until(lambda: len(track._core.incoming.readers) >= len(ways) - 2)

    def _run(self, name: str, way: Callable[[], object]) -> None:
        way()
        self.ended.append(name)

    def _capture(self) -> None:
        capture = self.track.capture()
        while capture.read()[0]:
            pass
        assert not capture.isOpened()

    def _read(self) -> None:
        with pytest.raises(ClosedError, match="the track has ended"):
            while True:
                self.track.read()

    def check(self, timeout: float = 20) -> None:
        """All have ended, and were told so."""
        deadline = time.monotonic() + timeout
        for thread in self.threads:
            thread.join(max(deadline - time.monotonic(), 0))
        assert not [thread for thread in self.threads if thread.is_alive()], self.ended
        assert self.track.ended
        wait_until(lambda: self.told == [TrackEnded(self.track)])
        assert "closed" in repr(self.callback)
        self.track.wait_ended(timeout=0)
        with pytest.raises(ClosedError):
            self.track.on(TrackEnded, print)


def test_all_readers_end_however_a_track_is_ended(
    shared_cloud: LocalCloud, room: str, tmp_path: Path, peer: PeerFactory
) -> None:
    film = from_file(write(tmp_path / "film.mkv", seconds=10, audio=None))
    played, stopped, removed = PatternSource(96, 64, 10, duration=1.5), ToneSource(), ToneSource()
    loop = from_file(write(tmp_path / "loop.mkv", seconds=0.5, audio=None), loop=True)
    ended, voice, replaced = VideoSource(96, 64), AudioSource(), pattern()
    with peer(shared_cloud, "ann") as ann, peer(shared_cloud, "bob", _timings=QUICK) as bob:
        sources: list[Any] = [film, played, stopped, removed, ended, voice, replaced, loop]
        for number, source in enumerate(sources):
            ann.add_track(source, MediaStream(id=str(number)))
        ended.write(bytes(96 * 64 * 3))
        voice.push(bytes(16000))
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer(timeout=20)
        tracks = [there.track(stream_id=str(n), timeout=20) for n in range(len(sources))]
        goes_on = tracks.pop()
        with pytest.raises(MeteredTimeoutError, match="did not end within"):
            goes_on.wait_ended(timeout=0)
        with there.events(TrackEnded) as events:
            readers = [Readers(track) for track in tracks]
            with Recorder(tmp_path / "all.mkv", tracks[0], tracks[5]) as recorder:
                tracks[0].frames().get(timeout=20)
                film.seek(9)
                stopped.stop()
                ended.end()
                voice.end()
                ann.remove_track(removed)
                ann.replace_track(replaced, None)
                for reader in readers:
                    reader.check()
                wait_until(lambda: recorder.info.frames > 0)
            gone = {events.get(timeout=20).track for _ in tracks}
            assert gone == set(tracks)
            assert there.tracks == [goes_on]
            assert ann._sent.tracks == [loop.video]
            with goes_on.frames() as frames:
                for _ in range(3):
                    frames.get(timeout=20)
            last = Readers(goes_on)
            ann.close()
            last.check()
            assert events.get(timeout=20) == TrackEnded(goes_on)
        wait_until(lambda: there.state == "closed", 20)
    for source in sources:
        source.stop()


def test_a_track_that_comes_again_in_time_goes_on(
    shared_cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    with (
        pattern() as one,
        pattern(320, 240) as two,
        ToneSource() as tone,
        peer(shared_cloud, "ann") as ann,
        peer(shared_cloud, "bob", _timings=QUICK) as bob,
    ):
        ann.add_track(tone, MediaStream(id="voice"))  # which goes on
        ann.add_track(one, MediaStream(id="camera"))
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer(timeout=20)
        track = there.track("video", timeout=20)
        frames = track.frames(mode="fifo", maxsize=1000)
        frames.get(timeout=20)
        with there.events(Track, StreamRemoved, TrackEnded) as events:
            ann.remove_track(one)
            assert isinstance(events.get(timeout=20), StreamRemoved)
            assert (track in there.tracks, track.ended) == (False, False)
            ann.add_track(one, MediaStream(id="camera"))
            again = events.get(timeout=20)
            assert isinstance(again, Track)
            assert again.track is track
            ann.replace_track(one, two)  # no end, either
            while frames.get(timeout=20).width != 320:
                pass
            with pytest.raises(MeteredTimeoutError):
                track.wait_ended(timeout=QUICK.track_return + 0.3)
            assert len(events) == 0
            ann.remove_track(two)
            track.wait_ended(timeout=20)
            assert isinstance(events.get(timeout=20), StreamRemoved)
            assert events.get(timeout=20) == TrackEnded(track)
            ann.add_track(two, MediaStream(id="camera"))  # too late: another track
            new = there.track("video", timeout=20)
            assert new is not track
            assert new.read(timeout=20).shape == (240, 320, 3)


class Callback:
    """A callback that can be forgotten."""

    def __call__(self, event: TrackEnded) -> None:
        assert event.track.ended


def test_nothing_is_kept_of_what_has_ended(
    shared_cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    timings = dataclasses.replace(DEFAULT_TIMINGS, track_return=0.1, last_frames=0.1)
    with (
        peer(shared_cloud, "ann", _timings=timings) as ann,
        peer(shared_cloud, "bob", _timings=timings) as bob,
    ):
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer(timeout=20)

        def run(number: int) -> list[weakref.ref[Any]]:
            source = ToneSource()
            ann.add_track(source, MediaStream(id=str(number)), metadata={"n": number})
            track: Any = there.track(stream_id=str(number), timeout=20)
            track.frames().get(timeout=20)
            callback = Callback()
            track.on(TrackEnded, callback)
            source.stop()
            track.wait_ended(timeout=20)
            return [weakref.ref(one) for one in (source, track, callback)]

        ended = [one for number in range(3) for one in run(number)]

        def gone() -> bool:
            gc.collect()
            return sum(one() is not None for one in ended) == 0

        wait_until(gone, 60, lambda: [one() for one in ended if one()])


def test_a_rebuilt_connection_is_a_pause(cloud: LocalCloud, room: str) -> None:
    with pattern() as one, peer(cloud, "ann") as ann, peer(cloud, "bob") as bob:
        ann.add_track(one)
        ann.join(room)
        bob.join(room)
        track = bob.wait_for_peer(timeout=20).track("video", timeout=20)
        track.read(timeout=20)
        with outage(cloud, bob):
            pass
        wait_until(lambda: track.restarts > 0, 20)
        track.read(timeout=20)
        assert not track.ended


@pytest.mark.parametrize("who", ["ann", "bob", None])
def test_losses_in_quick_succession_are_a_pause(
    cloud: LocalCloud, room: str, who: str | None
) -> None:
    """Each comes while the media are being connected anew after the one before."""
    with pattern() as one, peer(cloud, "ann") as ann, peer(cloud, "bob") as bob:
        ann.add_track(one)
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer(timeout=20)
        track = there.track("video", timeout=20)
        track.read(timeout=20)
        losses = iter(range(3))
        lost = threading.Event()

        def lose(_: ConnectionReset) -> None:
            if next(losses, None) is not None:
                cloud.faults.drop_connections(who)
            else:
                lost.set()

        there.on(ConnectionReset, lose)
        cloud.faults.drop_connections(who)
        assert lost.wait(30)
        assert bob.wait_for_peer("ann", timeout=20) is there
        there.wait_connected(timeout=20)
        track.read(timeout=20)
        assert not track.ended


def test_a_member_that_stays_away_ends_its_tracks(
    cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    timings = dataclasses.replace(DEFAULT_TIMINGS, limbo=1.0, room_limbo=1.0)
    with (
        pattern() as one,
        peer(cloud, "ann", reconnect=False) as ann,
        peer(cloud, "bob", _timings=timings) as bob,
    ):
        ann.add_track(one)
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer(timeout=20)
        track = there.track("video", timeout=20)
        track.read(timeout=20)
        with there.events(TrackEnded) as events:
            cloud.faults.drop_connections("ann")
            assert events.get(timeout=20) == TrackEnded(track)
        with pytest.raises(ClosedError):
            while True:  # (the last picture may not have been read)
                track.read(timeout=20)


def test_a_track_that_is_closed_here_ends_here(
    shared_cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    with (
        pattern() as one,
        ToneSource() as tone,
        peer(shared_cloud, "ann") as ann,
        peer(shared_cloud, "bob") as bob,
    ):
        ann.add_stream(MediaStream([one, tone], id="camera"))
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer(timeout=20)
        track, sound = there.track("video", timeout=20), there.track("audio", timeout=20)
        track.read(timeout=20)
        readers = Readers(track)
        track.close()
        readers.check()
        track.close()
        assert there.tracks == [sound]
        decoded = track.stats()["frames_decoded"]
        sound.frames().get(timeout=20)
        ann.remove_track(one)
        ann.add_track(one, MediaStream(id="camera"))  # sent anew, so that it is another track
        again = there.track("video", timeout=20)
        assert again is not track
        assert again.read(timeout=20).shape == (120, 160, 3)
        assert track.stats()["frames_decoded"] <= decoded + 1
        bob.close()
        assert again.ended
        again.close()
