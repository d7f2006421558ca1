"""Another member of a room, and how what it does reaches the user."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from aiortc import RTCDataChannel, RTCPeerConnection

from metered_sync.bridge import guard
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.dispatch import EventHub, Observable
from metered_sync.data_channel import DataChannel
from metered_sync.engine.rooms.connection_owner import State
from metered_sync.engine.rooms.link import Member
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.errors import ClosedError, MeteredTimeoutError, fresh
from metered_sync.events import (
    DataChannelOpened,
    Event,
    NegotiationError,
    PeerJoined,
    PeerLeft,
    StateChange,
    StreamAdded,
    StreamRemoved,
    Track,
)
from metered_sync.media.tracks.stream import MediaStream
from metered_sync.media.tracks.track import RemoteTrack
from metered_sync.options import DuringOutage
from metered_sync.wire.data_channels import channel_options, check_label

if TYPE_CHECKING:
    from metered_sync.peer import MeteredPeer

__all__ = ["RemotePeer", "Sink"]

T = TypeVar("T")


class RemotePeer(Observable):
    """Another member of the room.

    The object stays the same across reconnects, on either side, and so do its tracks and
    their readers.
    """

    def __init__(self, peer: MeteredPeer, member: Member, handle: _Handle) -> None:
        self._peer = peer  # must not be collected while somebody uses this
        self._member = member
        self._handle = handle
        self._hub = handle.hub
        self._born = guard.generation()

    def __repr__(self) -> str:
        tracks = len(self._member.connection.tracks)
        return f"<RemotePeer {self.id!r}: {self.state}, {tracks} tracks>"

    # --- what is known ---

    @property
    def id(self) -> str:
        """Its peer id."""
        return self._member.id

    @property
    def metadata(self) -> dict[str, Any] | None:
        """The ``peerMetadata`` of its token, where it has one."""
        return self._member.metadata

    @property
    def state(self) -> State:
        """``"idle"`` (nothing to connect for), ``"connecting"``, ``"connected"``,
        ``"reconnecting"`` or ``"closed"``."""
        return self._member.state

    @property
    def tracks(self) -> list[RemoteTrack]:
        """What it sends now."""
        if self.state == "closed":
            return []
        return [
            self._handle.track(self, self._member, incoming)
            for incoming in self._member.connection.tracks
        ]

    @property
    def streams(self) -> list[MediaStream]:
        """The same, grouped by its streams."""
        streams: dict[str, MediaStream] = {}
        for track in self.tracks:
            if track.stream_id is not None and track.stream_id not in streams:
                streams[track.stream_id] = self._handle.stream(self, self._member, track.stream_id)
        return list(streams.values())

    @property
    def channels(self) -> list[DataChannel]:
        """The data channels to it that are open, whoever opened them, oldest first.

        One that it opens is here before its ``DataChannelOpened``, and may be read from at
        any time: what has come waits in it.
        """
        return self._handle.channels("open")

    @property
    def pc(self) -> RTCPeerConnection:
        """The aiortc connection under it: an escape hatch, to be used on its loop only.

        Another one after each :class:`~metered_sync.ConnectionReset`.
        """
        return self._member.connection.pc

    # --- waiting ---

    def track(
        self,
        kind: str | None = None,
        *,
        stream_id: str | None = None,
        timeout: float | None = None,
    ) -> RemoteTrack:
        """Wait until it sends a track, and return it; the first one that fits.

        Args:
            kind: ``"audio"`` or ``"video"``; ``None`` takes either.
            stream_id: Only a track of this stream.
            timeout: Seconds; ``None`` waits until there is one, it leaves, or Ctrl-C.

        Raises:
            MeteredTimeoutError: There was none in time.
            ClosedError: It has left, or this peer is closed.
            ServerRequestError: Nothing will ever connect: the key lacks the Send permission.
            NegotiationFailedError: No connection could be made, after many attempts.
        """
        if kind not in (None, "audio", "video"):
            raise ValueError(f'kind must be "audio" or "video", not {kind!r}')

        def find() -> RemoteTrack | None:
            for track in self.tracks:
                if kind in (None, track.kind) and stream_id in (None, track.stream_id):
                    return track
            return None

        return self._wait(find, f"{kind or 'any'} track of {self.id!r}", timeout)

    def wait_connected(self, *, timeout: float | None = None) -> None:
        """Wait until the media connection is up.

        It is made once one of the two sends a track or opens a data channel. Errors: as
        :meth:`track`.
        """
        self._wait(
            lambda: True if self.state == "connected" else None,
            f"media connection to {self.id!r}",
            timeout,
        )

    def _wait(self, find: Callable[[], T | None], what: str, timeout: float | None) -> T:
        deadline = Deadline.of(timeout)
        guard.check_blocking(self._born, what)
        with self._hub.queue((Track, StateChange, NegotiationError)) as events:
            while True:
                found = find()
                if found is not None:
                    return found
                if self._member.error is not None:
                    raise fresh(self._member.error)
                if self.state == "closed" and events.ended:
                    raise self._gone(what)
                try:
                    events.get(timeout=deadline.left())
                except MeteredTimeoutError:
                    raise MeteredTimeoutError(
                        f"{what}: none within {deadline}; the peer is {self.state}"
                    ) from None
                except ClosedError:
                    raise self._gone(what) from None

    def _gone(self, what: str) -> BaseException:
        """Return the error for something that is to be done with a peer that is not there."""
        link = self._peer._link
        if link is not None and link.error is not None:  # it is we who are gone
            return fresh(link.error)
        return ClosedError(f"{what}: the peer has left")

    # --- acting ---

    def send(
        self, data: Any, *, during_outage: DuringOutage = "wait", timeout: float | None = None
    ) -> None:
        """Send it a message through the service; return once acknowledged.

        It receives a :class:`~metered_sync.Data` event. Errors: as :meth:`MeteredPeer.send`.
        """
        self._peer.send_to(self.id, data, during_outage=during_outage, timeout=timeout)

    def create_data_channel(
        self,
        label: str,
        *,
        ordered: bool = True,
        max_retransmits: int | None = None,
        max_packet_life_time: float | None = None,
        protocol: str = "",
        wait: bool = True,
        timeout: float | None = None,
    ) -> DataChannel:
        """Open a data channel to it.

        A channel lives as long as the connection it was made on: after a
        :class:`~metered_sync.ConnectionReset` open another one.

        Args:
            label: What the other side sees in its ``DataChannelOpened``.
            ordered: Whether messages arrive in the order of sending.
            max_retransmits: How often a lost piece is repeated; ``None``: until it arrives.
            max_packet_life_time: Seconds for which it is repeated; not together with the above.
            protocol: A name for what is spoken on it.
            wait: Whether to return once it is open, or at once; then ``DCOpen`` tells.
            timeout: Seconds until it is open; ``None`` is the peer's default.

        Raises:
            MeteredTimeoutError: It did not open in time; it is closed.
            ClosedError, ServerRequestError, NegotiationFailedError: As :meth:`track`.
        """
        options = channel_options(
            ordered=ordered,
            max_retransmits=max_retransmits,
            max_packet_life_time=max_packet_life_time,
            protocol=protocol,
        )
        check_label(label)
        deadline = self._peer._deadline(timeout)
        what = f"data channel {label!r} to {self.id!r}"
        if self._member.error is not None:
            raise fresh(self._member.error)

        async def create() -> DataChannel:  # wrapped at once, before anything can arrive
            if self.state == "closed":
                raise self._gone(what)
            raw = self._member.connection.create_channel(label, **options)
            channel = DataChannel(raw, timeout=self._peer._timeout, _owner=self)
            return self._handle.note(channel, theirs=False)

        connection = self._member.connection
        while True:
            generations = connection.generations
            channel = self._peer._call(create, deadline=deadline, what=what)
            if not wait:
                return channel
            try:
                self._await_open(channel, deadline, what)
            except BaseException:
                channel.close(timeout=0.0)
                raise
            if channel.state == "open":
                return channel
            if connection.generations == generations:
                raise ClosedError(f"{what}: it was closed before it was open")
            # The connection was made anew meanwhile: once more.

    def _await_open(self, channel: DataChannel, deadline: Deadline, what: str) -> None:
        """Wait until a channel is open or closed, or it is clear that it will not be open."""
        with self._hub.queue((StateChange, NegotiationError)) as events:
            while channel.state == "connecting":
                if self._member.error is not None:
                    raise fresh(self._member.error)
                left = deadline.left()
                if left == 0:
                    raise MeteredTimeoutError(
                        f"{what}: not open within {deadline}; the peer is {self.state}"
                    )
                try:
                    channel.wait_open(timeout=min(left, 0.1))
                except (MeteredTimeoutError, ClosedError):
                    pass
                if events.ended:
                    raise self._gone(what)

    def stats(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return figures about the connection and the traffic of each track.

        Returns:
            ``state``; ``generations``, how often the connection was made; ``paths``, each
            the kinds of the ``local`` and ``remote`` ICE candidate that were chosen;
            ``incoming``, for each track what :meth:`RemoteTrack.stats` returns;
            ``outgoing``, for each track that is sent here, on the present connection:
            ``kind``, ``id``, ``bytes_sent``, ``packets_sent``, ``packets_lost``,
            ``frames_sent``, ``round_trip_time`` (seconds, ``None`` until it is known) and
            ``bitrate`` (bits per second since the last call).
        """
        return self._peer._call(
            self._member.connection.stats, deadline=self._peer._deadline(timeout), what="stats"
        )


