"""Keep one other member of a room: its presence, its state, and its media.

A member outlives its connection to the service: one that leaves and comes back within
``Timings.limbo`` is the same object, whose media may not even have paused. Where they end
meanwhile, it is gone (``Timings.limbo_closed`` later, lest it is just coming back).

Everything here runs on the loop thread, except where it says otherwise.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from aiortc import RTCDataChannel

from metered_sync.bridge.link import EventSink
from metered_sync.engine.rooms.direct_messages import DirectMessages
from metered_sync.engine.rooms.error_throttle import ErrorThrottle
from metered_sync.engine.rooms.media import MemberMedia
from metered_sync.engine.rooms.track_metadata import AnnouncedMetadata
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.engine.webrtc.data_channel import ChannelLink
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.errors import (
    ClosedError,
    MeteredError,
    NegotiationFailedError,
    fresh,
    raise_fresh,
)
from metered_sync.wire.events import Event, IceServer, PresencePeer, StateChange
from metered_sync.wire.media_events import ConnectionReset, IceCandidateError, NegotiationError
from metered_sync.wire.signals import TrackMetadata
from metered_sync.wire.states import MeteredPeerState, PeerConnectionState

__all__ = ["Member", "MemberHost", "RoomSink"]

logger = logging.getLogger("metered_sync")
C = TypeVar("C")
MAX_CHANNELS = 256
"""Data channels of a member's that are open at once; more are closed as they come."""


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
    def track_ended(self, member: Member, track: IncomingTrack) -> None: ...
    def metadata(self, member: Member) -> None: ...
    def channel(self, member: Member, raw: RTCDataChannel) -> None: ...
    def own_track_ended(self, track: LocalTrack) -> None: ...


class MemberHost(Protocol):
    """The room of a member, as far as the member needs it."""

    state: MeteredPeerState
    error: BaseException | None

    def media_of(self, member: Member) -> MemberMedia:
        """Return new media for a member, of which nothing has been negotiated."""

    def ice_servers(self) -> tuple[IceServer, ...]:
        """Return the STUN and TURN servers that the service names at present."""

    def on_lost(self, member: Member) -> None:
        """Take note that the media have ended of a member that presence does not list."""


