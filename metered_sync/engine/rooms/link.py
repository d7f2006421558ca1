"""A room: one channel's members, and a media connection to each of them.

Who is there is what presence says; signals between two members travel as direct messages.
A room stands on one :class:`~metered_sync.engine.messaging.link.SignallingLink`, and takes part
in its life through the events that this emits::

    idle ──join()──▶ joining ──subscribed──▶ joined ◀──list of members── reconnecting
     ▲                  │ failed                │ signalling lost              ▲
     └──────────────────┘                       └──────────────────────────────┘
                   any of them ── close(), the link ended for good ──▶ leaving ──▶ closed

**Members.** A member that leaves is kept for a while (``Timings.limbo``): if it was only its
signalling that broke, it comes back, and is the same object, whose media may not even have
paused. After our own outage every connection is made anew, because to the others we
have left and come back.

**Early signals.** A member's first signal may overtake the presence frame that announces it.
What an unknown peer sends is kept for a moment (``Timings.early``), within bounds, and handled
once the peer is known.

**Permissions.** A key without Send joins, and then nothing ever connects: that is the most
common trap of the service. So the room asks once whether it may send, as soon as there is
somebody to talk to, and whoever waits is told.

Everything here runs on the loop thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from aiortc import RTCDataChannel

from metered_sync.bridge.loop import Engine, EventSink, Link
from metered_sync.bridge.reader import Reader
from metered_sync.engine.messaging.link import SignallingLink
from metered_sync.engine.messaging.options import SignallingOptions
from metered_sync.engine.messaging.request import Request
from metered_sync.engine.rooms.connection import RemoteConnection
from metered_sync.engine.rooms.connection_owner import State
from metered_sync.engine.rooms.track_metadata import Told
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.engine.webrtc.ice import loopback_address
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.engine.webrtc.peer_connection import gather_on
from metered_sync.errors import (
    ClosedError,
    MeteredError,
    MeteredPeerStateError,
    ReconcileTimeoutError,
    ServerRequestError,
    fresh,
)
from metered_sync.wire import frames, signals
from metered_sync.wire.events import (
    Connected,
    ConnectionReset,
    Data,
    Direct,
    Disconnected,
    Event,
    FatalError,
    IceServer,
    Joined,
    Left,
    Message,
    NegotiationError,
    Presence,
    PresencePeer,
    ServerError,
    StateChange,
)
from metered_sync.wire.timings import Timings

__all__ = ["Member", "RoomLink", "RoomOptions", "RoomSink", "RoomState"]

RoomState = Literal["idle", "joining", "joined", "reconnecting", "leaving", "closed"]
logger = logging.getLogger("metered_sync")

MAX_MEMBERS = 256
RESUBSCRIBE = 2
"""How often a list of members that does not come is asked for again."""
MAX_EARLY = 256
"""Messages of peers not yet known that are kept, of all together."""
FATAL_CODES = frozenset(
    (
        "account_suspended",
        "channel_not_authorized",
        "action_not_permitted",
        "invalid_token",
        "token_expired",
    )
)
"""Codes of server errors, not in answer to a request, after which a room is of no use."""


@dataclass(frozen=True)
class RoomOptions:
    """What a room's media connections are made with."""

    ice_servers: tuple[IceServer, ...] | None = None
    """Instead of those that the server's welcome names."""
    relay_only: bool = False
    gather_timeout: float = 5.0


class RoomSink(EventSink, Protocol):
    """What the face does with what happens; on the loop, without blocking.

    What is not an event yet names something that the face has an object of its own for.
    """

    def peer_joined(self, member: Member) -> None: ...
    def peer_left(self, member: Member) -> None: ...
    def peer_event(self, member: Member, event: Event) -> None: ...
    def peer_ended(self, member: Member, error: BaseException | None) -> None: ...
    def track(self, member: Member, track: IncomingTrack) -> None: ...
    def track_gone(self, member: Member, track: IncomingTrack) -> None: ...
    def metadata(self, member: Member) -> None: ...
    def channel(self, member: Member, raw: RTCDataChannel) -> None: ...


