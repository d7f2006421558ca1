"""Send one source to a room and as several publications: encoded once, stopped by its user only."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from aiortc.mediastreams import MediaStreamTrack

from metered_sync import MeteredPeer, RemoteTrack, SfuClient, from_file
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource, read_number
from tests.conftest import ROOT, wait_until

CLIP = ROOT / "metered_sync" / "demo" / "bunny.mp4"


@pytest.fixture
def clients(shared_cloud: LocalCloud) -> Iterator[list[SfuClient]]:
    """Two clients that publish, and one that receives."""
    with ExitStack() as stack:
        yield [stack.enter_context(SfuClient(**shared_cloud.sfu_options())) for _ in range(3)]


def sees(track: RemoteTrack, count: int = 3) -> None:
    """Wait for so many new pictures that can be read."""
    seen = set()
    while len(seen) < count:
        seen.add(read_number(track.read(timeout=20)))
        seen.discard(None)


def encoders(publication: Any) -> list[Any]:
    found: list[Any] = publication._outgoing.local.encoders
    return found


def test_a_room_and_two_publications_share_one_encoder(
    shared_cloud: LocalCloud, clients: list[SfuClient]
) -> None:
    one, two, receiver = clients
    with (
        PatternSource(320, 240, 15) as camera,
        MeteredPeer(**shared_cloud.client_options()) as ann,
        MeteredPeer(**shared_cloud.client_options()) as bob,
        MeteredPeer(**shared_cloud.client_options()) as cis,
    ):
        ann.add_track(camera.video)
        for each in (ann, bob, cis):
            each.join("sharing/room")
        first = one.publish(camera.video, name="first")
        second = two.publish(camera.video, name="second")
        ann_id = str(ann.peer_id)
        tracks = [
            *(
                each.wait_for_peer(ann_id, timeout=20).track("video", timeout=20)
                for each in (bob, cis)
            ),
            *receiver.subscribe([first, second]),
        ]
        for track in tracks:
            sees(track)
        # One encoder for all four senders, which has encoded each picture once at most.
        (encoder,) = encoders(first)
        assert encoders(second) == [encoder]
        assert encoder.consumers == 4
        reader = first._outgoing.local._reader
        pictures, frames = encoder.pictures, reader.frames
        wait_until(lambda: encoder.pictures >= pictures + 15, 20)
        assert encoder.pictures - pictures <= reader.frames - frames + 3  # (some shown again)
        sent = [client.stats()["publications"][0]["frames_sent"] for client in (one, two)]
        assert min(sent) > 15
        # Ending one of them leaves the others running.
        first.close()
        wait_until(lambda: encoder.consumers == 3)
        for track in (*tracks[:2], tracks[3]):
            sees(track)
        ann.remove_track(camera.video)
        wait_until(lambda: encoder.consumers == 1)
        sees(tracks[3])
        two.close()
        assert camera.video.readyState == "live"
        again = one.publish(camera.video)
        sees(receiver.subscribe(again))


def test_a_track_is_published_twice_by_one_client(clients: list[SfuClient]) -> None:
    sender, _, receiver = clients
    with PatternSource(320, 240, 15) as camera, ToneSource(frequency=440) as tone:
        first, second = sender.publish([camera.video, camera.video])
        third, sound, sound_again = (
            sender.publish(track) for track in (camera.video, tone.audio, tone.audio)
        )
        ids = {one.track_id for one in (first, second, third, sound, sound_again)}
        assert len(ids) == 5
        for track in receiver.subscribe([first, second, third]):
            sees(track)
        (encoder,) = encoders(first)
        assert encoder.consumers == 3
        for track in receiver.subscribe([sound, sound_again]):
            frames = track.frames()
            for _ in range(5):
                frames.get(timeout=20)


@pytest.mark.parametrize(
    "options",
    [{"codec": "h264"}, {"video_bitrate": 300_000}, {"max_framerate": 5}],
    ids=lambda options: next(iter(options)),
)
def test_another_encoding_has_an_encoder_of_its_own(
    clients: list[SfuClient], options: dict[str, Any]
) -> None:
    one, two, receiver = clients
    with PatternSource(320, 240, 20) as camera:
        plain, special, alike = (
            one.publish(camera.video),
            two.publish(camera.video, **options),
            one.publish(camera.video, **options),
        )
        for track in receiver.subscribe([plain, special, alike]):
            sees(track)
        usual, own = sorted(encoders(plain), key=lambda encoder: encoder.consumers)
        assert (usual.consumers, own.consumers) == (1, 2)
        if "video_bitrate" in options:
            assert own.bitrate == 300_000
        if "codec" in options:
            assert (usual.codec, own.codec) == ("vp8", "h264")
        if "max_framerate" in options:
            before, began = (usual.pictures, own.pictures), time.monotonic()
            wait_until(lambda: usual.pictures >= before[0] + 20, 20)
            assert own.pictures - before[1] <= 5 * (time.monotonic() - began) + 2


# --- ending -----------------------------------------------------------------------------


def tracks_of(clip: Any) -> list[MediaStreamTrack]:
    found: list[MediaStreamTrack] = clip.tracks
    return found


def test_closing_a_publication_leaves_the_source_to_its_user(clients: list[SfuClient]) -> None:
    sender, _, receiver = clients
    with from_file(CLIP) as clip:
        first = sender.publish(clip, name="clip")
        picture = receiver.subscribe(first)[0]
        picture.read(timeout=20)
        for publication in first:
            publication.close()
        assert [track.readyState for track in tracks_of(clip)] == ["live", "live"]
        before = clip.position
        again = sender.publish(clip, name="clip")
        picture, sound = receiver.subscribe(again)
        assert picture.read(timeout=20) is not None
        assert sound.frames().get(timeout=20) is not None
        wait_until(lambda: clip.position > before, 20)


@pytest.mark.parametrize("how", ["close", "with", "forgotten"])
def test_closing_a_client_leaves_the_source_to_its_user(
    shared_cloud: LocalCloud, clients: list[SfuClient], how: str
) -> None:
    _, other, receiver = clients
    with from_file(CLIP) as clip:
        client = SfuClient(**shared_cloud.sfu_options())
        if how == "with":
            with client:
                receiver.subscribe(client.publish(clip))[0].read(timeout=20)
        else:
            client.connect()
            receiver.subscribe(client.publish(clip))[0].read(timeout=20)
        if how == "close":
            client.close()
        if how == "forgotten":
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                del client
                gc.collect()
            assert [w.category for w in caught if w.category is ResourceWarning]
        assert [track.readyState for track in tracks_of(clip)] == ["live", "live"]
        picture = receiver.subscribe(other.publish(clip))[0]
        assert picture.read(timeout=20) is not None


def test_a_lost_session_leaves_the_source_to_its_user(
    cloud: LocalCloud, clients: list[SfuClient]
) -> None:
    _, other, receiver = clients
    with PatternSource(320, 240, 15) as camera:
        client = SfuClient(**cloud.sfu_options(), recover=False)
        client.connect()
        client.publish(camera.video)
        cloud.faults.kill_sfu_session(str(client.session_id))
        wait_until(lambda: client.state == "closed", 20)
        assert camera.video.readyState == "live"
        sees(receiver.subscribe(other.publish(camera.video)))


def test_a_source_that_its_user_stops_ends_in_all_places(clients: list[SfuClient]) -> None:
    one, two, receiver = clients
    camera = PatternSource(320, 240, 15)
    first, second = one.publish(camera.video), two.publish(camera.video)
    tracks = receiver.subscribe([first, second])
    for track in tracks:
        sees(track)
    camera.stop()
    wait_until(lambda: all(local.ended for local in (p._outgoing.local for p in (first, second))))
    first.close()
    second.close()
    wait_until(lambda: all(track.ended for track in tracks), 30)


def test_a_recovery_shares_the_source_again(cloud: LocalCloud) -> None:
    with (
        SfuClient(**cloud.sfu_options()) as one,
        SfuClient(**cloud.sfu_options()) as two,
        SfuClient(**cloud.sfu_options()) as receiver,
        PatternSource(320, 240, 15) as camera,
    ):
        first = one.publish(camera.video, name="first")
        second = two.publish(camera.video, name="second")
        lost, other = receiver.subscribe([first, second])
        sees(lost)
        cloud.faults.kill_sfu_session(str(one.session_id))
        wait_until(lambda: lost.restarts == 1, 20)
        sees(lost)
        sees(other)
        assert other.restarts == 0
        (encoder,) = encoders(second)
        assert encoders(first) == [encoder]
        assert encoder.consumers == 2
