"""Deliver messages and presence to the subscribers of channels and patterns.

All of it happens at once, on one event loop: a request is carried out completely - what
its sender gets, what others get - before the next one is looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from metered_sync.local.connections import SendScheduler, Socket, text_frame
from metered_sync.wire import frames
from metered_sync.wire.events import PresencePeer
from metered_sync.wire.names import is_pattern, matches

__all__ = ["Broker"]


class _Channel:
    """The subscribers of a channel or a pattern."""

    def __init__(self) -> None:
        self.sockets: dict[Socket, bool] = {}
        """All of them, and whether they want their senders' metadata."""
        self.peers: dict[str, list[Socket]] = {}
        """The same by peer: one with several connections is one member."""


class Broker:
    """The connections of one app, and the channels and patterns they have subscribed to."""

    def __init__(self, scheduler: SendScheduler) -> None:
        self._scheduler = scheduler
        self._peers: dict[str, list[Socket]] = {}
        self._channels: dict[str, _Channel] = {}
        self._patterns: dict[str, _Channel] = {}

    # --- connections ---

    def add(self, socket: Socket) -> None:
        """Admit a connection."""
        self._peers.setdefault(socket.peer_id, []).append(socket)

    def remove(self, socket: Socket) -> bool:
        """Forget a connection, and tell the others; return whether it was known."""
        if not _discard(self._peers, socket):
            return False
        for name in socket.channels:
            self._leave(socket, name)
        socket.channels.clear()
        return True

    def sockets(self, peer_id: str | None = None) -> tuple[Socket, ...]:
        """Return the connections of a peer, or all."""
        if peer_id is not None:
            return tuple(self._peers.get(peer_id, ()))
        return tuple(socket for sockets in self._peers.values() for socket in sockets)

    # --- channels ---

    def channels(self) -> Iterable[tuple[str, Collection[str]]]:
        """Return all channels and patterns that are subscribed to, with the peers in each."""
        groups = (self._channels, self._patterns)
        return ((name, channel.peers) for group in groups for name, channel in group.items())

    def _of(self, name: str) -> dict[str, _Channel]:
        return self._patterns if is_pattern(name) else self._channels

    def join(self, socket: Socket, name: str, *, metadata: bool) -> bool:
        """Subscribe a connection, anew perhaps; return whether its peer was not there before."""
        channel = self._of(name).setdefault(name, _Channel())
        arrived = socket.peer_id not in channel.peers
        if socket not in channel.sockets:
            channel.peers.setdefault(socket.peer_id, []).append(socket)
            socket.channels.add(name)
        channel.sockets[socket] = metadata
        return arrived

    def show(self, socket: Socket, name: str) -> None:
        """Send the other peers of a channel to a connection. Patterns have no presence."""
        if is_pattern(name) or not socket.may("presence"):
            return
        others = tuple(
            sockets[0].presence()
            for peer_id, sockets in self._channels[name].peers.items()
            if peer_id != socket.peer_id
        )
        self._scheduler.announce(socket, text_frame(frames.build_presence(name, others)))

    def announce(self, socket: Socket, name: str, *, joined: bool) -> None:
        """Tell the other peers of a channel that a peer came or went."""
        if is_pattern(name):
            return
        who: tuple[PresencePeer, ...] = (socket.presence(),)
        text = frames.build_presence(name, who if joined else (), () if joined else who)
        frame = text_frame(text)
        for other in self._channels[name].sockets:
            if other.peer_id != socket.peer_id and other.may("presence"):
                self._scheduler.announce(other, frame)

    def leave(self, socket: Socket, name: str) -> None:
        """End a subscription, if there is one."""
        if name in socket.channels:
            socket.channels.discard(name)
            self._leave(socket, name)

    def _leave(self, socket: Socket, name: str) -> None:
        group = self._of(name)
        channel = group[name]
        del channel.sockets[socket]
        _discard(channel.peers, socket)
        if socket.peer_id not in channel.peers:
            self.announce(socket, name, joined=False)
        if not channel.sockets:
            del group[name]

    def roster(self, name: str) -> dict[str, dict[str, Any] | None]:
        """Return the peers in a channel, with their metadata."""
        channel = self._channels.get(name)
        peers = {} if channel is None else channel.peers
        return {peer_id: sockets[0].identity.peer_metadata for peer_id, sockets in peers.items()}

    # --- messages ---

    def publish(
        self,
        name: str,
        sender: str,
        data: Any,
        metadata: dict[str, Any] | None,
        origin: Socket | None = None,
    ) -> None:
        """Send a message to all subscribers of a channel but the connection it came from.

        Raises :class:`ValueError` for data that JSON cannot carry; nobody gets it then.
        """
        plain = full = text_frame(frames.build_message(name, sender, data))
        if metadata is not None:
            full = text_frame(frames.build_message(name, sender, data, metadata))
        for other, wants_metadata in self._subscribers(name):
            if other is not origin:
                other.send(full if wants_metadata else plain)

    def _subscribers(self, name: str) -> Iterable[tuple[Socket, bool]]:
        """Return the subscribers of a channel and of patterns that match it, each once."""
        channel = self._channels.get(name)
        if not self._patterns:
            return () if channel is None else channel.sockets.items()
        found = {} if channel is None else dict(channel.sockets)
        for pattern, subscribed in self._patterns.items():
            if matches(pattern, name):
                for socket, wants_metadata in subscribed.sockets.items():
                    found[socket] = wants_metadata or found.get(socket, False)
        return found.items()

    def direct(self, peer_id: str, sender: str, data: Any, metadata: dict[str, Any] | None) -> bool:
        """Send a message to each connection of a peer; return whether there is one."""
        sockets = self._peers.get(peer_id)
        if not sockets:
            return False
        frame = text_frame(frames.build_direct(sender, data, metadata))
        for socket in sockets:
            socket.send(frame)
        return True


def _discard(groups: dict[str, list[Socket]], socket: Socket) -> bool:
    """Take a connection out of its peer's list; return whether it was there."""
    sockets = groups.get(socket.peer_id, [])
    if socket not in sockets:
        return False
    sockets.remove(socket)
    if not sockets:
        del groups[socket.peer_id]
    return True