class Member:
    """One other member of the room; what its connection reports comes here first."""

    def __init__(self, room: RoomLink, peer: PresencePeer) -> None:
        self.id = peer.peer_id
        self.metadata = peer.metadata
        self.state: State = "idle"
        self.present = True
        """Whether presence lists it."""
        self.error: MeteredError | None = None
        """What keeps its media from ever connecting."""
        self.told = Told()
        """What it has said about its tracks."""
        self.streams: set[str] = set()
        """Ids of streams that the face has told of."""
        self.handle: Any = None
        """For the face: what it has made of this member."""
        self.limbo: asyncio.TimerHandle | None = None
        self._room = room
        self.connection = room._connect_to(self)

    def __repr__(self) -> str:
        return f"<Member {self.id!r}: {self.state}>"

    # --- the connection's owner ---

    async def signal(self, data: dict[str, Any]) -> None:
        """Send a signal to this member."""
        await self._room._signal(self, data)

    def ice_servers(self) -> tuple[IceServer, ...]:
        return self._room._ice_servers()

    def on_state(self, state: State) -> None:
        if state == "connected":
            self.error = None  # the other side has succeeded where we gave up
        if self._room.state == "reconnecting" and state in ("connecting", "connected"):
            return  # it is about to be made anew
        self.set_state(state)

    def set_state(self, state: State) -> None:
        if state != self.state and self.state != "closed":
            was, self.state = self.state, state
            self._tell(StateChange(was, state))

    def on_track(self, track: IncomingTrack, first: bool) -> None:
        self.told.come(self.connection.tracks)
        self._room._sink.track(self, track)

    def on_track_gone(self, track: IncomingTrack) -> None:
        self.told.gone(track)
        self._room._sink.track_gone(self, track)

    def on_channel(self, raw: RTCDataChannel) -> None:
        self._room._sink.channel(self, raw)

    def on_reset(self) -> None:
        self._tell(ConnectionReset())

    def on_error(self, error: MeteredError) -> None:
        self._tell(NegotiationError(error))

    def on_exhausted(self, error: MeteredError) -> None:
        self.error = error
        self._tell(NegotiationError(error))

    def _tell(self, event: Event) -> None:
        self._room._sink.peer_event(self, event)

    # --- what the room tells ---

    def note_metadata(self, word: signals.TrackMetadata) -> None:
        """Take note of what it says about a track."""
        self.told.note(word, self.connection.tracks)
        self._room._sink.metadata(self)

    def metadata_of(self, track: IncomingTrack) -> dict[str, Any] | None:
        """Return a track's metadata."""
        return self.told.of(track, self.connection.tracks)


@dataclass
class _Early:
    """A message of a peer that is not known yet."""

    event: Direct
    at: float = field(default_factory=time.monotonic)