class _Handle:
    """What the face keeps of one member, on the engine's side: nothing that keeps a user's alive.

    Callbacks registered on a :class:`RemotePeer` do, through its hub.
    """

    def __init__(self, label: str) -> None:
        self.hub = EventHub(label)
        self._lock = threading.Lock()  # guards what follows
        self._remote: weakref.ref[RemotePeer] | None = None
        self._tracks: weakref.WeakKeyDictionary[IncomingTrack, weakref.ref[RemoteTrack]]
        self._tracks = weakref.WeakKeyDictionary()
        self._streams: weakref.WeakValueDictionary[str, MediaStream]
        self._streams = weakref.WeakValueDictionary()
        self._channels: tuple[Callable[[], DataChannel | None], ...] = ()
        """What gives them; replaced on the loop, not changed."""

    def channels(self, *states: str) -> list[DataChannel]:
        """Return those in one of these states."""
        found = (get() for get in self._channels)
        return [one for one in found if one is not None and one.state in states]

    def note(self, channel: DataChannel, *, theirs: bool) -> DataChannel:
        """Take note of a new channel.

        One that the other side has opened is kept for as long as it is open: its messages
        wait there from now on, whether and whenever somebody takes it.
        """
        used = self.channels("connecting", "open", "closing")
        kept = (get for get in self._channels if get() in used)
        self._channels = (*kept, (lambda: channel) if theirs else weakref.ref(channel))
        return channel

    def remote(self, peer: MeteredPeer, member: Member) -> RemotePeer:
        """Return the one object for this member."""
        with self._lock:
            remote = self._remote() if self._remote is not None else None
            if remote is None:
                remote = RemotePeer(peer, member, self)
                self._remote = weakref.ref(remote)
            return remote

    def track(self, remote: RemotePeer, member: Member, incoming: IncomingTrack) -> RemoteTrack:
        """Return the one object for a track."""
        with self._lock:
            track = self._shown(incoming)
            if track is None:
                track = RemoteTrack(incoming, remote)
                self._tracks[incoming] = weakref.ref(track)
        track.metadata = member.metadata_of(incoming)
        return track

    def _shown(self, incoming: IncomingTrack) -> RemoteTrack | None:
        ref = self._tracks.get(incoming)
        return ref() if ref is not None else None

    def note_metadata(self, member: Member) -> None:
        """Pass on what has become known about tracks that somebody holds."""
        for incoming in member.connection.tracks:
            with self._lock:
                track = self._shown(incoming)
            if track is not None:
                track.metadata = member.metadata_of(incoming)

    def stream(self, remote: RemotePeer, member: Member, stream_id: str) -> MediaStream:
        """Return the object for a stream, with the tracks it has now."""
        tracks = [
            self.track(remote, member, incoming)
            for incoming in member.connection.tracks
            if incoming.stream_id == stream_id
        ]
        with self._lock:
            stream = self._streams.get(stream_id)
            if stream is None:
                stream = self._streams[stream_id] = MediaStream(id=stream_id)
            for track in stream.tracks:
                if track not in tracks:
                    stream.remove_track(track)
            for track in tracks:
                stream.add_track(track)
            return stream


