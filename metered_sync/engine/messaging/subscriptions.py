"""The channels that a client is subscribed to: their readers, their members, their requests.

All of it is the loop's, so that there is no lock: callers post what they want changed, and only
ask who is in a channel. A change that the server must know of queues its request in the same
breath, so that the requests leave in the order of the changes.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from metered_sync.bridge.deadline import Latch
from metered_sync.bridge.reader import Reader
from metered_sync.engine.messaging.outbox import Outbox
from metered_sync.engine.messaging.request import OutagePolicy, Request
from metered_sync.engine.messaging.roster_limits import RosterLimits
from metered_sync.errors import ClosedError, MeteredError, raise_fresh
from metered_sync.wire import frames
from metered_sync.wire.events import Message, Presence, own_copy
from metered_sync.wire.fields import copied
from metered_sync.wire.names import is_pattern, matches

__all__ = ["Subscriptions"]


class _Subscribed:
    """One channel's readers and members, and what the server has acknowledged of it."""

    def __init__(self, name: str) -> None:
        self.readers: tuple[weakref.ref[Reader[Message]], ...] = ()
        self.forgotten = False
        """Whether a reader was collected without being closed: callbacks may count on it."""
        self.wanted_metadata = False
        """Whether any reader asks for its senders' metadata."""
        self.metadata = False
        """Whether the server has acknowledged a subscription with senders' metadata."""
        self.acknowledged = False
        self.snapshot_due = False
        """Whether the next presence frame lists all members, not a change."""
        self.members: dict[str, dict[str, Any] | None] = {}
        self.limits = RosterLimits(f"channel {name!r}")
        self.listed = Latch()
        """The first list of members has come."""

    def alive(self) -> list[Reader[Message]]:
        """Return the readers that somebody still holds."""
        return [reader for ref in self.readers if (reader := ref()) is not None]

    def keep(self, readers: list[Reader[Message]]) -> None:
        """Replace the readers; note those that are gone."""
        self.forgotten |= any(ref() is None for ref in self.readers)
        self.readers = tuple(weakref.ref(reader) for reader in readers)

    def end(self, error: BaseException | None) -> None:
        """End the readers, and the wait for the list of members."""
        for reader in self.alive():
            reader.end(error)
        self.listed.set()