class RoomLink(Link):
    """One peer's part in one room, over its whole life."""

    def __init__(
        self,
        engine: Engine,
        sink: RoomSink,
        signalling: SignallingOptions,
        options: RoomOptions,
        label: str,
        timings: Timings,
    ) -> None:
        self.label = label
        self.state: RoomState = "idle"
        self.channel: str | None = None
        self.members: dict[str, Member] = {}
        """Those that are present, and those in limbo."""
        self.error: BaseException | None = None
        """Why the room is closed, once it is."""
        self.blind: MeteredError | None = None
        """Why members are not seen, if the server lists none."""
        self.mute: MeteredError | None = None
        """Why signals cannot be sent, if the server refuses them."""
        self.tracks: list[LocalTrack] = []
        self.signalling = SignallingLink(engine, self, signalling, label, timings)
        self._engine = engine
        self._sink = sink
        self._options = options
        self._timings = timings
        self._early: deque[_Early] = deque()
        self._own_ids: deque[str] = deque(maxlen=16)
        """Ours, and those we had before: the server may list them for a while yet."""
        self._include_metadata = False
        # The signalling link keeps subscriptions as long as somebody reads them.
        self._reader: Reader[Message] = Reader("a room's messages", maxsize=1)
        self._asked_to_send = False
        self._list_due = False
        """Whether the next presence frame of the channel lists all members."""
        self._waiting: asyncio.TimerHandle | None = None
        """Until when the list should have come."""
        self._reason = "closed"
        self._gather_on = loopback_address(signalling.url)

    # --- any thread ---

    @property
    def peer_id(self) -> str | None:
        """Who we are to the others."""
        return self.signalling.peer_id

    @property
    def present(self) -> tuple[Member, ...]:
        """The members that are there."""
        return tuple(member for member in tuple(self.members.values()) if member.present)

    # --- joining and leaving ---

    async def join(self, channel: str, include_sender_metadata: bool) -> None:
        """Connect if need be, and subscribe to the channel."""
        async with self.opening():
            if self.error is not None:
                raise fresh(self.error)
            self._check_idle()
            self._engine.links.add(self)
            self._set_state("joining")
            self.channel, self._include_metadata = channel, include_sender_metadata
            try:
                await self.signalling.connect()
                self._list_due = True
                await self._subscribe(channel, self._on_joined)
            finally:
                if self.error is None and self.state == "joining":
                    self._forget_channel()
                    self._set_state("idle")
                    if self.signalling.state == "idle":
                        self._engine.links.discard(self)  # nothing is open
            if self.error is not None:
                raise fresh(self.error)

    def _check_idle(self) -> None:
        if self.state != "idle":  # (another thread's call may have come first)
            raise MeteredPeerStateError(
                f"join: it is {self.state}; a peer joins one room, once",
                code="invalid_state",
                method="join",
                current_state=self.state,
            )

    def _on_joined(self, request: Request) -> None:
        """The channel is subscribed to. (The list of members may be in the same packet.)"""
        if request.error is None and self.state == "joining":
            self._set_state("joined")
            self._sink.emit(Joined(self.peer_id or "", self.channel or ""))
            self._await_list()

    async def _subscribe(
        self, channel: str, on_end: Callable[[Request], None] | None = None
    ) -> None:
        """Subscribe; the list of members follows the acknowledgement."""
        if self._reader.ended:  # a subscription that the server has refused
            self._reader = Reader("a room's messages", maxsize=1)
        request = self.signalling.subscriptions.subscribe(
            channel, self._reader, self._include_metadata, again=True, on_end=on_end
        )
        if request is not None:
            await self.signalling.acknowledgement(request)

    async def _send(self, peer_id: str, data: object, what: str) -> None:
        """Send a direct message of our own, and wait for its acknowledgement."""
        await self.signalling.acknowledgement(self._request(peer_id, data, what))

    def _request(
        self,
        peer_id: str,
        data: object,
        what: str,
        on_end: Callable[[Request], None] | None = None,
    ) -> Request:
        """Queue a direct message of our own."""
        request_id = self.signalling.outbox.new_id()
        text = frames.build_send(peer_id, data, request_id)
        what = f"{self.label}: {what}"
        return self.signalling.request(request_id, text, what, on_end=on_end)

    def _forget_channel(self) -> None:
        if self.channel is not None:
            self.signalling.subscriptions.remove(self.channel, self._reader)
            self.channel = None
        for member in tuple(self.members.values()):
            self._remove(member, None)

    async def aclose(self) -> None:
        """Leave: end the media connections, then the one to the service."""
        if self.error is None:
            self._end(ClosedError(f"{self.label} is closed"), self._reason)
        try:
            await self.signalling.aclose()
        finally:
            self._engine.links.discard(self)

    def leaving(self, reason: str) -> None:
        """Note why the room is about to be left."""
        self._reason = reason

    def abort(self, error: BaseException) -> None:
        """Wake every waiter with an error."""
        self.signalling.abort(error)
        self._end(error, str(error))

    def _end(self, error: BaseException, reason: str) -> None:
        """Close for good: every member leaves, readers and later calls get ``error``."""
        if self.error is not None:
            return
        self.error = error
        self._stop_waiting()
        was_in = self.state in ("joined", "reconnecting")
        self._set_state("leaving")
        end = None if isinstance(error, ClosedError) else error
        for member in tuple(self.members.values()):
            self._remove(member, end)
        if self._engine.error is None:
            for track in self.tracks:
                track.close()
        if was_in:
            self._sink.emit(Left(self.peer_id or "", self.channel or "", reason))
        self._set_state("closed")
        self._sink.end(end)

    def _set_state(self, state: RoomState) -> None:
        if self.state not in (state, "closed"):
            was, self.state = self.state, state
            self._sink.emit(StateChange(was, state))

    # --- what the signalling link emits (it takes this for its events' sink) ---

    def emit(self, event: Event) -> None:
        """Take an event of the signalling link."""
        if isinstance(event, Presence):
            if event.channel == self.channel and self.peer_id is not None:
                self._presence(event)
        elif isinstance(event, Direct):
            self._direct(event)
        elif isinstance(event, Message):
            if event.channel == self.channel and event.sender_peer_id != self.peer_id:
                self._data(event, "broadcast")
        elif isinstance(event, StateChange):
            pass  # the room has states of its own
        else:
            self._sink.emit(event)
            if isinstance(event, Connected) and event.peer_id not in self._own_ids:
                self._own_ids.append(event.peer_id)
            if isinstance(event, Disconnected) and event.will_reconnect:
                self._lost()
            elif isinstance(event, Connected) and event.is_reconnect:
                self._asked_to_send, self.mute = False, None  # a new token may say otherwise
                if self.state == "reconnecting":
                    self._list_due = True
                    self._await_list()
            elif isinstance(event, ServerError) and event.code in FATAL_CODES:
                self._fatal(
                    ServerRequestError(
                        f"{self.label}: the server reports {event.code}: {event.message}",
                        code=event.code,
                    )
                )

    def end(self, error: BaseException | None = None) -> None:
        """The signalling link has ended."""
        if self.error is None and error is not None:
            self._sink.emit(FatalError(error))
            self._end(error, str(error))

    def _fatal(self, error: MeteredError) -> None:
        if self.error is None:
            self._sink.emit(FatalError(error))
            self._end(error, str(error))
            self._engine.spawn(self, self.signalling.aclose)

    def _lost(self) -> None:
        """The connection to the service is down; media may go on."""
        if self.state == "joined":
            self._set_state("reconnecting")
            for member in self.members.values():
                if member.state != "idle":
                    member.set_state("reconnecting")
        self._stop_waiting()

    # --- the list of members ---

    def _await_list(self, more: int = RESUBSCRIBE) -> None:
        """See to it that the list of members comes; or say that it does not.

        It may be asked for so many times more.
        """
        self._stop_waiting()
        loop = asyncio.get_running_loop()
        self._waiting = loop.call_later(self._timings.reconcile, self._insist, more)

    def _insist(self, more: int) -> None:
        if more:
            logger.info("%s: no list of members; subscribing again", self.label)
            self._engine.spawn(self, self._resubscribe)
            self._await_list(more - 1)
            return
        missing = ReconcileTimeoutError(
            f"{self.label}: the server has not listed the members of {self.channel!r}; does the "
            "key or token have the presence permission?"
        )
        if self.state == "reconnecting":
            self._fatal(missing)
        else:
            self.blind = missing
            logger.warning("%s", missing)
            self._sink.emit(ServerError("no_member_list", str(missing)))

    async def _resubscribe(self) -> None:
        try:
            await self._subscribe(self.channel or "")
        except MeteredError as error:
            self._fatal(error)  # the room is not open to us any more

    def _stop_waiting(self) -> None:
        if self._waiting is not None and self._engine.error is None:
            self._waiting.cancel()
        self._waiting = None

    def _presence(self, event: Presence) -> None:
        if self._list_due:
            self._list_due = False
            self._stop_waiting()
            self.blind = None
            self._reconcile(event.joined)
            return
        for peer in event.left:
            member = self.members.get(peer.peer_id)
            if member is not None and member.present:
                self._absent(member)
        for peer in event.joined:
            self._arrived(peer)

    def _reconcile(self, listed: Sequence[PresencePeer]) -> None:
        """Take over the list of members, after joining and after each reconnect."""
        back = self.state == "reconnecting"
        present = {peer.peer_id: peer for peer in listed if not self._is_own(peer)}
        for member in tuple(self.members.values()):
            if member.present and member.id not in present:
                self._absent(member)
        if back:
            self._set_state("joined")
        for peer in present.values():
            known = self.members.get(peer.peer_id)
            if back and known is not None and known.present:
                # To the others we have left and come back, perhaps as somebody else.
                known.metadata = peer.metadata
                self._rebuild(known)
            else:
                self._arrived(peer)

    def _is_own(self, peer: PresencePeer) -> bool:
        return peer.peer_id in self._own_ids

    def _arrived(self, peer: PresencePeer) -> None:
        if self._is_own(peer) or self.error is not None:
            return
        member = self.members.get(peer.peer_id)
        if member is not None and member.present:
            return
        if member is not None:  # its signalling was gone
            if member.limbo is not None:
                member.limbo.cancel()
                member.limbo = None
            member.present, member.metadata = True, peer.metadata
            self._sink.peer_joined(member)
            self._rebuild(member)
        else:
            if len(self.members) >= MAX_MEMBERS:
                logger.warning(
                    "%s: more than %d members; %r is left out",
                    self.label,
                    MAX_MEMBERS,
                    peer.peer_id,
                )
                return
            member = self.members[peer.peer_id] = Member(self, peer)
            self._sink.peer_joined(member)
            self._introduce(member)
        self._take_early(member)
        self._tell_of_mute(member)
        self._ask_whether_we_may_send()

    def _introduce(self, member: Member) -> None:
        """Tell a member of our tracks' metadata, then offer the tracks."""
        self._send_metadata(member, self.tracks)
        member.connection.set_tracks(self.tracks)

    def _rebuild(self, member: Member) -> None:
        self._send_metadata(member, self.tracks)
        member.error = None
        member.connection.rebuild(local_id=self.peer_id or "")
        if member.state == "reconnecting" and member.connection.state == "idle":
            member.set_state("idle")

    def _absent(self, member: Member) -> None:
        """A member is gone: for good, or only its signalling. Time will tell."""
        member.present = False
        self._sink.peer_left(member)
        if member.connection.state != "connected":
            self._remove(member, None)
            return
        member.set_state("reconnecting")
        loop = asyncio.get_running_loop()
        member.limbo = loop.call_later(self._timings.limbo, self._remove, member, None)

    def _remove(self, member: Member, error: BaseException | None) -> None:
        """Forget a member for good."""
        self.members.pop(member.id, None)
        if member.limbo is not None and self._engine.error is None:
            member.limbo.cancel()
            member.limbo = None
        if member.present:
            member.present = False
            self._sink.peer_left(member)
        member.set_state("closed")
        self._sink.peer_ended(member, error)
        if self._engine.error is None:
            self._engine.spawn(self, member.connection.aclose)
        else:  # there is no loop any more to close it on
            for track in member.connection.tracks:
                track.end(error)

    # --- messages from members ---

    def _direct(self, event: Direct) -> None:
        if event.sender_peer_id == self.peer_id:
            return
        member = self.members.get(event.sender_peer_id)
        if member is None:
            self._keep_early(event)
            return
        signal = signals.parse_signal(event.data)
        if signal is None:
            self._data(event, "direct")
        elif isinstance(signal, signals.TrackMetadata):
            member.note_metadata(signal)
        else:
            member.connection.receive(signal)

    def _data(self, event: Direct | Message, kind: str) -> None:
        self._sink.emit(Data(event.sender_peer_id, event.data, kind, event.sender_metadata))

    def _keep_early(self, event: Direct) -> None:
        """Keep what a peer sends before presence has announced it."""
        if len(self._early) >= MAX_EARLY:
            self._early.popleft()
            logger.debug("%s: too many messages of unknown peers", self.label)
        self._early.append(_Early(event))

    def _take_early(self, member: Member) -> None:
        """Handle what a new member has sent before it was known."""
        since = time.monotonic() - self._timings.early
        early, self._early = self._early, deque()
        for one in early:
            if one.at < since:
                logger.debug("%s: a message of an unknown peer was dropped", self.label)
            elif one.event.sender_peer_id == member.id:
                self._direct(one.event)
            else:
                self._early.append(one)

    # --- messages to members ---

    async def _signal(self, member: Member, data: dict[str, Any]) -> None:
        try:
            await self._send(member.id, data, f"signal to {member.id!r}")
        except ServerRequestError as error:
            self._note_refusal(error)
            raise

    def _note_refusal(self, error: ServerRequestError) -> None:
        """Tell whoever waits that nothing will ever connect."""
        if error.code == "action_not_permitted":
            refused = ServerRequestError(
                f"{self.label}: no media connection can be made, because the key or token lacks "
                "the Send permission, which signals between peers need; publishable keys lack it "
                "unless it is switched on in the dashboard",
                code=error.code,
            )
            self.mute = refused
            for member in self.members.values():
                self._tell_of_mute(member)

    def _tell_of_mute(self, member: Member) -> None:
        if self.mute is not None and member.error is None:
            member.on_exhausted(self.mute)

    def _ask_whether_we_may_send(self) -> None:
        """Find out once whether signals can be sent at all, before somebody waits for them."""
        if self._asked_to_send:
            return
        self._asked_to_send = True

        async def ask() -> None:
            try:
                await self._send(self.peer_id or "", None, "ask whether it may send")
            except ServerRequestError as error:
                self._note_refusal(error)  # (any other code means that it may)
            except MeteredError:
                self._asked_to_send = False

        self._engine.spawn(self, ask)

    def _send_metadata(self, member: Member, tracks: Sequence[LocalTrack]) -> None:
        """Tell a member of tracks' metadata. It is on its way before any later signal."""
        for track in tracks:
            if track.metadata is not None:
                self._tell(member, metadata_signal(track))

    def _clear_metadata(self, member: Member, tracks: Sequence[LocalTrack]) -> None:
        """Take it back, under all ids that no track goes by any more."""
        used = {track_id for track in self.tracks for track_id in track.ids}
        for track in tracks:
            for track_id in track.ids if track.metadata is not None else ():
                if track_id not in used:
                    self._tell(member, signals.build_signal(signals.TrackMetadata(track_id)))

    def _tell(self, member: Member, data: dict[str, Any]) -> None:
        def on_end(request: Request) -> None:
            if isinstance(request.error, ServerRequestError):
                self._note_refusal(request.error)
            elif request.error is not None:
                logger.debug("%s: %s", self.label, request.error)

        try:
            self._request(member.id, data, f"metadata for {member.id!r}", on_end)
        except MeteredError as error:
            logger.debug("%s: %s", self.label, error)

    # --- our tracks ---

    # These run to their end, in the order in which they are posted.

    def add_tracks(self, tracks: Sequence[LocalTrack]) -> None:
        """Send tracks to every member, those who come later included."""
        if self.error is not None:
            return
        self.tracks.extend(tracks)
        for member in self.members.values():
            self._send_metadata(member, tracks)
            member.connection.set_tracks(self.tracks)

    def remove_tracks(self, tracks: Sequence[LocalTrack]) -> None:
        """Stop sending tracks."""
        if self.error is not None:
            return
        self.tracks = [track for track in self.tracks if track not in tracks]
        for member in self.members.values():
            self._clear_metadata(member, tracks)
            member.connection.set_tracks(self.tracks)
        for track in tracks:
            track.close()

    def replace_track(self, old: LocalTrack, new: LocalTrack | None) -> None:
        """Send another track in the place of one, without negotiating anew."""
        if self.error is not None:
            return
        index = self.tracks.index(old)
        self.tracks[index : index + 1] = [] if new is None else [new]
        for member in self.members.values():
            self._clear_metadata(member, [old])
            self._send_metadata(member, [] if new is None else [new])
            member.connection.replace_track(old, new)
        old.close()

    async def settled(self) -> None:
        """Return when what was posted before has been done; raise if it came to nothing."""
        if self.error is not None:
            raise fresh(self.error)

    # --- what connections need ---

    def _connect_to(self, member: Member) -> RemoteConnection:
        context = gather_on.set(self._gather_on)
        try:
            return RemoteConnection(
                member,
                local_id=self.peer_id or "",
                remote_id=member.id,
                label=f"{self.label}: peer {member.id!r}",
                timings=self._timings,
                gather_timeout=self._options.gather_timeout,
                relay_only=self._options.relay_only,
            )
        finally:
            gather_on.reset(context)

    def _ice_servers(self) -> tuple[IceServer, ...]:
        if self._options.ice_servers is not None:
            return self._options.ice_servers
        return self.signalling.ice_servers or ()


def metadata_signal(track: LocalTrack) -> dict[str, Any]:
    """Return what tells a peer of a track's metadata."""
    metadata = dict(track.metadata or {})
    return signals.build_signal(
        signals.TrackMetadata(track.id, metadata, track.stream_id, track.kind)
    )
