"""Turn what happens in a room into events, on the loop and without blocking.

It belongs to the engine's side, so it holds the user's peer weakly: a peer that nobody holds
any more is closed, and its room goes on without events until then.
"""

from __future__ import annotations

import weakref

from aiortc import RTCDataChannel

from metered_sync._member_objects import MemberObjects
from metered_sync.data_channel import DataChannel
from metered_sync.engine.rooms.member import Member
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.events import (
    DataChannelOpened,
    Event,
    PeerJoined,
    PeerLeft,
    StreamAdded,
    StreamRemoved,
    Track,
    TrackEnded,
)
from metered_sync.media.tracks.stream import MediaStream
from metered_sync.media.tracks.track import RemoteTrack
from metered_sync.remote_peer import LocalPeer, RemotePeer

__all__ = ["RoomEvents", "remote_peer"]


def remote_peer(peer: LocalPeer, member: Member) -> RemotePeer:
    """Return the one object for a member."""
    objects: MemberObjects = member.objects
    return objects.remote(lambda: RemotePeer(peer, member, objects))


class RoomEvents:
    """The sink of a room: it emits events on the peer and on its remote peers."""

    def __init__(self, peer: LocalPeer) -> None:
        self._peer = weakref.ref(peer)
        self.emit, self.end = peer._hub.emit, peer._hub.end

    def _of(self, member: Member) -> MemberObjects:
        objects: MemberObjects = member.objects
        return objects

    def _remote(self, member: Member) -> RemotePeer | None:
        peer = self._peer()
        return None if peer is None else remote_peer(peer, member)

    def objects_for(self, member: Member) -> MemberObjects:
        return MemberObjects(member)

    def peer_joined(self, member: Member) -> None:
        remote = self._remote(member)
        if remote is not None:
            self.emit(PeerJoined(remote))

    def peer_left(self, member: Member) -> None:
        remote = self._remote(member)
        if remote is not None:
            self.emit(PeerLeft(remote))

    def peer_event(self, member: Member, event: Event) -> None:
        self._of(member).hub.emit(event)

    def peer_ended(self, member: Member, error: BaseException | None) -> None:
        self._of(member).hub.end(error)

    def track(self, member: Member, track: IncomingTrack) -> None:
        objects, remote = self._of(member), self._remote(member)
        if remote is None:
            return
        shown = objects.track(remote, track)
        streams: tuple[MediaStream, ...] = ()
        new = False
        if track.stream_id is not None:
            new = track.stream_id not in objects.streams_told
            objects.streams_told.add(track.stream_id)
            streams = (objects.stream(remote, track.stream_id),)
        objects.hub.emit(Track(shown, streams, shown.metadata))
        self._decide(shown)
        if new:
            objects.hub.emit(StreamAdded(streams[0], shown.metadata))

    def _decide(self, track: RemoteTrack) -> None:
        """Have the user's function say whether a track is received that nobody reads."""
        peer = self._peer()
        if peer is not None and peer._decide is not None:
            peer._decide(track)

    def track_gone(self, member: Member, track: IncomingTrack) -> None:
        objects, remote = self._of(member), self._remote(member)
        if remote is None or track.stream_id is None:
            return
        left = {other.stream_id for other in member.media.tracks}
        if track.stream_id in objects.streams_told - left:
            objects.streams_told.discard(track.stream_id)
            objects.hub.emit(StreamRemoved(objects.stream(remote, track.stream_id)))

    def track_ended(self, member: Member, track: IncomingTrack) -> None:
        objects, remote = self._of(member), self._remote(member)
        if remote is not None:
            ended = TrackEnded(objects.known_track(remote, track))
            track.hub.emit(ended)
            objects.hub.emit(ended)

    def own_track_ended(self, track: LocalTrack) -> None:
        peer = self._peer()
        if peer is not None:
            peer._sent.forget(track)

    def metadata(self, member: Member) -> None:
        self._of(member).update_metadata()

    def channel(self, member: Member, raw: RTCDataChannel) -> None:
        objects = self._of(member)
        objects.hub.emit(DataChannelOpened(objects.note_channel(DataChannel(raw), theirs=True)))
