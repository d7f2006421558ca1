"""A room: join one channel, follow its life, and leave it.

A room stands on one :class:`~metered_sync.engine.messaging.link.SignallingLink`, and takes part
in its life through the events that this emits::

    idle ──join()──▶ joining ──subscribed──▶ joined ◀──list of members── reconnecting
     ▲                  │ failed                │ signalling lost              ▲
     └──────────────────┘                       └──────────────────────────────┘
                   any of them ── close(), the link ended for good ──▶ leaving ──▶ closed

Its parts: the :class:`RoomChannel`, the :class:`Roster` of members, each :class:`Member` with a
media connection, :class:`OurTracks`, and the :class:`DirectMessages` in which signals travel. The
room hands what comes from the service to them, and carries out what the roster finds.

Everything here runs on the loop thread, except where it says otherwise.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Literal

from metered_sync.bridge.link import Link, Scope, within
from metered_sync.bridge.loop import Engine
from metered_sync.engine.messaging.link import SignallingLink
from metered_sync.engine.messaging.options import SignallingOptions
from metered_sync.engine.messaging.request import Request
from metered_sync.engine.rooms.direct_messages import DirectMessages
from metered_sync.engine.rooms.media import MemberMedia, RoomMedia, TrackReceiver
from metered_sync.engine.rooms.member import Member, RoomSink
from metered_sync.engine.rooms.our_tracks import OurTracks
from metered_sync.engine.rooms.room_channel import RoomChannel
from metered_sync.engine.rooms.roster import Roster
from metered_sync.errors import (
    ClosedError,
    MeteredError,
    MeteredPeerStateError,
    ReconcileTimeoutError,
    ServerRequestError,
    SfuAuthError,
)
from metered_sync.wire.events import (
    Connected,
    Direct,
    Disconnected,
    Event,
    IceServer,
    Message,
    Presence,
    PresencePeer,
    ServerError,
    StateChange,
    sized,
)
from metered_sync.wire.media_events import Data, FatalError, Joined, Left, SpeakersChanged
from metered_sync.wire.states import MeteredPeerState
from metered_sync.wire.timings import Timings

__all__ = ["RoomLink"]

logger = logging.getLogger("metered_sync")

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


class RoomLink(Link):
    """One peer's part in one room, over its whole life."""

    def __init__(
        self,
        engine: Engine,
        sink: RoomSink,
        signalling: SignallingOptions,
        media: RoomMedia,
        label: str,
        timings: Timings,
    ) -> None:
        self.label = label
        self.state: MeteredPeerState = "idle"
        self.error: BaseException | None = None
        """Why the room is closed, once it is."""
        self.signalling = SignallingLink(engine, self, signalling, label, timings)
        self.channel = RoomChannel(self.signalling, label, timings)
        self.roster = Roster(self, sink, label, timings, independent=media.independent)
        self.our_tracks = OurTracks(self._receivers, sink.own_track_ended, timings)
        self.media = media
        """The media of the room's members."""
        self._messages = DirectMessages(self.signalling, label, self._on_refused)
        self._engine = engine
        self._sink = sink
        self._scopes: set[Scope] = set()
        """What runs in the background, and ends with the room."""
        self._reason = "closed"
        media.attach(self)

    @property
    def peer_id(self) -> str | None:
        """The id under which the others know us. From any thread."""
        return self.signalling.peer_id

    # --- joining and leaving ---

    async def join(self, channel: str, include_sender_metadata: bool) -> None:
        """Connect if need be, and subscribe to the channel."""
        async with self.opening():
            self.check()
            self._check_idle()
            self._engine.links.add(self)
            self._set_state("joining")
            self.channel.choose(channel, include_sender_metadata)
            try:
                await self.signalling.connect()
                self.roster.expect_list(back=False)
                await self.channel.subscribe(self._on_joined)
            finally:
                if self.error is None and self.state == "joining":
                    self.channel.forget()
                    self.roster.clear(None)
                    self._set_state("idle")
                    if self.signalling.state == "idle":
                        self._engine.links.discard(self)  # nothing is open
            self.check()

    def _check_idle(self) -> None:
        if self.state != "idle":  # (another thread's call may have come first)
            raise MeteredPeerStateError(
                f"join: it is {self.state}; a peer joins one room, once",
                code="invalid_state",
                method="join",
                current_state=self.state,
            )

    def _on_joined(self, request: Request) -> None:
        """Take note of the subscription. (The list of members may be in the same packet.)"""
        if request.error is None and self.state == "joining":
            self._set_state("joined")
            self._sink.emit(Joined(self.peer_id or "", self.channel.name or ""))
            self.media.on_joined()
            self.roster.await_list()

    def progress(self) -> tuple[str, bool]:
        """Say how far joining has come, and whether its request has left; from any thread."""
        return self.channel.progress()

    async def aclose(self) -> None:
        """Leave: end the media connections, then the one to the service."""
        if self.error is None and self.state == "joined":
            await self.media.leave()
        if self.error is None:
            self._end(self.closed(), self._reason)
        try:
            await self.media.aclose()
        finally:
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
        was_in = self.state in ("joined", "reconnecting")
        self._set_state("leaving")
        end = None if isinstance(error, ClosedError) else error
        self.roster.clear(end)
        self.media.close(error)
        if self._engine.error is None:
            for scope in self._scopes:
                scope.cancel()
            self.our_tracks.close()
        if was_in:
            self._sink.emit(Left(self.peer_id or "", self.channel.name or "", reason))
        self._set_state("closed")
        self._sink.end(end)

    def _fail(self, error: MeteredError) -> None:
        """Close for good because of an error; the connection to the service goes, too."""
        if self.error is None:
            self._sink.emit(FatalError(error))
            self._end(error, str(error))
            self._engine.spawn(self, self.signalling.aclose)
            self._engine.spawn(self, self.media.aclose)

    def _set_state(self, state: MeteredPeerState) -> None:
        if self.state not in (state, "closed"):
            was, self.state = self.state, state
            self._sink.emit(StateChange(was, state))

    # --- as the sink of the signalling link's events ---

    def emit(self, event: Event) -> None:
        """Take an event of the signalling link."""
        if isinstance(event, Presence):
            in_room = event.channel == self.channel.name and self.peer_id is not None
            if in_room and self.error is None:
                self.roster.take(event)
        elif isinstance(event, Direct):
            self.take_direct(event)
        elif isinstance(event, Message):
            if event.channel == self.channel.name and event.sender_peer_id != self.peer_id:
                self._take_broadcast(event)
        elif isinstance(event, StateChange):
            pass  # the room has states of its own
        else:
            self._sink.emit(event)
            if isinstance(event, Connected):
                self._on_connected(event)
            elif isinstance(event, Disconnected) and event.will_reconnect:
                self._on_lost()
            elif isinstance(event, ServerError) and event.code in FATAL_CODES:
                self._fail(
                    ServerRequestError(
                        f"{self.label}: the server reports {event.code}: {event.message}",
                        code=event.code,
                    )
                )

    def _take_broadcast(self, event: Message) -> None:
        member = self.roster.members.get(event.sender_peer_id)
        if member is not None:
            if not member.media.take_message(event.data, direct=False):
                self._tell_data(event, "broadcast")
        elif self.media.is_message(event.data):
            self.roster.keep_early(Direct(event.sender_peer_id, event.data))
        else:
            self._tell_data(event, "broadcast")

    def wants(self, event: Event) -> bool:
        """Say yes: messages become the room's own, or events of it."""
        return True

    def end(self, error: BaseException | None = None) -> None:
        """Take note that the signalling link has ended."""
        if self.error is None and error is not None:
            self._sink.emit(FatalError(error))
            self._end(error, str(error))
            if self._engine.error is None:
                self._engine.spawn(self, self.media.aclose)

    def _on_connected(self, event: Connected) -> None:
        self.roster.note_own_id(event.peer_id)
        if event.is_reconnect:
            self._messages.forget_permission()
            if self.state == "reconnecting":
                self.roster.expect_list(back=True)
                self.roster.await_list()

    def _on_lost(self) -> None:
        """Take note that the connection to the service is down; media may go on."""
        if self.state == "joined":
            self._set_state("reconnecting")
            for member in self.roster.members.values():
                if member.state != "idle" and not self.media.independent:
                    member.set_state("reconnecting")
        self.roster.stop_waiting()

    def take_direct(self, event: Direct) -> None:
        """Hand a direct message to the member that has sent it, or to the user."""
        if event.sender_peer_id == self.peer_id:
            return
        member = self.roster.members.get(event.sender_peer_id)
        if member is None:
            self.roster.keep_early(event)
        elif not member.media.take_message(event.data, direct=True):
            self._tell_data(event, "direct")

    def _tell_data(self, event: Direct | Message, kind: Literal["broadcast", "direct"]) -> None:
        data = Data(event.sender_peer_id, event.data, kind, event.sender_metadata)
        self._sink.emit(sized(data, event.frame_size))

    # --- as the owner of the roster ---

    def make_member(self, peer: PresencePeer) -> Member:
        """Return the object for a peer that was not known."""
        return Member(peer, self, self._messages, self._sink)

    def connect(self, member: Member) -> None:
        """Send a new member our tracks."""
        member.media.set_tracks(self.our_tracks.tracks)

    def reconnect(self, member: Member) -> None:
        """Connect to a member anew."""
        member.rebuild(self.peer_id or "")

    def on_arrived(self, member: Member) -> None:
        """Find out whether signals can be sent at all, before somebody waits for them."""
        if self._messages.refused is not None:
            self._on_refused(self._messages.refused)
        elif not self._messages.checked:
            self._engine.spawn(self, self._messages.check_permission)

    def disconnect(self, member: Member) -> None:
        """Close the media connection to a member that is gone for good."""
        if self._engine.error is None:  # else there is no loop any more to close it on
            self._engine.spawn(self, member.media.aclose)

    def on_listed(self) -> None:
        """Be joined again, where the connection to the service was lost."""
        if self.state == "reconnecting":
            self._set_state("joined")
        self.media.on_listed()

    def on_unlisted(self, member: Member) -> None:
        """Tell the media that members share."""
        self.media.on_unlisted(member.id)

    def ask_for_list(self) -> None:
        """Subscribe once more: the list of members follows."""
        self._engine.spawn(self, self._resubscribe)

    async def _resubscribe(self) -> None:
        try:
            await self.channel.subscribe()
        except MeteredError as error:
            self._fail(error)  # the room is not open to us any more

    def on_no_list(self) -> None:
        """End a room whose members are not known any more; say so where they never were."""
        missing = ReconcileTimeoutError(
            f"{self.label}: the server has not listed the members of {self.channel.name!r}; does "
            "the key or token have the presence permission?"
        )
        if self.state == "reconnecting":
            self._fail(missing)
        else:
            self.roster.list_error = missing
            logger.warning("%s", missing)
            self._sink.emit(ServerError("no_member_list", str(missing)))

    # --- as the host of members ---

    def media_of(self, member: Member) -> MemberMedia:
        """Return new media for a member, of which nothing has been negotiated."""
        label = f"{self.label}: peer {member.id!r}"
        local_id = self.peer_id or ""
        return self.media(member, local_id=local_id, remote_id=member.id, label=label)

    def ice_servers(self) -> tuple[IceServer, ...]:
        """Return the STUN and TURN servers that the service names at present."""
        return self.signalling.ice_servers or ()

    def _receivers(self) -> Iterable[TrackReceiver]:
        return self.media.receivers([member.media for member in self.roster.members.values()])

    def on_lost(self, member: Member) -> None:
        """Take note that the media have ended of a member that has left: it is hardly back."""
        self.roster.give_up(member)

    def _on_refused(self, error: ServerRequestError) -> None:
        """Tell callers that wait for a connection to a member that none will ever be made."""
        if self.media.independent:
            self.media.on_send_refused()
            return
        for member in self.roster.members.values():
            if member.error is None:
                member.on_exhausted(error)

    # --- as the host of media that members share ---

    @property
    def send_refused(self) -> MeteredError | None:
        """Why direct messages cannot be sent, where the key or token does not permit it."""
        return self._messages.refused

    async def token(self) -> str:
        """Return the token that this peer is connected with; raise ``SfuAuthError`` for none."""
        token = self.signalling.token()
        if token is None:
            raise SfuAuthError(
                f"{self.label}: the gate takes the room's token, and there is none: connect with "
                "token_provider=, not with an api_key"
            )
        return token

    def is_listed(self, peer_id: str) -> bool:
        """Return whether presence lists this member."""
        member = self.roster.members.get(peer_id)
        return member is not None and member.listed

    def spawn(self, function: Callable[[], Awaitable[None]]) -> None:
        """Run a coroutine function in the background; it ends with the room."""
        if self.error is None:
            self._engine.spawn(self, within(self._scopes, function))

    def forget(self, peer_id: str) -> None:
        """Forget a member that is there under another id."""
        member = self.roster.members.get(peer_id)
        if member is not None:
            self.roster.remove(member, None)

    def on_speakers(self, ids: tuple[str, ...]) -> None:
        """Tell who speaks."""
        self._sink.emit(SpeakersChanged(ids))

    def on_media_refused(self, error: MeteredError) -> None:
        """Tell that the SFU refuses this peer."""
        self._sink.emit(ServerError("sfu_refused", str(error)))

    # --- any thread, by posting ---

    async def settled(self) -> None:
        """Return when what was posted before has been done; raise if it came to nothing."""
        self.check()
