"""How pictures and sound are received: soon, whole, in order, and only if somebody reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from metered_sync import MeteredPeer, RemoteTrack, SfuClient
from metered_sync.engine.webrtc import incoming
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource, read_number
from tests.conftest import wait_until
from tests.support.bad_network import bad_network

Link = Callable[..., list[RemoteTrack]]


@pytest.fixture(params=["room", "SFU"])
def link(request: pytest.FixtureRequest, shared_cloud: LocalCloud) -> Iterator[Link]:
    """Sends tracks, and returns them as they are received."""
    with ExitStack() as stack:

        def through_the_sfu(*tracks: Any, **options: Any) -> list[RemoteTrack]:
            sender, receiver = (
                stack.enter_context(SfuClient(**shared_cloud.sfu_options())) for _ in range(2)
            )
            published = [sender.publish(t, **options if t.kind == "video" else {}) for t in tracks]
            return receiver.subscribe(published)  # type: ignore[arg-type, return-value]

        def in_a_room(*tracks: Any, **options: Any) -> list[RemoteTrack]:
            sender, receiver = (
                stack.enter_context(MeteredPeer(**shared_cloud.client_options(), ice_servers=[]))
                for _ in range(2)
            )
            for track in tracks:
                sender.add_track(track, **options if track.kind == "video" else {})
            room = f"receiving-{time.monotonic_ns()}"
            receiver.join(room)
            sender.join(room)
            remote = receiver.wait_for_peer(timeout=30)
            return [remote.track(track.kind, timeout=30) for track in tracks]

        yield in_a_room if request.param == "room" else through_the_sfu


def test_the_last_picture_arrives_though_no_other_follows(link: Link) -> None:
    with PatternSource(160, 120, 10) as pattern:
        (track,) = link(pattern.video)
        with track.frames(mode="fifo", maxsize=500) as frames:
            last = number_in(frames.get(timeout=30))
            pattern.stop()
            while last < pattern.frames_sent["video"] - 1:
                last = number_in(frames.get(timeout=30))


@pytest.mark.parametrize("codec", ["vp8", "h264"])
def test_no_picture_is_lost_or_reordered_by_a_bad_network(link: Link, codec: str) -> None:
    with bad_network(fraction=0) as network, PatternSource(320, 240, 30) as pattern:
        (track,) = link(pattern.video, codec=codec, video_bitrate=1_000_000)
        with track.frames(mode="fifo", maxsize=5000) as frames:
            pts = [frames.get(timeout=30).pts]
            network.fraction = 0.03
            while len(pts) < 60:
                pts.append(frames.get(timeout=30).pts)
            assert network.faults > 3
            assert frames.dropped == 0
        network.check(pts)


def test_what_nobody_reads_is_not_decoded(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "UNREAD_DECODING", 0.3)
    with PatternSource(160, 120, 15) as pattern, ToneSource(440) as tone:
        tracks = link(pattern.video, tone.audio)
        for track in tracks:
            wait_until(lambda track=track: decoded(track) < track.frames_received, 30)
        for track in tracks:
            before = decoded(track), track.frames_received, track.stats()["bytes_received"]
            wait_until(lambda track=track, n=before[1]: track.frames_received > n + 15, 30)
            assert decoded(track) == before[0]
            assert track.stats()["bytes_received"] > before[2]
        # Somebody reads again: what is new, from a key frame on.
        for _ in range(3):
            sent = pattern.frames_sent["video"]
            number = read_number(tracks[0].read(timeout=30, format="gray"))
            assert number is not None
            assert number >= sent - 10  # (before that were those that nobody read)
        with tracks[1].frames() as frames:
            assert frames.get(timeout=30).samples == 960
        # And whoever reads goes on being served.
        before = decoded(tracks[0]), tracks[0].frames_received, ""
        wait_until(lambda: tracks[0].frames_received > before[1] + 15, 30)
        assert decoded(tracks[0]) - before[0] >= tracks[0].frames_received - before[1] - 2


def decoded(track: RemoteTrack) -> int:
    return int(track.stats()["frames_decoded"])


def number_in(frame: Any) -> int:
    number = read_number(frame.to_ndarray(format="gray"))
    assert number is not None
    return number
