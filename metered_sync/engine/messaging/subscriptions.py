"""The channels that a client is subscribed to: who reads them, and who is in them.

Callers' threads add and remove readers, the loop delivers. ``_lock`` guards the channels;
:meth:`Channels.deliver`, the hot path, only reads what the others replace.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

from metered_sync.bridge.deadline import Signal
from metered_sync.bridge.reader import Reader
from metered_sync.wire.events import Message, Presence
from metered_sync.wire.names import is_pattern, matches

__all__ = ["Channels"]


class _Channel:
    """A channel that somebody here reads."""

    def __init__(self) -> None:
        self.readers: tuple[weakref.ref[Reader[Message]], ...] = ()
        self.forgotten = False
        """Whether a reader was collected without being closed: callbacks may count on it."""
        self.wanted_metadata = False
        self.metadata = False
        """What the server has acknowledged."""
        self.acknowledged = False
        self.snapshot_due = False
        """Whether the next presence frame lists all members, not a change."""
        self.members: dict[str, dict[str, Any] | None] = {}
        self.listed = Signal()
        """The first list of members has come."""

    def alive(self) -> list[Reader[Message]]:
        """Return the readers that somebody still holds."""
        return [reader for ref in self.readers if (reader := ref()) is not None]

    def keep(self, readers: list[Reader[Message]]) -> None:
        """Replace the readers; note those that are gone."""
        self.forgotten |= any(ref() is None for ref in self.readers)
        self.readers = tuple(weakref.ref(reader) for reader in readers)


class Channels:
    """All channels of one client."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channels: dict[str, _Channel] = {}
        self._patterns: tuple[str, ...] = ()
        """Those of the names that are patterns: their messages bear other names."""

    # --- any thread ---

    def add(self, name: str, reader: Reader[Message], metadata: bool) -> bool:
        """Deliver a channel's messages to ``reader``; say whether the server must be asked."""
        with self._lock:
            channel = self._channels.get(name)
            if channel is None:
                channel = self._channels[name] = _Channel()
                self._note_patterns()
            channel.wanted_metadata |= metadata
            channel.keep([*channel.alive(), reader])
            return not channel.acknowledged or channel.wanted_metadata > channel.metadata

    def remove(self, name: str, reader: Reader[Message], unsubscribe: Callable[[], object]) -> None:
        """Stop delivering to a reader; the channel's last one takes the subscription along.

        ``unsubscribe`` queues the request that tells the server, with the lock held: no
        subscription comes in between.
        """
        with self._lock:
            channel = self._channels.get(name)
            if channel is not None and reader in (readers := channel.alive()):
                readers.remove(reader)
                channel.keep(readers)
                if not readers and not channel.forgotten:
                    self._drop(name)
                    unsubscribe()

    def remove_all(self, name: str, unsubscribe: Callable[[], object]) -> None:
        """End a channel's readers and forget it, if there is one."""
        with self._lock:
            if name not in self._channels:
                return
            channel = self._drop(name)
            unsubscribe()
        _end(channel, None)

    def wants_metadata(self, name: str) -> bool:
        """Whether any reader of the channel asked for its senders' metadata."""
        with self._lock:
            return name in self._channels and self._channels[name].wanted_metadata

    def members(self, name: str) -> dict[str, dict[str, Any] | None]:
        """Return who is in a channel, by peer id; ``KeyError`` where it is not subscribed to."""
        with self._lock:
            return dict(self._channels[name].members)

    def listed(self, name: str) -> Signal:
        """Return what is set once the first list of members has come."""
        with self._lock:
            return self._channels[name].listed

    def _drop(self, name: str) -> _Channel:
        """Forget a channel; the lock is held."""
        channel = self._channels.pop(name)
        self._note_patterns()
        return channel

    def _note_patterns(self) -> None:
        self._patterns = tuple(name for name in self._channels if is_pattern(name))

    # --- the loop ---

    def deliver(self, message: Message) -> None:
        """Hand a message to its channel's readers."""
        channel = self._channels.get(message.channel)
        if channel is not None:
            for ref in channel.readers:
                reader = ref()
                if reader is not None:
                    reader.put(message)
        for pattern in self._patterns:
            if pattern != message.channel and matches(pattern, message.channel):
                channel = self._channels.get(pattern)
                for reader in channel.alive() if channel is not None else ():
                    reader.put(message)

    def note_presence(self, presence: Presence, own_id: str | None) -> None:
        """Keep a channel's members current."""
        with self._lock:
            channel = self._channels.get(presence.channel)
            if channel is None or not channel.acknowledged:
                return  # a late one, of an earlier subscription
            members = {} if channel.snapshot_due else dict(channel.members)
            for peer in presence.left if not channel.snapshot_due else ():
                members.pop(peer.peer_id, None)
            for peer in presence.joined:
                if peer.peer_id != own_id:
                    members[peer.peer_id] = peer.metadata
            channel.members, channel.snapshot_due = members, False
        channel.listed.set()

    def acknowledged(self, name: str, metadata: bool, unsubscribe: Callable[[], object]) -> None:
        """Note that the server has acknowledged a subscription: a list of members follows.

        One that nobody wants any more is undone, by ``unsubscribe`` as in :meth:`remove`.
        """
        with self._lock:
            channel = self._channels.get(name)
            if channel is None:
                unsubscribe()
            else:
                channel.acknowledged, channel.metadata = True, metadata
                channel.snapshot_due = True

    def to_repeat(self) -> list[str]:
        """Return the channels that a new connection must be told of."""
        with self._lock:
            return sorted(name for name, c in self._channels.items() if c.acknowledged)

    def lapse(self) -> None:
        """Note that the server has forgotten all subscriptions, and will not be told again."""
        with self._lock:
            for channel in self._channels.values():
                channel.acknowledged = channel.metadata = False

    def refuse(self, name: str, error: BaseException) -> None:
        """End a channel's readers with the error that keeps it from being subscribed to again."""
        with self._lock:
            if name not in self._channels:
                return
            channel = self._drop(name)
        _end(channel, error)

    def close(self, error: BaseException | None) -> None:
        """End all readers."""
        with self._lock:
            channels, self._channels = self._channels, {}
            self._patterns = ()
        for channel in channels.values():
            _end(channel, error)


def _end(channel: _Channel, error: BaseException | None) -> None:
    for reader in channel.alive():
        reader.end(error)
    channel.listed.set()