class Sink:
    """Turns what happens in a room into events. On the loop; blocks nowhere.

    It belongs to the engine's side, so it holds the user's object weakly.
    """

    def __init__(self, peer: MeteredPeer) -> None:
        self._peer = weakref.ref(peer)
        self.emit, self.end = peer._hub.emit, peer._hub.end

    def _of(self, member: Member) -> tuple[_Handle, RemotePeer | None]:
        if member.handle is None:
            member.handle = _Handle(f"peer {member.id!r}")
        peer = self._peer()
        return member.handle, member.handle.remote(peer, member) if peer is not None else None

    def peer_joined(self, member: Member) -> None:
        _, remote = self._of(member)
        if remote is not None:
            self.emit(PeerJoined(remote))

    def peer_left(self, member: Member) -> None:
        _, remote = self._of(member)
        if remote is not None:
            self.emit(PeerLeft(remote))

    def peer_event(self, member: Member, event: Event) -> None:
        self._of(member)[0].hub.emit(event)

    def peer_ended(self, member: Member, error: BaseException | None) -> None:
        self._of(member)[0].hub.end(error)

    def track(self, member: Member, track: IncomingTrack) -> None:
        handle, remote = self._of(member)
        if remote is None:
            return
        shown = handle.track(remote, member, track)
        streams: tuple[MediaStream, ...] = ()
        new = False
        if track.stream_id is not None:
            new = track.stream_id not in member.streams
            member.streams.add(track.stream_id)
            streams = (handle.stream(remote, member, track.stream_id),)
        handle.hub.emit(Track(shown, streams, shown.metadata))
        if new:
            handle.hub.emit(StreamAdded(streams[0], shown.metadata))

    def track_gone(self, member: Member, track: IncomingTrack) -> None:
        handle, remote = self._of(member)
        if remote is None or track.stream_id is None:
            return
        left = {other.stream_id for other in member.connection.tracks}
        if track.stream_id in member.streams - left:
            member.streams.discard(track.stream_id)
            handle.hub.emit(StreamRemoved(handle.stream(remote, member, track.stream_id)))

    def metadata(self, member: Member) -> None:
        self._of(member)[0].note_metadata(member)

    def channel(self, member: Member, raw: RTCDataChannel) -> None:
        handle, _ = self._of(member)
        handle.hub.emit(DataChannelOpened(handle.note(DataChannel(raw), theirs=True)))
