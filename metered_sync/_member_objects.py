"""Keep one object each for a member of a room, its tracks, its streams and its data channels.

Both threads use it: the loop, where events are made, and callers. It belongs to the engine's
side, so it holds weakly what a user may hold.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from metered_sync.bridge.atomic import Atomic, WeakAtomic
from metered_sync.bridge.event_hub import EventHub, EventQueue
from metered_sync.data_channel import DataChannel
from metered_sync.engine.rooms.member import Member
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.media.tracks.stream import MediaStream
from metered_sync.media.tracks.track import RemoteTrack, core_of
from metered_sync.wire.events import Event

__all__ = ["MemberObjects"]

R = TypeVar("R")
MAX_CLOSED = 256
"""Channels that a member has opened and closed whose messages are kept until they are read."""
MAX_CLOSED_BYTES = 64 << 20
"""Bytes of these messages, of one member."""


class MemberObjects:
    """The objects that the face has made of one member.

    Callbacks registered on its remote peer keep that alive, through the hub.
    """

    def __init__(self, member: Member) -> None:
        self.hub = EventHub(f"peer {member.id!r}")
        self.streams_told: set[str] = set()
        """Ids of the streams of which a ``StreamAdded`` has told."""
        self._member = member
        self._remote: WeakAtomic[Any] = WeakAtomic()
        self._streams: Atomic[dict[str, WeakAtomic[MediaStream]]] = Atomic({})
        self._channels: tuple[Callable[[], DataChannel | None], ...] = ()
        """References to the channels; replaced on the loop, not changed."""
        self._closed: list[weakref.ref[DataChannel]] = []
        """Closed channels with unread messages, oldest first; the loop's alone."""
        self._waiting: Atomic[tuple[weakref.ref[EventQueue], ...]] = Atomic(())
        """Queues of calls that wait for a track, which its metadata may make the right one."""

    def remote(self, make: Callable[[], R]) -> R:
        """Return the one remote peer of this member, made if need be."""
        remote: R = self._remote.get(make)
        return remote

    # --- tracks and streams ---

    def track(self, remote: object, incoming: IncomingTrack) -> RemoteTrack:
        """Return the one object for a track."""
        track = self.known_track(remote, incoming)
        core_of(track).metadata = self._member.metadata_of(incoming)
        return track

    def known_track(self, remote: object, incoming: IncomingTrack) -> RemoteTrack:
        """Return the one object for a track, with the metadata that it had."""
        track: RemoteTrack = incoming.handle.get(lambda: RemoteTrack(incoming, remote))
        core_of(track).owner = remote  # (it may have been another member's, by another id)
        return track

    def update_metadata(self) -> None:
        """Pass on what has become known about tracks that somebody holds."""
        for incoming in self._member.media.tracks:
            track: RemoteTrack | None = incoming.handle()
            if track is not None:
                core_of(track).metadata = self._member.metadata_of(incoming)
        for ref in self._waiting.value:
            queue = ref()
            if queue is not None:
                queue.put(Event())  # nobody but the call that waits sees it

    def wake_by_metadata(self, queue: EventQueue) -> None:
        """Put an event into a queue whenever metadata of tracks has become known."""
        new = weakref.ref(queue)
        self._waiting.swap(lambda refs: (*(ref for ref in refs if ref() is not None), new))

    def stream(self, remote: object, stream_id: str) -> MediaStream:
        """Return the one object for a stream, with the tracks it has now."""
        tracks = [
            self.track(remote, incoming)
            for incoming in self._member.media.tracks
            if incoming.stream_id == stream_id
        ]
        new: WeakAtomic[MediaStream] = WeakAtomic()
        self._streams.swap(
            lambda there: {
                **{name: one for name, one in there.items() if one() is not None},
                stream_id: there.get(stream_id, new),
            }
        )
        one = self._streams.value.get(stream_id, new)
        stream: MediaStream = one.get(lambda: MediaStream._received(stream_id))
        for track in stream.tracks:
            if track not in tracks:
                stream.remove_track(track)
        for track in tracks:
            stream.add_track(track)
        return stream

    # --- data channels ---

    def channels(self, *states: str) -> list[DataChannel]:
        """Return the channels in one of these states, oldest first."""
        found = (get() for get in self._channels)
        return [one for one in found if one is not None and one.state in states]

    def note_channel(self, channel: DataChannel, *, theirs: bool) -> DataChannel:
        """Take note of a new channel.

        One that the other side has opened is kept for as long as it is open: its messages
        wait there from now on, whether and whenever somebody takes it.
        """
        kept = []
        for get in self._channels:
            one = get()
            if one is not None and one.state != "closed":
                kept.append(get)
            elif one is not None:
                self._closed.append(weakref.ref(one))
        self._channels = (*kept, (lambda: channel) if theirs else weakref.ref(channel))
        self._bound_closed()
        return channel

    def _bound_closed(self) -> None:
        """Drop the oldest messages of channels that are closed, lest a member fills the memory.

        An event that nobody has read keeps its channel, and what waits in it.
        """
        unread = [one for ref in self._closed if (one := ref()) is not None and len(one)]
        size = sum(one._inbox.waiting for one in unread)
        while len(unread) > MAX_CLOSED or size > MAX_CLOSED_BYTES:
            oldest = unread.pop(0)
            size -= oldest._inbox.waiting
            oldest._inbox.discard()
        self._closed = [weakref.ref(one) for one in unread]