class Member:
    """One other member of the room; the owner of its media."""

    def __init__(
        self, peer: PresencePeer, host: MemberHost, messages: DirectMessages, sink: RoomSink
    ) -> None:
        self.id = peer.peer_id
        self.metadata = peer.metadata
        self.state: PeerConnectionState = "idle"
        self.present = True
        """Whether it is told of as there."""
        self.listed = True
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
        self._theirs: list[RTCDataChannel] = []
        """The data channels that the member has opened, closed ones among them."""
        self._errors = ErrorThrottle(self._tell)
        self._warned = False
        """Whether it has been told that the member opens too many."""
        self._changed = asyncio.Event()
        """Set, and replaced, with each change that may decide about a channel that is opened."""
        self.objects = sink.objects_for(self)
        """The objects that the face keeps for this member."""
        self.media = host.media_of(self)

    def __repr__(self) -> str:
        return f"<Member {self.id!r}: {self.state}>"

    # --- as the owner of its media ---

    @property
    def signalling_is_up(self) -> bool:
        """Whether signals can leave: our own connection to the service is there."""
        return self._host.state != "reconnecting"

    async def signal(self, data: dict[str, Any]) -> None:
        """Send this member a direct message; return once it is acknowledged."""
        await self._messages.send(self.id, data)

    def post(self, data: dict[str, Any]) -> None:
        """Send this member a direct message and wait for nothing."""
        self._messages.post(self.id, data)

    def ice_servers(self) -> tuple[IceServer, ...]:
        """Return the STUN and TURN servers that the service names at present."""
        return self._host.ice_servers()

    def on_state(self, state: PeerConnectionState) -> None:
        """Take over the state of the media."""
        if state == "connected":
            self.error = None  # the other side has succeeded where we gave up
        if self._host.state == "reconnecting" and state in ("connecting", "connected"):
            return  # they are about to begin anew
        self.set_state(state)
        if state == "reconnecting" and not self.present and self.state != "closed":
            self._host.on_lost(self)

    def on_track(self, track: IncomingTrack, first: bool) -> None:
        """Tell of a track that the member sends, for the first time or again."""
        self.announced.match(self.media.tracks)
        self._sink.track(self, track)

    def on_track_gone(self, track: IncomingTrack) -> None:
        """Tell of a track that the member does not send any more."""
        self.announced.track_gone(track)
        self._sink.track_gone(self, track)

    def on_track_ended(self, track: IncomingTrack) -> None:
        """Tell of a track that has ended."""
        self._sink.track_ended(self, track)

    def on_metadata(self, announced: TrackMetadata) -> None:
        """Note the metadata that the member announces for a track."""
        self.announced.note(announced, self.media.tracks)
        self._sink.metadata(self)

    def on_channel(self, raw: RTCDataChannel) -> None:
        """Tell of a data channel that the member has opened; close it where it is one too many."""
        if len(self._theirs) >= MAX_CHANNELS:
            self._theirs = [one for one in self._theirs if one.readyState != "closed"]
        if len(self._theirs) >= MAX_CHANNELS:
            raw.close()
            if not self._warned:
                self._warned = True
                logger.warning(
                    "the peer %r has more than %d data channels open: the rest is closed",
                    self.id,
                    MAX_CHANNELS,
                )
            return
        self._theirs.append(raw)
        self._sink.channel(self, raw)

    def on_reset(self) -> None:
        """Tell of a connection that was made anew."""
        self._note_change()
        self._tell(ConnectionReset())

    def on_error(self, error: MeteredError) -> None:
        """Tell of a negotiation that failed."""
        self._errors.put(NegotiationError(error))

    def on_candidate_error(self, error: MeteredError) -> None:
        """Tell of a network address of the member that cannot be used."""
        self._errors.put(IceCandidateError(error))

    def on_exhausted(self, error: MeteredError) -> None:
        """Note that no connection will come about from here."""
        self.error = error
        self._note_change()
        self._errors.put(NegotiationError(error))

    def _tell(self, event: Event) -> None:
        self._sink.peer_event(self, event)

    # --- for the room ---

    def set_state(self, state: PeerConnectionState) -> None:
        """Change the state, and tell of it; a member that is closed stays so."""
        if state != self.state and self.state != "closed":
            was, self.state = self.state, state
            self._note_change()
            self._tell(StateChange(was, state))

    def rebuild(self, local_id: str) -> None:
        """Begin the media anew: one of the two was away, or has another id now."""
        self.error = None
        self.media.rebuild(local_id=local_id)
        if self.state == "reconnecting" and self.media.state == "idle":
            self.set_state("idle")

    def end(self, error: BaseException | None) -> None:
        """Be gone for good: tracks end, and events."""
        self._errors.flush()
        self.set_state("closed")
        self.media.end_tracks(error)
        self._sink.peer_ended(self, error)

    async def close_track(self, track: IncomingTrack) -> None:
        """Receive a track no more, for good."""
        track.end()
        self.on_track_gone(track)

    # --- data channels ---

    async def open_channel(
        self,
        label: str,
        options: Mapping[str, Any],
        wrap: Callable[[ChannelLink], C],
        wait: bool,
    ) -> C:
        """Open a data channel, and again where its connection is made anew meanwhile.

        Args:
            label: Its name.
            options: As aiortc's ``createDataChannel`` has them.
            wrap: Makes the object that is returned, before anything can arrive.
            wait: Whether to return once it is open, or at once.
        """
        what = f"data channel {label!r} to {self.id!r}"
        while True:
            self._check_reachable(what)
            generations = self.media.generations
            link = ChannelLink.adopt(await self.media.open_channel(label, options))
            try:
                channel = wrap(link)
                if wait:
                    await self._until_opened(link, generations, what)
            except BaseException:
                link.cut()
                raise
            if not wait or link.state == "open":
                return channel
            link.cut()
            if isinstance(link.error, NegotiationFailedError):
                raise fresh(link.error)
            if self.media.generations == generations:
                raise ClosedError(f"{what}: it was closed before it was open")

    async def _until_opened(self, link: ChannelLink, generations: int, what: str) -> None:
        """Wait until a channel is open, closed, or on a connection that was replaced."""
        decisive = ("open", "close")
        for event in decisive:
            link.raw.on(event, self._note_change)
        try:
            while link.state == "connecting" and self.media.generations == generations:
                self._check_reachable(what)
                await self._changed.wait()
        finally:
            for event in decisive:
                link.raw.remove_listener(event, self._note_change)

    def _note_change(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _check_reachable(self, what: str) -> None:
        raise_fresh(self.error)
        if self.state == "closed":
            raise self.gone(what)

    # --- any thread ---

    def gone(self, what: str) -> BaseException:
        """Return the error of something that is to be done with a member that is not there."""
        if self._host.error is not None:  # it is we who are gone
            return fresh(self._host.error)
        return ClosedError(f"{what}: the peer has left")

    def metadata_of(self, track: IncomingTrack) -> dict[str, Any] | None:
        """Return the metadata of a track that the member sends."""
        return self.announced.of(track, self.media.tracks)
