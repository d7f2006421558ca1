"""Test that publications end with their sources, and subscriptions with their publications."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from metered_sync import (
    AudioSource,
    ClosedError,
    MeteredPeer,
    MeteredTimeoutError,
    Publication,
    Republished,
    SfuClient,
    TrackEnded,
    VideoSource,
    from_file,
)
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource
from tests.conftest import wait_until
from tests.support.media_files import write


@pytest.fixture
def pair(shared_cloud: LocalCloud) -> Iterator[list[SfuClient]]:
    """A client that publishes, and one that receives."""
    with ExitStack() as stack:
        yield [stack.enter_context(SfuClient(**shared_cloud.sfu_options())) for _ in range(2)]


def test_a_source_that_has_one_track_is_published_as_one(
    pair: list[SfuClient], tmp_path: Path
) -> None:
    sender, _ = pair
    with (
        AudioSource() as voice,
        VideoSource(64, 64) as screen,
        from_file(write(tmp_path / "film.mkv", audio=None)) as film,
    ):
        published: Any = [sender.publish(one) for one in (voice, screen)]
        assert [type(one) for one in published] == [Publication, Publication]
        assert [one.kind for one in published] == ["audio", "video"]
        assert isinstance(sender.publish(film), list)
        assert isinstance(sender.publish([voice]), list)


@pytest.mark.parametrize("recover", [True, False])
def test_a_publication_ends_with_its_source_and_its_subscriptions_with_it(
    shared_cloud: LocalCloud, recover: bool, tmp_path: Path
) -> None:
    options = shared_cloud.sfu_options()
    film = from_file(write(tmp_path / "film.mkv", seconds=2.0, audio=None))
    tone, voice, stays = ToneSource(), AudioSource(), ToneSource(880)
    with (
        SfuClient(**options, recover=recover) as sender,
        SfuClient(**options, recover=recover) as receiver,
    ):
        voice.push(bytes(16000))
        sources: list[Any] = [tone, voice, film.video, stays]
        published = sender.publish(sources)
        tracks = receiver.subscribe(published)
        goes_on = tracks.pop()
        for track in tracks:
            track.frames().get(timeout=20)
        ended: list[object] = []
        for track in tracks:
            threading.Thread(
                target=lambda one: ended.append(list(one.frames())), args=(track,)
            ).start()
        with receiver.events(TrackEnded) as events, tracks[0].events() as own:
            tone.stop()
            voice.end()
            for track in tracks:
                track.wait_ended(timeout=20)
            assert {events.get(timeout=20).track for _ in tracks} == set(tracks)
            assert list(own) == [TrackEnded(tracks[0])]
        wait_until(lambda: len(ended) == len(tracks))
        wait_until(
            lambda: (
                [t.track_id for t in sender.tracks(str(sender.session_id))]
                == [published[-1].track_id]
            )
        )
        assert sender._publications == {published[-1]}
        published[0].close()  # nothing to do any more
        goes_on.frames().get(timeout=20)
        assert not goes_on.ended


def test_a_track_is_closed_and_known_by_its_name(pair: list[SfuClient]) -> None:
    sender, receiver = pair
    with ToneSource() as tone, PatternSource(64, 64) as pattern:
        publication: Any = sender.publish(pattern, name="camera")
        wait_until(lambda: receiver.tracks(publication.session_id))
        track = receiver.subscribe(publication.session_id, publication.track_id)
        assert (track.name, track.kind) == ("camera", "video")
        sound = receiver.subscribe(sender.publish(tone))
        track.read(timeout=20)
        with receiver.events(TrackEnded) as events:
            track.close()
            assert track.ended
            assert events.get(timeout=20) == TrackEnded(track)
            track.close()
            with pytest.raises(MeteredTimeoutError):
                sound.wait_ended(timeout=0.1)
            with pytest.raises(ClosedError, match="the track has ended"):
                track.read(timeout=1)
        sound.frames().get(timeout=20)


def test_a_publisher_that_recovers_is_no_end(cloud: LocalCloud) -> None:
    options = cloud.sfu_options()
    with (
        PatternSource(96, 64, 10) as pattern,
        SfuClient(**options) as sender,
        SfuClient(**options) as receiver,
    ):
        track = receiver.subscribe(sender.publish(pattern, name="only"))
        track.read(timeout=20)
        with receiver.events(TrackEnded) as events, sender.events(Republished) as again:
            cloud.faults.kill_sfu_session(str(sender.session_id))
            again.get(timeout=30)
            track.read(timeout=30)
            while track.restarts == 0:
                track.read(timeout=30)
            assert len(events) == 0
        assert not track.ended


class Callback:
    """A callback that can be forgotten."""

    def __call__(self, event: TrackEnded) -> None:
        assert event.track.ended


def test_nothing_is_kept_of_what_has_ended(pair: list[SfuClient]) -> None:
    sender, receiver = pair

    def run() -> list[weakref.ref[Any]]:
        tone = ToneSource()
        publication: Any = sender.publish(tone)
        track: Any = receiver.subscribe(publication)
        track.frames().get(timeout=20)
        callback = Callback()
        track.on(TrackEnded, callback)
        tone.stop()
        track.wait_ended(timeout=20)
        ended = [tone, publication, track, publication._outgoing, callback]
        return [weakref.ref(one) for one in ended]

    ended = run()

    def gone() -> bool:
        gc.collect()
        return not any(one() for one in ended)

    wait_until(gone, 20)


@pytest.mark.filterwarnings("ignore:MeteredPeer was not closed:ResourceWarning")
def test_a_bridged_track_keeps_its_room_until_it_is_closed(shared_cloud: LocalCloud) -> None:
    with (
        PatternSource(96, 64, 10) as pattern,
        MeteredPeer(**shared_cloud.client_options()) as ann,
        SfuClient(**shared_cloud.sfu_options()) as sfu,
    ):
        ann.add_track(pattern)
        ann.join("bridge/kept")

        def bridge() -> tuple[Publication, Any]:
            bob = MeteredPeer(**shared_cloud.client_options())
            bob.join("bridge/kept")
            track = bob.wait_for_peer(timeout=20).track("video", timeout=20)
            publication: Any = sfu.publish(track)
            return publication, weakref.ref(bob)

        publication, bob = bridge()
        gc.collect()
        sfu.subscribe(publication).read(timeout=20)
        assert bob() is not None
        publication.close()
        del publication

        def gone() -> bool:
            gc.collect()
            return bob() is None

        wait_until(gone)
