"""Keep the roster of a room: who is there, as presence and lists of members say.

**Lists.** The server lists all members after each subscription, and from then on tells of
changes. A list that does not come is asked for again. After an outage of our own every member
on the list is to be reached anew, because to the others we have left and come back, perhaps
under another id.

**Limbo.** A member that leaves while its media flow, or are being connected anew, is kept for a
while (``Timings.limbo``): if it was only its connection to the service that broke, it comes back,
and this connection may break again before the media are there. Where the media end, it is kept
for a moment only (``Timings.limbo_closed``). Where media do not depend on signalling, every
member is kept, and nobody is told before (``Timings.room_limbo``).

**Early messages.** A member's first messages may overtake the presence frame that announces
it. Messages of unknown peers are kept for a moment (``Timings.early``), within bounds, and
handled once the peer is known.

Everything here runs on the loop thread, except where it says otherwise.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from metered_sync.bridge.clock import monotonic
from metered_sync.engine.messaging.roster_limits import RosterLimits
from metered_sync.engine.rooms.member import Member, RoomSink
from metered_sync.errors import MeteredError
from metered_sync.wire.events import Direct, Presence, PresencePeer
from metered_sync.wire.timings import Timings

__all__ = ["MAX_EARLY", "MAX_MEMBERS", "Roster", "RosterOwner"]

logger = logging.getLogger("metered_sync")

MAX_MEMBERS = 256
"""How many members a roster holds; the rest is left out."""
MAX_EARLY = 256
"""How many messages of unknown peers are kept, of all together."""
MAX_EARLY_BYTES = 1 << 20
"""How many bytes their frames may have together."""
OWN_IDS = 16
"""How many of our own former ids are remembered: the server may list them for a while yet."""
MORE_REQUESTS = 2
"""How often a list of members that does not come is asked for again."""


class RosterOwner(Protocol):
    """The room that a roster belongs to."""

    def make_member(self, peer: PresencePeer) -> Member:
        """Return the object for a peer that was not known."""

    def connect(self, member: Member) -> None:
        """Connect to a member that is new."""

    def reconnect(self, member: Member) -> None:
        """Connect anew to a member that was away, or from which we were."""

    def on_arrived(self, member: Member) -> None:
        """Take note that a member has come, or come back, and is being connected to."""

    def disconnect(self, member: Member) -> None:
        """Close the media of a member that is gone for good."""

    def take_direct(self, event: Direct) -> None:
        """Handle a message that came before its sender was known."""

    def on_listed(self) -> None:
        """Take note that the list is here; members that are new on it follow."""

    def on_unlisted(self, member: Member) -> None:
        """Take note that presence does not list a member any more."""

    def ask_for_list(self) -> None:
        """Ask the server once more for the list of members."""

    def on_no_list(self) -> None:
        """Take note that the list will not come."""


class Roster:
    """The members of one room."""

    def __init__(
        self,
        owner: RosterOwner,
        sink: RoomSink,
        label: str,
        timings: Timings,
        *,
        independent: bool = False,
    ) -> None:
        """Prepare; ``independent``: media go on without signalling."""
        self.members: dict[str, Member] = {}
        """The members that are present, and those in limbo."""
        self.list_error: MeteredError | None = None
        """Why members are not seen, where the server lists none; whoever owns this sets it."""
        self._owner = owner
        self._sink = sink
        self._label = label
        self._timings = timings
        self._independent = independent
        self._own_ids: deque[str] = deque(maxlen=OWN_IDS)
        self._early: deque[tuple[float, Direct]] = deque()
        self._warned = False
        """Whether it has been told that there are too many members."""
        self._limits = RosterLimits(label)
        self._list_due = False
        """Whether the next presence frame lists all members."""
        self._back = False
        """Whether we were away before that."""
        self._waiting: asyncio.TimerHandle | None = None
        """When the list is overdue."""

    @property
    def present(self) -> tuple[Member, ...]:
        """The members that are there. From any thread."""
        return tuple(member for member in tuple(self.members.values()) if member.present)

    def note_own_id(self, peer_id: str) -> None:
        """Remember an id as our own: no member is meant by it."""
        if peer_id not in self._own_ids:
            self._own_ids.append(peer_id)

    # --- the list of members ---

    def expect_list(self, *, back: bool) -> None:
        """Take the next presence frame for the list of all members.

        Args:
            back: We were away: to all who are on it, we have left and come back.
        """
        self._list_due, self._back = True, back

    def await_list(self, requests: int = MORE_REQUESTS) -> None:
        """See to it that the list comes; it may be asked for so many times more."""
        self.stop_waiting()
        loop = asyncio.get_running_loop()
        self._waiting = loop.call_later(self._timings.reconcile, self._insist, requests)

    def _insist(self, requests: int) -> None:
        if requests:
            logger.info("%s: no list of members; subscribing again", self._label)
            self._owner.ask_for_list()
            self.await_list(requests - 1)
        else:
            self._owner.on_no_list()

    def stop_waiting(self) -> None:
        """Ask for the list no more."""
        _cancel(self._waiting)
        self._waiting = None

    # --- presence ---

    def take(self, event: Presence) -> None:
        """Take a presence frame of the room's channel."""
        if self._list_due:
            self._list_due = False
            self.stop_waiting()
            self.list_error = None
            self._reconcile(event.joined)
            return
        for peer in event.left:
            member = self.members.get(peer.peer_id)
            if member is not None and member.listed:
                self._leave(member)
        for peer in event.joined:
            self._arrive(peer)

    def _reconcile(self, listed: Sequence[PresencePeer]) -> None:
        """Take over the list of members, after joining and after each reconnect."""
        back, self._back = self._back, False
        present = {peer.peer_id: peer for peer in listed if peer.peer_id not in self._own_ids}
        for member in tuple(self.members.values()):
            if member.listed and member.id not in present:
                self._leave(member)
        self._owner.on_listed()
        for peer in present.values():
            known = self.members.get(peer.peer_id)
            if back and known is not None and known.listed:
                self._update(known, peer)
                self._owner.reconnect(known)
            else:
                self._arrive(peer)

    def _arrive(self, peer: PresencePeer) -> None:
        if peer.peer_id in self._own_ids:
            return
        member = self.members.get(peer.peer_id)
        if member is None:
            if len(self.members) >= MAX_MEMBERS:
                if not self._warned:
                    self._warned = True
                    logger.warning(
                        "%s: more than %d members; the rest is left out", self._label, MAX_MEMBERS
                    )
                return
            admitted = self._limits.admit(peer)
            if admitted is None:
                return
            member = self.members[peer.peer_id] = self._owner.make_member(admitted)
            self._sink.peer_joined(member)
            self._owner.connect(member)
        elif not member.listed:
            _cancel(member.limbo)
            member.limbo = None
            member.listed = True
            self._update(member, peer)
            if not member.present:
                member.present = True
                self._sink.peer_joined(member)
            self._owner.reconnect(member)
        else:
            return
        for event in self._take_early(member.id):
            self._owner.take_direct(event)
        self._owner.on_arrived(member)

    def _update(self, member: Member, peer: PresencePeer) -> None:
        admitted = self._limits.admit(peer)
        member.metadata = None if admitted is None else admitted.metadata

    def _leave(self, member: Member) -> None:
        """Take a member from the list: for good, or until it comes back. Time will tell."""
        member.listed = False
        if self._independent:
            self._keep(member, self._timings.room_limbo)
            self._owner.on_unlisted(member)
            return
        member.present = False
        self._sink.peer_left(member)
        if member.media.state not in ("connected", "reconnecting"):
            self.remove(member, None)
            return
        member.set_state("reconnecting")
        self._keep(member, self._timings.limbo)

    def give_up(self, member: Member) -> None:
        """Forget a member that has left, and whose media have ended, unless it is just back."""
        self._keep(member, self._timings.limbo_closed)

    def _keep(self, member: Member, seconds: float) -> None:
        """Remove a member after so long, unless it comes back."""
        _cancel(member.limbo)
        loop = asyncio.get_running_loop()
        member.limbo = loop.call_later(seconds, self.remove, member, None)

    def remove(self, member: Member, error: BaseException | None) -> None:
        """Forget a member for good."""
        self.members.pop(member.id, None)
        self._limits.forget(member.id)
        _cancel(member.limbo)
        member.limbo = None
        member.listed = False
        if member.present:
            member.present = False
            self._sink.peer_left(member)
        member.end(error)
        self._owner.disconnect(member)

    def clear(self, error: BaseException | None) -> None:
        """Forget all members for good."""
        self.stop_waiting()
        for member in tuple(self.members.values()):
            self.remove(member, error)

    # --- messages of peers that are not known yet ---

    def keep_early(self, event: Direct) -> None:
        """Keep a message until presence announces its sender."""
        self._early.append((monotonic(), event))
        while (
            len(self._early) > MAX_EARLY
            or sum(early.frame_size for _, early in self._early) > MAX_EARLY_BYTES
        ):
            self._early.popleft()
            logger.debug("%s: too many messages of unknown peers", self._label)

    def _take_early(self, peer_id: str) -> list[Direct]:
        """Return what a peer has sent before it was known; drop what is too old."""
        since = monotonic() - self._timings.early
        early, self._early = self._early, deque()
        found = []
        for at, event in early:
            if at < since:
                logger.debug("%s: a message of an unknown peer was dropped", self._label)
            elif event.sender_peer_id == peer_id:
                found.append(event)
            else:
                self._early.append((at, event))
        return found


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # the loop has died, and its timers with it
            return
        timer.cancel()
