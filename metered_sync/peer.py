"""Rooms: share media, data and messages with whoever is in the same channel."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from aiortc import RTCDataChannel, RTCPeerConnection
from aiortc.mediastreams import MediaStreamTrack

from metered_sync.client import During, ReconnectOptions, signalling_options, waits
from metered_sync.data_channel import DataChannel
from metered_sync.delivery import await_ack
from metered_sync.dispatch import EventHub, Observable
from metered_sync.engine import guard
from metered_sync.engine.connection_owner import State
from metered_sync.engine.deadline import Deadline
from metered_sync.engine.encoding import check_encoding
from metered_sync.engine.fanout import LocalTrack
from metered_sync.engine.loop import Engine
from metered_sync.engine.room import (
    Member,
    RoomLink,
    RoomOptions,
    RoomState,
    metadata_signal,
)
from metered_sync.engine.rtc import IncomingTrack
from metered_sync.errors import (
    ClosedError,
    MeteredPeerSendError,
    MeteredPeerStateError,
    MeteredTimeoutError,
    OversizedPayloadError,
    fresh,
)
from metered_sync.events import (
    DataChannelOpened,
    Event,
    IceServer,
    NegotiationError,
    PeerJoined,
    PeerLeft,
    ServerError,
    StateChange,
    StreamAdded,
    StreamRemoved,
    Track,
)
from metered_sync.facade import Client
from metered_sync.media.sources import as_tracks
from metered_sync.media.stream import MediaStream
from metered_sync.media.track import RemoteTrack
from metered_sync.wire import frames, signals
from metered_sync.wire.data_channels import channel_options, check_label
from metered_sync.wire.limits import MAX_FRAME
from metered_sync.wire.names import check_channel, check_peer_id, is_reserved
from metered_sync.wire.timings import DEFAULT, Timings

__all__ = ["MeteredPeer", "RemotePeer"]

T = TypeVar("T")
logger = logging.getLogger("metered_sync")


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
        self, data: Any, *, during_outage: During = "wait", timeout: float | None = None
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


class _Sink:
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


class MeteredPeer(Client[RoomLink]):
    """A peer in a room: media, data channels and messages with everybody in one channel.

    :meth:`join` connects and joins; ``with`` closes at the end. One room per peer, and
    :meth:`close` is final. Tracks may be added before joining or later, and reach every
    member, those who come later included. Methods may be called from any thread and from
    callbacks.

    When the connection to the service is lost it is made again by itself, and the media
    connections with it; a media connection that fails is made again, too. :class:`RemotePeer`
    objects, tracks and their readers stay the same.

    Events: :class:`~metered_sync.Joined`, :class:`~metered_sync.Left`,
    :class:`~metered_sync.PeerJoined`, :class:`~metered_sync.PeerLeft`,
    :class:`~metered_sync.Data`, :class:`~metered_sync.FatalError`, and those of
    :class:`~metered_sync.SignallingClient` about the connection to the service.

    Args:
        api_key: As for :class:`~metered_sync.SignallingClient`, and so are ``token_provider``,
            ``url``, ``timeout``, ``reconnect``, ``inactivity_timeout``,
            ``token_provider_timeout`` and ``rate_limit``. The key or token needs the Send
            permission: signals between peers travel as direct messages.
        ice_servers: STUN and TURN servers, instead of those that the service names.
        relay_only: Use TURN only, and reveal no address of this machine.
        gather_timeout: Seconds to wait for STUN and TURN servers in each negotiation, at most.

    Raises:
        ValueError: A bad argument.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        token_provider: Callable[[], str] | str | None = None,
        url: str | None = None,
        timeout: float = 15.0,
        reconnect: bool | ReconnectOptions = True,
        inactivity_timeout: float = 60.0,
        token_provider_timeout: float = 10.0,
        auto_resubscribe: bool = True,
        rate_limit: tuple[float, float] | None = (90, 180),
        ice_servers: Iterable[IceServer] | None = None,
        relay_only: bool = False,
        gather_timeout: float = 5.0,
        _timings: Timings = DEFAULT,
    ) -> None:
        super().__init__("MeteredPeer", timeout)
        self._signalling = signalling_options(
            "MeteredPeer",
            api_key=api_key,
            token_provider=token_provider,
            url=url,
            reconnect=reconnect,
            inactivity_timeout=inactivity_timeout,
            token_provider_timeout=token_provider_timeout,
            auto_resubscribe=auto_resubscribe,
            rate_limit=rate_limit,
        )
        if not auto_resubscribe:
            raise ValueError("auto_resubscribe must be on: a room is a subscription")
        self._options = RoomOptions(
            None if ice_servers is None else tuple(ice_servers),
            bool(relay_only),
            Deadline(gather_timeout).timeout,
        )
        self._timings = _timings
        self._tracks: dict[MediaStreamTrack, LocalTrack] = {}
        self._adding = threading.Lock()  # guards _tracks

    def __repr__(self) -> str:
        where = f" in {self.channel!r}" if self.channel else ""
        others = len(self._link.present) if self._link else 0
        return f"<MeteredPeer{where}: {self.state}, {others} others>"

    def _make_link(self, engine: Engine) -> RoomLink:
        sink = _Sink(self)
        return RoomLink(engine, sink, self._signalling, self._options, self._label, self._timings)

    # --- joining and leaving ---

    def __enter__(self) -> MeteredPeer:
        self._link_to_open()
        return self

    def join(
        self,
        channel: str,
        *,
        include_sender_metadata: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Connect if need be, and join a channel; return once it is joined.

        Members that are there already arrive as ``PeerJoined``, or by :meth:`wait_for_peer`.
        A call that fails may be repeated.

        Args:
            channel: 1 to 256 bytes of UTF-8.
            include_sender_metadata: Fill ``sender_metadata`` of broadcast data.
            timeout: Seconds; ``None`` is the peer's default.

        Raises:
            SignallingConnectError: The service refuses, or cannot be reached.
            ServerRequestError: The channel is refused; ``code`` says why.
            MeteredPeerSendError: The channel has a prefix that the service reserves.
            MeteredPeerStateError: It has joined a room already.
            MeteredTimeoutError: Not joined before the deadline.
        """
        deadline = self._deadline(timeout)
        if isinstance(channel, str) and is_reserved(channel):
            raise MeteredPeerSendError(
                f"join: the channel {channel[:60]!r} has a prefix that the service reserves",
                code="reserved_channel",
            )
        check_channel(channel)
        link = self._link_to_open()
        if link.error is not None:
            raise fresh(link.error)
        if link.state not in ("idle", "joining"):
            raise self._wrong_state("join", f"it is {link.state}; a peer joins one room, once")
        self._call(
            link.join,
            channel,
            bool(include_sender_metadata),
            deadline=deadline,
            what=f"join {channel!r}",
        )

    @contextmanager
    def joined(
        self,
        channel: str,
        *,
        include_sender_metadata: bool = False,
        timeout: float | None = None,
    ) -> Iterator[MeteredPeer]:
        """Join for the length of a ``with`` block, and close at its end."""
        try:
            self.join(channel, include_sender_metadata=include_sender_metadata, timeout=timeout)
            yield self
        finally:
            self.close()

    def close(self, *, reason: str | None = None, timeout: float | None = None) -> None:
        """Leave the room, for good, and wake everybody who waits. Repeatable, from any thread.

        Args:
            reason: What the ``Left`` event says; ``"closed"`` unless given.
        """
        guard.check_process(self._born, self._label)
        if self._link is not None and reason is not None and self._link.error is None:
            self._start().post(self._link.leaving, reason)
        super().close(timeout=timeout)

    # --- what is known ---

    @property
    def state(self) -> RoomState:
        """``"idle"``, ``"joining"``, ``"joined"``, ``"reconnecting"``, ``"leaving"`` or
        ``"closed"``."""
        if self._link is None:
            return "closed" if self._closed else "idle"
        return self._link.state

    @property
    def peer_id(self) -> str | None:
        """Who this peer is to the others; ``None`` before it has joined."""
        return self._link.peer_id if self._link is not None else None

    @property
    def channel(self) -> str | None:
        """The room's channel."""
        return self._link.channel if self._link is not None else None

    @property
    def remote_peers(self) -> list[RemotePeer]:
        """The other members that are there."""
        return [self._remote(member) for member in self._link.present] if self._link else []

    def _remote(self, member: Member) -> RemotePeer:
        # (It has a handle from its PeerJoined on.)
        remote: RemotePeer = member.handle.remote(self, member)
        return remote

    def wait_for_peer(
        self, peer_id: str | None = None, *, timeout: float | None = None
    ) -> RemotePeer:
        """Wait until another member is there, and return it.

        Args:
            peer_id: Wait for this one; ``None`` takes the first.
            timeout: Seconds; ``None`` waits until one is there, close or Ctrl-C.

        Raises:
            MeteredTimeoutError: Nobody came in time.
            ReconcileTimeoutError: Members cannot be seen: the key lacks the presence permission.
            MeteredPeerStateError: Before :meth:`join`.
            ClosedError: The peer was closed; :class:`DisconnectedError` if its connection
                ended for good.
        """
        deadline = Deadline.of(timeout)
        if peer_id is not None:
            check_peer_id(peer_id)
        link = self._joined_link("wait_for_peer")
        what = "wait_for_peer" if peer_id is None else f"wait_for_peer({peer_id!r})"
        with self._hub.queue((PeerJoined, StateChange, ServerError)) as events:
            while True:
                for member in link.present:
                    if peer_id in (None, member.id) and member.handle is not None:
                        return self._remote(member)
                if link.blind is not None:
                    raise fresh(link.blind)
                try:
                    events.get(timeout=deadline.left())
                except MeteredTimeoutError:
                    raise MeteredTimeoutError(
                        f"{what}: nobody came within {deadline}; {len(link.present)} other "
                        f"members are in {link.channel!r}"
                    ) from None

    # --- messages ---

    def send(
        self, data: Any, *, during_outage: During = "wait", timeout: float | None = None
    ) -> None:
        """Send a message to everybody in the room, through the service.

        Returns once the service has acknowledged; members receive a
        :class:`~metered_sync.Data` event of kind ``"broadcast"``.

        Args:
            data: Anything that JSON can carry, as for ``SignallingClient.publish``.
            during_outage: ``"wait"`` for the reconnect, or ``"fail"`` at once.
            timeout: Seconds until the acknowledgement; ``None`` is the peer's default.

        Raises:
            MeteredPeerSendError: Not in a room (``code="not_joined"``).
            SignallingError: The errors of ``SignallingClient.publish``.
        """
        link = self._sending("send")
        channel = link.channel or ""
        self._exchange(
            link,
            lambda rid: frames.build_publish(channel, data, rid),
            f"send to {channel!r}",
            waits(during_outage),
            timeout,
        )

    def send_to(
        self,
        peer_id: str,
        data: Any,
        *,
        during_outage: During = "wait",
        timeout: float | None = None,
    ) -> None:
        """Send a message to one member, which receives ``Data`` of kind ``"direct"``.

        Arguments and errors as :meth:`send`; ``code="self_send"`` for this peer's own id.
        """
        check_peer_id(peer_id)
        link = self._sending("send_to")
        if peer_id == link.peer_id:
            raise MeteredPeerSendError("send_to: this is the peer's own id", code="self_send")
        if signals.is_reserved(data):
            logger.warning("send_to: the data looks like a signal; the other side will take it so")
        self._exchange(
            link,
            lambda rid: frames.build_send(peer_id, data, rid),
            f"send to peer {peer_id!r}",
            waits(during_outage),
            timeout,
        )

    def _exchange(
        self,
        link: RoomLink,
        build: Callable[[str], str],
        what: str,
        wait: bool,
        timeout: float | None,
    ) -> None:
        deadline = self._deadline(timeout)
        self._start().check(what)
        await_ack(link.signalling, link.signalling.request(build, what, wait=wait), deadline)

    def _sending(self, method: str) -> RoomLink:
        link = self._link
        if link is not None and link.error is not None:
            raise fresh(link.error)
        if link is None or link.state not in ("joined", "reconnecting"):
            raise MeteredPeerSendError(
                f"{method}: the peer is {self.state}, not in a room; call join() first",
                code="not_joined",
            )
        return link

    def _joined_link(self, method: str) -> RoomLink:
        link = self._link
        if link is not None and link.error is not None:
            raise fresh(link.error)
        if link is None or link.state == "idle":
            raise self._wrong_state(method, "call join() first")
        self._start().check(method)
        return link

    def _wrong_state(self, method: str, why: str) -> MeteredPeerStateError:
        return MeteredPeerStateError(
            f"{method}: {why}", code="invalid_state", method=method, current_state=self.state
        )

    # --- media ---

    def add_track(
        self,
        track: MediaStreamTrack,
        stream: MediaStream | None = None,
        metadata: dict[str, Any] | None = None,
        *,
        video_bitrate: int | None = None,
        max_framerate: float | None = None,
        codec: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Send a track to everybody in the room, now and later.

        Adding the same track again does nothing.

        Args:
            track: Any aiortc track; a source's ``.video`` or ``.audio``.
            stream: Groups it with other tracks on the other side.
            metadata: A JSON object that the others see with the track.
            video_bitrate: Bits per second; ``None`` adapts to the network.
            max_framerate: Pictures per second, at most.
            codec: ``"vp8"`` or ``"h264"``; ``None`` leaves it to the negotiation.

        Raises:
            MeteredPeerStateError: It was added in another stream
                (``code="track_already_attached"``), or the peer is closed.
            MediaError: A source's ``.video`` or ``.audio`` that it does not have.
            OversizedPayloadError: The metadata is too large for a message.
        """
        tracks, is_source = as_tracks(track)
        if is_source:
            raise TypeError(
                "add_track takes one track; for a source use add_stream(MediaStream(…))"
            )
        stream_id = stream.id if stream is not None else None
        options = (video_bitrate, max_framerate, codec)
        self._add([tracks[0]], stream_id, metadata, options, timeout)

    def add_stream(
        self,
        stream: MediaStream,
        metadata: dict[str, Any] | None = None,
        *,
        video_bitrate: int | None = None,
        max_framerate: float | None = None,
        codec: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Send all tracks of a stream; each bears the metadata. Otherwise as :meth:`add_track`."""
        tracks, _ = as_tracks(stream)
        if not tracks:
            raise ValueError("the stream has no tracks; add some to it first")
        options = (video_bitrate, max_framerate, codec)
        self._add(tracks, getattr(stream, "id", None), metadata, options, timeout)

    def _add(
        self,
        tracks: Sequence[MediaStreamTrack],
        stream_id: str | None,
        metadata: dict[str, Any] | None,
        options: tuple[int | None, float | None, str | None],
        timeout: float | None,
    ) -> None:
        deadline = self._deadline(timeout)
        link = self._link_to_open()
        self._start().check("add tracks")
        if link.error is not None:
            raise fresh(link.error)
        if metadata is not None and not isinstance(metadata, dict):
            raise TypeError(f"metadata must be a mapping, not {type(metadata).__name__}")
        encodings = check_encoding({track.kind for track in tracks}, *options)
        new = []
        with self._adding:
            for track in tracks:
                known = self._tracks.get(track)
                if known is not None:
                    if stream_id is not None and known.stream_id != stream_id:
                        raise MeteredPeerStateError(
                            f"add_track: the {track.kind} track is sent already, in the stream "
                            f"{known.stream_id!r}; remove it first",
                            code="track_already_attached",
                            method="add_track",
                            current_state=self.state,
                        )
                    continue
                own = None if metadata is None else dict(metadata)
                encoding = encodings[track.kind]
                new.append(LocalTrack(track, stream_id=stream_id, metadata=own, encoding=encoding))
            for local in new:
                self._check_metadata(local)
            self._tracks.update((local.source, local) for local in new)
            if new:
                self._start().post(link.add_tracks, new)
        self._call(link.settled, deadline=deadline, what="add tracks")

    def _check_metadata(self, track: LocalTrack) -> None:
        if track.metadata is None:
            return
        text = frames.build_send("x" * 128, metadata_signal(track), "x" * 40)
        if (size := len(text.encode())) > MAX_FRAME:
            raise OversizedPayloadError(
                f"the metadata makes a message of {size} bytes, the service accepts {MAX_FRAME}",
                size=size,
                cap=MAX_FRAME,
            )

    def remove_track(self, track: MediaStreamTrack, *, timeout: float | None = None) -> None:
        """Stop sending a track. Its source goes on. One that is not sent is left alone."""
        self._remove([track], timeout)

    def remove_stream(self, stream: MediaStream, *, timeout: float | None = None) -> None:
        """Stop sending what was added as this stream."""
        with self._adding:
            tracks = [t for t, local in self._tracks.items() if local.stream_id == stream.id]
        self._remove(tracks, timeout)

    def _remove(self, tracks: Iterable[MediaStreamTrack], timeout: float | None) -> None:
        deadline = self._deadline(timeout)
        self._start().check("remove tracks")
        with self._adding:
            gone = [local for t in tracks if (local := self._tracks.pop(t, None)) is not None]
            if gone and self._link is not None:
                self._start().post(self._link.remove_tracks, gone)
        if gone and self._link is not None:
            self._call(self._link.settled, deadline=deadline, what="remove tracks")

    def replace_track(
        self,
        old: MediaStreamTrack,
        new: MediaStreamTrack | None,
        *,
        timeout: float | None = None,
    ) -> None:
        """Send another track in the place of one, without a pause for negotiating.

        Args:
            old: A track that is sent.
            new: One of the same kind; ``None`` sends nothing any more, as
                :meth:`remove_track`.

        Raises:
            MeteredPeerStateError: ``old`` is not sent, or the peer is reconnecting or closed.
            TypeError: ``new`` is of another kind.
        """
        if not isinstance(old, MediaStreamTrack):
            raise TypeError(f"replace_track: old must be a track that is sent, not {old!r}")
        deadline = self._deadline(timeout)
        link = self._link
        if link is None or link.state in ("reconnecting", "leaving", "closed"):
            raise self._wrong_state("replace_track", f"not while the peer is {self.state}")
        self._start().check("replace_track")
        with self._adding:
            known = self._tracks.get(old)
            if known is None:
                raise self._wrong_state("replace_track", "the old track is not sent")
            replacement = None
            if new is not None:
                (track, *_), _ = as_tracks(new)
                if track is old:
                    return
                if track.kind != old.kind:
                    raise TypeError(f"replace_track: {old.kind} cannot become {track.kind}")
                if track in self._tracks:
                    raise MeteredPeerStateError(
                        f"replace_track: the new {track.kind} track is sent already; remove it "
                        "first",
                        code="track_already_attached",
                        method="replace_track",
                        current_state=self.state,
                    )
                replacement = self._tracks[track] = known.successor(track)
            del self._tracks[old]
            self._start().post(link.replace_track, known, replacement)
        self._call(link.settled, deadline=deadline, what="replace a track")