class Subscriptions:
    """All channels of one client."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._channels: dict[str, _Subscribed] = {}
        self._patterns: tuple[str, ...] = ()
        """Those of the names that are patterns: their messages bear other names."""
        self._error: BaseException | None = None

    # --- any thread ---

    def members(self, name: str) -> dict[str, dict[str, Any] | None]:
        """Return who is in a channel, by peer id; ``KeyError`` where it is not subscribed to."""
        return copied(self._channels[name].members)

    def listed(self, name: str) -> Latch:
        """Return the signal that is set once the first list of a channel's members has come."""
        return self._channels[name].listed

    # --- the loop ---

    def subscribe(
        self,
        name: str,
        reader: Reader[Message],
        metadata: bool,
        *,
        again: bool = False,
        on_end: Callable[[Request], None] | None = None,
        request: Request | None = None,
    ) -> Request | None:
        """Deliver a channel's messages to a reader; return the request for them, if one is due.

        The request is repeated by itself where the connection is lost before its
        acknowledgement. ``again`` makes one in any case: the server lists the members anew.
        ``request`` is taken for it where somebody waits for one already.
        """
        raise_fresh(self._error)
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Subscribed(name)
            self._note_patterns()
        channel.wanted_metadata |= metadata
        readers = channel.alive()
        if all(other is not reader for other in readers):
            channel.keep([*readers, reader])
        if channel.acknowledged and channel.metadata >= channel.wanted_metadata and not again:
            return None
        request = self._ask(name, channel, "repeat", on_end, request)
        self._outbox.put(request)
        return request

    def _ask(
        self,
        name: str,
        channel: _Subscribed,
        outage: OutagePolicy,
        on_end: Callable[[Request], None] | None = None,
        request: Request | None = None,
    ) -> Request:
        """Make a request for a channel."""
        metadata = channel.wanted_metadata

        def acknowledge(request: Request) -> None:
            if request.error is None:
                self._acknowledge(name, metadata)
            if on_end is not None:
                on_end(request)

        request_id = self._outbox.new_id()
        text = frames.build_subscribe(name, request_id, include_sender_metadata=metadata)
        if request is None:
            request = Request("", "", f"subscribe to {name!r}", outage=outage)
        request.write(request_id, text)
        request.on_end = acknowledge
        return request

    def remove(self, name: str, reader: Reader[Message]) -> None:
        """Stop delivering to a reader; the channel's last one takes the subscription along."""
        channel = self._channels.get(name)
        if channel is not None:
            readers = channel.alive()
            others = [other for other in readers if other is not reader]
            if len(others) < len(readers):
                channel.keep(others)
                if not others and not channel.forgotten:
                    self._drop(name)
                    self._unsubscribe(name)

    def remove_all(self, name: str, request: Request | None = None) -> Request | None:
        """End a channel's readers; return the request that tells the server, if it must."""
        if name not in self._channels:
            return None
        channel = self._drop(name)
        request = self._unsubscribe(name, request)
        channel.end(None)
        return request

    def _unsubscribe(self, name: str, request: Request | None = None) -> Request:
        """Tell the server."""
        request_id = self._outbox.new_id()
        text = frames.build_unsubscribe(name, request_id)
        if request is None:
            request = Request("", "", f"unsubscribe from {name!r}")
        request.write(request_id, text)
        try:
            self._outbox.put(request)
        except MeteredError as error:  # closed meanwhile
            request.finish(error)
        return request

    def _drop(self, name: str) -> _Subscribed:
        """Forget a channel."""
        channel = self._channels.pop(name)
        self._note_patterns()
        return channel

    def _note_patterns(self) -> None:
        self._patterns = tuple(name for name in self._channels if is_pattern(name))

    def deliver(self, messages: list[Message], *, shared: bool = False) -> None:
        """Hand a channel's messages to its readers, to each its own; ``shared``: and to others."""
        # (The last one gets the messages themselves: nobody may change them while they are copied.)
        last: Reader[Message] | None = None
        name = messages[0].channel
        channel = self._channels.get(name)
        refs = channel.readers if channel is not None else ()
        if self._patterns:
            refs += self._matching(name)
        for ref in refs:
            reader = ref()
            if reader is not None:
                if last is not None:
                    last.put_all([own_copy(message) for message in messages])
                last = reader
        if last is not None:
            last.put_all([own_copy(message) for message in messages] if shared else messages)

    def _matching(self, name: str) -> tuple[weakref.ref[Reader[Message]], ...]:
        """Return the readers of the patterns that match a channel."""
        found: tuple[weakref.ref[Reader[Message]], ...] = ()
        for pattern in self._patterns:
            channel = self._channels.get(pattern)
            if channel is not None and pattern != name and matches(pattern, name):
                found += channel.readers
        return found

    def note_presence(self, presence: Presence, own_id: str | None) -> None:
        """Keep a channel's members current."""
        channel = self._channels.get(presence.channel)
        if channel is None or not channel.acknowledged:
            return  # a late one, of an earlier subscription
        members = {} if channel.snapshot_due else dict(channel.members)
        if channel.snapshot_due:
            channel.limits.clear()
        for peer in presence.left if not channel.snapshot_due else ():
            members.pop(peer.peer_id, None)
            channel.limits.forget(peer.peer_id)
        for peer in presence.joined:
            admitted = None if peer.peer_id == own_id else channel.limits.admit(peer)
            if admitted is not None:
                members[peer.peer_id] = copied(admitted.metadata)
        channel.members, channel.snapshot_due = members, False
        channel.listed.set()

    def _acknowledge(self, name: str, metadata: bool) -> None:
        """Note that the server has acknowledged a subscription: a list of members follows.

        One that nobody wants any more is undone.
        """
        channel = self._channels.get(name)
        if channel is None:
            self._unsubscribe(name)
        else:
            channel.acknowledged, channel.metadata = True, metadata
            channel.snapshot_due = True

    def acknowledged(self) -> list[str]:
        """Return the channels that the server has acknowledged: a new connection must ask anew."""
        return sorted(name for name, c in self._channels.items() if c.acknowledged)

    def requests(self, names: list[str]) -> dict[str, Request]:
        """Return requests for channels, to be sent on this connection or not at all."""
        return {
            name: self._ask(name, self._channels[name], "fail")
            for name in names
            if name in self._channels
        }

    def lapse(self) -> None:
        """Note that the server has forgotten all subscriptions, and will not be told again."""
        for channel in self._channels.values():
            channel.acknowledged = channel.metadata = False

    def refuse(self, name: str, error: BaseException) -> None:
        """End a channel's readers with the error that keeps it from being subscribed to again."""
        if name not in self._channels:
            return
        channel = self._drop(name)
        channel.end(error)

    def close(self, error: BaseException) -> None:
        """End all readers: quietly where the client is closed, else with what ended it."""
        if self._error is not None:
            return
        self._error = error
        channels, self._channels = self._channels, {}
        self._patterns = ()
        for channel in channels.values():
            channel.end(None if isinstance(error, ClosedError) else error)
