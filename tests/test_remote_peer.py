"""Test the face of another member over media that the tests make up: which track is returned."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from metered_sync._member_objects import MemberObjects
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.errors import MeteredTimeoutError
from metered_sync.events import PresencePeer
from metered_sync.media.tracks.track import RemoteTrack
from metered_sync.remote_peer import RemotePeer
from metered_sync.wire.signals import TrackMetadata
from tests.support.room_parts import Journal


class Room:
    """A room with one other member, which sends what a test says."""

    def __init__(self) -> None:
        journal: Any = Journal()
        self.member = journal.make_member(PresencePeer("ann"))
        self.objects = MemberObjects(self.member)
        self.remote = RemotePeer(journal, self.member, self.objects)

    def send(self, kind: str, id: str, stream_id: str | None = None) -> None:
        track = IncomingTrack(kind, id=id, stream_id=stream_id)
        self.member.media.tracks = (*self.member.media.tracks, track)

    def announce(self, id: str, metadata: dict[str, Any] | None) -> None:
        self.member.announced.note(TrackMetadata(id, metadata), self.member.media.tracks)
        self.objects.update_metadata()


@pytest.fixture
def room() -> Room:
    """A member that sends sound and two kinds of pictures, with metadata."""
    room = Room()
    for kind, id, metadata in (
        ("audio", "voice", None),
        ("video", "camera", {"role": "camera", "n": 1}),
        ("video", "screen", {"role": "screen", "n": 1, "note": None}),
    ):
        room.send(kind, id, stream_id=id)
        room.announce(id, metadata)
    return room


@pytest.mark.parametrize(
    ("wanted", "id"),
    [
        ({}, "voice"),
        ({"kind": "video"}, "camera"),
        ({"stream_id": "screen"}, "screen"),
        ({"metadata": {"role": "screen"}}, "screen"),
        ({"metadata": {"role": "screen", "n": 1}}, "screen"),
        ({"metadata": {"n": 1}}, "camera"),
        ({"metadata": {"note": None}}, "screen"),
        ({"metadata": {}}, "voice"),
        ({"where": lambda track: track.id > "d"}, "voice"),
        ({"kind": "video", "where": lambda track: track.id > "d"}, "screen"),
        (
            {"metadata": {"n": 1}, "where": lambda track: track.metadata["role"] != "camera"},
            "screen",
        ),
    ],
)
def test_the_first_track_that_fits(room: Room, wanted: dict[str, Any], id: str) -> None:
    assert room.remote.track(**wanted, timeout=0).id == id


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({"metadata": {"role": "slides"}}, "any track metadata={'role': 'slides'} of 'ann': none"),
        ({"metadata": {"role": "camera", "n": 2}}, "any track metadata="),
        ({"metadata": {"other": None}}, "any track metadata="),
        ({"kind": "audio", "metadata": {"n": 1}}, "audio track metadata={'n': 1} of 'ann': none"),
        ({"where": lambda track: None}, "any track where=<function "),
    ],
)
def test_none_that_fits(room: Room, wanted: dict[str, Any], text: str) -> None:
    """The error names the track that was wanted, and the tracks that are sent."""
    with pytest.raises(MeteredTimeoutError) as raised:
        room.remote.track(**wanted, timeout=0)
    assert str(raised.value).startswith(text)
    assert "sends audio in stream 'voice', video in stream 'camera'" in str(raised.value)


def test_what_cannot_be_asked_for(room: Room) -> None:
    with pytest.raises(TypeError, match="metadata must be a mapping, not str"):
        room.remote.track(metadata="camera", timeout=0)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="where must be callable, not str"):
        room.remote.track(where="camera", timeout=0)  # type: ignore[call-overload]
    with pytest.raises(ZeroDivisionError):
        room.remote.track(where=lambda track: 1 / 0, timeout=0)


def test_metadata_that_comes_later_ends_the_wait(room: Room) -> None:
    asked = threading.Event()

    def muted(track: RemoteTrack) -> bool:
        asked.set()
        return bool(track.metadata and track.metadata.get("muted"))

    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(room.remote.track, where=muted, timeout=10)
        assert asked.wait(20)
        room.announce("camera", {"role": "camera", "muted": True})
        assert waiting.result(10).id == "camera"
