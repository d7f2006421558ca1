"""Test rooms whose media do not travel by a connection to each member.

Members announce their tracks in messages, and frames come from somewhere else: what a room and
its remote peers show of that goes through the protocols of ``engine/rooms/media.py`` only.
"""

from __future__ import annotations

from typing import Any

from av import VideoFrame

from metered_sync import Data, MeteredPeer, StreamAdded, StreamRemoved, Track
from metered_sync._room_events import RoomEvents
from metered_sync.bridge.loop import Engine
from metered_sync.engine.rooms.link import RoomLink
from metered_sync.engine.rooms.media import MediaOwner
from metered_sync.engine.rooms.mesh import Mesh
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource
from metered_sync.wire.signals import TrackMetadata
from tests.conftest import wait_until
from tests.support.room_parts import IdleMedia
from tests.support.rooms import FAST


class AnnouncedMedia(IdleMedia):
    """Media whose tracks are those that a member's messages list."""

    def take_message(self, data: Any, *, direct: bool) -> bool:
        if not isinstance(data, dict) or "state" not in data:
            return False
        known = {track.id: track for track in self.tracks}
        listed = {one["id"]: one for one in data["state"]}
        new = [
            IncomingTrack(one["kind"], id=track_id, stream_id=one["stream"])
            for track_id, one in listed.items()
            if track_id not in known
        ]
        gone = [track for track_id, track in known.items() if track_id not in listed]
        self.tracks = tuple(track for track in (*self.tracks, *new) if track not in gone)
        for track_id, one in listed.items():
            self.owner.on_metadata(TrackMetadata(track_id, one["meta"]))
        for track in new:
            self.owner.on_track(track, True)
        for track in gone:
            track.end()
            self.owner.on_track_gone(track)
        self.become("connected")
        return True

    async def stats(self) -> dict[str, Any]:
        return {"state": self.state}


class AnnouncedRoom(Mesh):
    """The media of such a room: its members share nothing."""

    def __init__(self) -> None: ...

    def __call__(self, owner: MediaOwner, **ids: str) -> Any:
        return AnnouncedMedia(owner)


class AnnouncingPeer(MeteredPeer):
    """A peer in such a room."""

    def _make_link(self, engine: Engine) -> RoomLink:
        sink = RoomEvents(self)
        return RoomLink(engine, sink, self._signalling, AnnouncedRoom(), self._label, self._timings)


def state(*ids: str) -> dict[str, Any]:
    """Return a message that lists a member's tracks."""
    return {
        "state": [
            {"id": one, "kind": "video", "stream": "camera", "meta": {"role": one}} for one in ids
        ]
    }


def announcing(cloud: LocalCloud, peer_id: str) -> AnnouncingPeer:
    return AnnouncingPeer(**cloud.token_options(peer_id), ice_servers=[], reconnect=FAST)


def test_tracks_that_are_there_from_their_announcement_on(
    shared_cloud: LocalCloud, room: str
) -> None:
    with announcing(shared_cloud, "ann") as ann, announcing(shared_cloud, "bob") as bob:
        bob.join(room)
        ann.join(room)
        there = bob.wait_for_peer("ann", timeout=20)
        bob_there = ann.wait_for_peer("bob", timeout=20)
        with (
            there.events(Track, StreamAdded, StreamRemoved) as events,
            bob.events(Data) as data,
        ):
            bob_there.send(state("one"))  # directly, then to all
            there.wait_connected(timeout=20)
            track = there.track("video", stream_id="camera", timeout=20)
            assert (track.id, track.metadata, there.pc) == ("one", {"role": "one"}, None)
            ann.send(state("one", "two"))
            wait_until(lambda: len(there.tracks) == 2)
            (stream,) = there.streams
            assert set(stream.tracks) == set(there.tracks)
            assert there.tracks[0] is track

            member: Any = there._member
            engine: Any = bob._engine
            with track.frames() as frames:
                frame = VideoFrame(32, 32, "yuv420p")
                engine.post(member.media.tracks[0]._spread, frame)
                assert frames.get(timeout=20).width == 32
            ann.send(state())
            wait_until(lambda: not there.tracks)
            wait_until(lambda: track.ended)
            ann.send("hello")
            assert data.get(timeout=20).data == "hello"  # and none of the states
            kinds = [type(events.get(timeout=20)) for _ in range(4)]
            assert kinds == [Track, StreamAdded, Track, StreamRemoved]
        assert there.stats() == {"state": "connected"}
        ann.close()
        wait_until(lambda: not bob.remote_peers)


def test_our_tracks_reach_them(shared_cloud: LocalCloud, room: str) -> None:
    with (
        PatternSource(64, 64, fps=5) as source,
        announcing(shared_cloud, "ann") as ann,
        announcing(shared_cloud, "bob") as bob,
    ):
        ann.join(room)
        bob.join(room)
        member: Any = ann.wait_for_peer("bob", timeout=20)._member
        ann.add_track(source.video)
        wait_until(lambda: [one.source for one in member.media.sent] == [source.video])
        ann.remove_track(source.video)
        wait_until(lambda: member.media.sent == [])
