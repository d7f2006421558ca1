"""One other member of a room: its presence, its state, and the media connection to it.

A member outlives its connection to the service: one that leaves and comes back within
``Timings.limbo`` is the same object, whose media may not even have paused.

Everything here runs on the loop thread, except where it says otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal, Protocol

from aiortc import RTCDataChannel

from metered_sync.bridge.link import EventSink
from metered_sync.engine.rooms.connection import RemoteConnection
from metered_sync.engine.rooms.connection_owner import State
from metered_sync.engine.rooms.direct_messages import DirectMessages
from metered_sync.engine.rooms.our_tracks import SentMetadata
from metered_sync.engine.rooms.track_metadata import AnnouncedMetadata
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.errors import MeteredError
from metered_sync.wire.events import (
    ConnectionReset,
    Event,
    IceServer,
    NegotiationError,
    PresencePeer,
    StateChange,
)
from metered_sync.wire.signals import TrackMetadata, parse_signal

__all__ = ["Member", "MemberHost", "RoomSink", "RoomState"]

RoomState = Literal["idle", "joining", "joined", "reconnecting", "leaving", "closed"]


class RoomSink(EventSink, Protocol):
    """Take what happens in a room to the face; on the loop, without blocking.

    Where a method stands for an event, the event carries an object that the face makes.
    """

    def objects_for(self, member: Member) -> Any:
        """Return the objects that the face keeps for a new member."""

    def peer_joined(self, member: Member) -> None: ...
    def peer_left(self, member: Member) -> None: ...
    def peer_event(self, member: Member, event: Event) -> None: ...
    def peer_ended(self, member: Member, error: BaseException | None) -> None: ...
    def track(self, member: Member, track: IncomingTrack) -> None: ...
    def track_gone(self, member: Member, track: IncomingTrack) -> None: ...
    def metadata(self, member: Member) -> None: ...
    def channel(self, member: Member, raw: RTCDataChannel) -> None: ...


class MemberHost(Protocol):
    """The room of a member, as far as the member needs it."""

    state: RoomState

    def connect_to(self, member: Member) -> RemoteConnection:
        """Return a new media connection, of which nothing has been negotiated."""

    def ice_servers(self) -> tuple[IceServer, ...]:
        """Return the servers for a new connection."""


class Member:
    """One other member of the room; the owner of the media connection to it."""

    def __init__(
        self, peer: PresencePeer, host: MemberHost, messages: DirectMessages, sink: RoomSink
    ) -> None:
        self.id = peer.peer_id
        self.metadata = peer.metadata
        self.state: State = "idle"
        self.present = True
        """Whether presence lists it."""
        self.error: MeteredError | None = None
        """What keeps its media from ever connecting."""
        self.announced = AnnouncedMetadata()
        """The metadata that it has announced for its tracks."""
        self.limbo: asyncio.TimerHandle | None = None
        """When it is forgotten, once presence does not list it any more."""
        self._host = host
        self._messages = messages
        self._sink = sink
        self._sent = SentMetadata()
        self.objects = sink.objects_for(self)
        """The objects that the face keeps for this member."""
        self.media = host.connect_to(self)

    def __repr__(self) -> str:
        return f"<Member {self.id!r}: {self.state}>"

    # --- as the owner of its connection ---

    async def signal(self, data: dict[str, Any]) -> None:
        """Send this member a signal; return once it is acknowledged."""
        await self._messages.send(self.id, data)

    def ice_servers(self) -> tuple[IceServer, ...]:
        """Return the servers for a new connection."""
        return self._host.ice_servers()

    def on_state(self, state: State) -> None:
        """Take over the state of the connection."""
        if state == "connected":
            self.error = None  # the other side has succeeded where we gave up
        if self._host.state == "reconnecting" and state in ("connecting", "connected"):
            return  # it is about to be made anew
        self.set_state(state)

    def on_track(self, track: IncomingTrack, first: bool) -> None:
        """Tell of a track that the member sends, for the first time or again."""
        self.announced.match(self.media.tracks)
        self._sink.track(self, track)

    def on_track_gone(self, track: IncomingTrack) -> None:
        """Tell of a track that the member does not send any more."""
        self.announced.track_gone(track)
        self._sink.track_gone(self, track)

    def on_channel(self, raw: RTCDataChannel) -> None:
        """Tell of a data channel that the member has opened."""
        self._sink.channel(self, raw)

    def on_reset(self) -> None:
        """Tell of a connection that was made anew."""
        self._tell(ConnectionReset())

    def on_error(self, error: MeteredError) -> None:
        """Tell of a negotiation that failed."""
        self._tell(NegotiationError(error))

    def on_exhausted(self, error: MeteredError) -> None:
        """Note that no connection will come about from here."""
        self.error = error
        self._tell(NegotiationError(error))

    def _tell(self, event: Event) -> None:
        self._sink.peer_event(self, event)

    # --- for the room ---

    def set_state(self, state: State) -> None:
        """Change the state, and tell of it; a member that is closed stays so."""
        if state != self.state and self.state != "closed":
            was, self.state = self.state, state
            self._tell(StateChange(was, state))

    def set_tracks(self, tracks: Sequence[LocalTrack]) -> None:
        """Send these tracks, and no others; tell their metadata first."""
        self._tell_metadata(tracks)
        self.media.set_tracks(tracks)

    def replace_track(
        self, old: LocalTrack, new: LocalTrack | None, tracks: Sequence[LocalTrack]
    ) -> None:
        """Send one track in the place of another; ``tracks`` are all of them."""
        self._tell_metadata(tracks)
        self.media.replace_track(old, new)

    def rebuild(self, local_id: str, tracks: Sequence[LocalTrack]) -> None:
        """Make the connection anew: one of the two was away, or has another id now."""
        self._sent.forget()
        self._tell_metadata(tracks)
        self.error = None
        self.media.rebuild(local_id=local_id)
        if self.state == "reconnecting" and self.media.state == "idle":
            self.set_state("idle")

    def _tell_metadata(self, tracks: Sequence[LocalTrack]) -> None:
        for signal in self._sent.update(tracks):
            self._messages.post(self.id, signal)

    def receive(self, data: Any) -> bool:
        """Take a direct message of the member; return whether it was a signal."""
        signal = parse_signal(data)
        if isinstance(signal, TrackMetadata):
            self.announced.note(signal, self.media.tracks)
            self._sink.metadata(self)
        elif signal is not None:
            self.media.receive(signal)
        return signal is not None

    # --- any thread ---

    def metadata_of(self, track: IncomingTrack) -> dict[str, Any] | None:
        """Return the metadata of a track that the member sends."""
        return self.announced.of(track, self.media.tracks)
