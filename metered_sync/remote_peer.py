"""Another member of a room, for code that blocks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, Protocol, TypeVar, overload

from aiortc import RTCPeerConnection
from av import AudioFrame, VideoFrame

from metered_sync._member_objects import MemberObjects
from metered_sync._observable import Observable, holds
from metered_sync._sent_tracks import SentTracks
from metered_sync.bridge import guard
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.event_hub import EventHub
from metered_sync.data_channel import DataChannel
from metered_sync.engine.rooms.member import Member
from metered_sync.engine.webrtc.data_channel import ChannelLink
from metered_sync.errors import (
    ClosedError,
    MeteredTimeoutError,
    NegotiationFailedError,
    raise_fresh,
)
from metered_sync.media.tracks.stream import MediaStream
from metered_sync.media.tracks.track import RemoteTrack, core_of
from metered_sync.options import DuringOutage
from metered_sync.wire.arguments import check_choice, check_function, shown
from metered_sync.wire.data_channels import channel_options, check_label
from metered_sync.wire.events import Event
from metered_sync.wire.fields import copied
from metered_sync.wire.states import PeerConnectionState

__all__ = ["LocalPeer", "RemotePeer"]

T = TypeVar("T")
MAX_LISTED = 5
"""Tracks that an error lists."""


class LocalPeer(Protocol):
    """The peer of this process, as far as its remote peers need it."""

    _hub: EventHub
    _timeout: float
    _sent: SentTracks
    _decide: Callable[[Any], None] | None

    def _deadline(self, timeout: float | None) -> Deadline: ...

    def _call(
        self,
        function: Callable[..., Awaitable[T]],
        *args: Any,
        deadline: Deadline,
        what: str,
        progress: Callable[[], tuple[str, bool]] | None = None,
    ) -> T: ...

    def send_to(
        self, peer_id: str, data: Any, *, during_outage: DuringOutage, timeout: float | None
    ) -> None: ...


class RemotePeer(Observable):
    """Another member of the room.

    The object stays the same across reconnects, on either side, and so do its tracks and
    their readers. A track that it sends no more ends, unless it sends it again within two
    seconds; a :class:`~metered_sync.TrackEnded` event tells.
    """

    _emitter = "RemotePeer"

    def __init__(self, peer: LocalPeer, member: Member, objects: MemberObjects) -> None:
        self._peer = peer  # must not be collected while somebody uses this
        self._member = member
        self._objects = objects
        self._hub = objects.hub
        self._born = guard.generation()

    def __repr__(self) -> str:
        tracks = len(self._member.media.tracks)
        return f"<RemotePeer {self.id!r}: {self.state}, {tracks} tracks>"

    # --- what is known ---

    @property
    def id(self) -> str:
        """Its peer id."""
        return self._member.id

    @property
    def metadata(self) -> dict[str, Any] | None:
        """The ``peerMetadata`` of its token, where it has one; a copy each time."""
        return copied(self._member.metadata)

    @property
    def state(self) -> PeerConnectionState:
        """``"idle"`` (nothing to connect for), ``"connecting"``, ``"connected"``,
        ``"reconnecting"`` or ``"closed"``."""
        return self._member.state

    @property
    def tracks(self) -> list[RemoteTrack]:
        """The tracks that it sends now."""
        if self.state == "closed":
            return []
        return [self._objects.track(self, incoming) for incoming in self._member.media.tracks]

    @property
    def streams(self) -> list[MediaStream]:
        """The tracks that it sends now, grouped by its streams."""
        streams: dict[str, MediaStream] = {}
        for track in self.tracks:
            if track.stream_id is not None and track.stream_id not in streams:
                streams[track.stream_id] = self._objects.stream(self, track.stream_id)
        return list(streams.values())

    @property
    def channels(self) -> list[DataChannel]:
        """The data channels to it that are open, whoever opened them, oldest first.

        One that it opens is here before its ``DataChannelOpened``, and may be read from at
        any time: what has come waits in it.
        """
        return self._objects.channels("open")

    @property
    def pc(self) -> RTCPeerConnection | None:
        """The aiortc connection under it: an escape hatch, to be used on its loop only.

        Another one after each :class:`~metered_sync.ConnectionReset`. ``None`` where media
        travel without one.
        """
        return self._member.media.pc

    # --- waiting ---

    # (For a kind that is known, ``| Any``: code that asks of which kind a frame is stays right.)

    @overload
    def track(
        self,
        kind: Literal["video"],
        *,
        stream_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        where: Callable[[RemoteTrack], object] | None = None,
        timeout: float | None = None,
    ) -> RemoteTrack[VideoFrame | Any]: ...
    @overload
    def track(
        self,
        kind: Literal["audio"],
        *,
        stream_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        where: Callable[[RemoteTrack], object] | None = None,
        timeout: float | None = None,
    ) -> RemoteTrack[AudioFrame | Any]: ...
    @overload
    def track(
        self,
        kind: str | None = None,
        *,
        stream_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        where: Callable[[RemoteTrack], object] | None = None,
        timeout: float | None = None,
    ) -> RemoteTrack: ...
    def track(
        self,
        kind: str | None = None,
        *,
        stream_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        where: Callable[[RemoteTrack], object] | None = None,
        timeout: float | None = None,
    ) -> RemoteTrack[Any]:
        """Wait for a track that it sends; return the first one that fits.

        Args:
            kind: ``"audio"`` or ``"video"``; ``None`` takes either.
            stream_id: Only a track of this stream.
            metadata: Only a track whose metadata has these keys, with these values; it may have
                others.
            where: Only a track for which this returns true. It runs on the calling thread, and
                again whenever something may have changed.
            timeout: Seconds; ``None`` waits until there is one, it leaves, or Ctrl-C.

        Raises:
            MeteredTimeoutError: There was none in time.
            ClosedError: It has left, or this peer is closed.
            ServerRequestError: Nothing will ever connect: the key lacks the Send permission.
            NegotiationFailedError: No connection could be made, after many attempts; or it sends
                such a track, in a codec that cannot be received (with ``metadata`` or ``where``
                it may not be the one that is meant: then the timeout tells).
        """
        check_choice("kind", kind, ("audio", "video", None))
        if metadata is not None and not isinstance(metadata, Mapping):
            raise TypeError(f"metadata must be a mapping, not {type(metadata).__name__}")
        if where is not None:
            check_function("where", where, arguments=1)
        wanted = dict(metadata or {})

        def fits(track: RemoteTrack) -> bool:
            known = track.metadata or {}
            return (
                kind in (None, track.kind)
                and stream_id in (None, track.stream_id)
                and all(key in known and known[key] == wanted[key] for key in wanted)
                and (where is None or holds(where, track))
            )

        any_will_do = metadata is None and where is None

        def find() -> RemoteTrack | None:
            unfit = self._member.media.unfit  # (before the tracks, which change first)
            found = next((track for track in self.tracks if fits(track)), None)
            if found is None and any_will_do:
                for one in unfit:
                    if kind in (None, one.kind) and stream_id in (None, one.stream_id):
                        problem = f"the {one.kind} of {self.id!r} cannot be received"
                        raise NegotiationFailedError(f"{problem}: {one.problem}", stage="offer")
            return found

        options = {"stream_id": stream_id, "metadata": metadata, "where": where}
        given = [f"{name}={shown(value)}" for name, value in options.items() if value is not None]
        wanted_track = " ".join([f"{kind or 'any'} track", *given, f"of {self.id!r}"])
        return self._wait(find, wanted_track, timeout, self._sends)

    def wait_connected(self, *, timeout: float | None = None) -> None:
        """Wait until the media connection is up.

        It is made once one of the two sends a track or opens a data channel. Errors: as
        :meth:`track`.
        """
        self._wait(
            lambda: True if self.state == "connected" else None,
            f"media connection to {self.id!r}",
            timeout,
            self._sends,
        )

    def _sends(self) -> str:
        """Say which tracks it sends."""
        tracks = self.tracks
        listed = [
            track.kind + (f" in stream {track.stream_id!r}" if track.stream_id else "")
            for track in tracks[:MAX_LISTED]
        ]
        more = f" and {len(tracks) - MAX_LISTED} more" if len(tracks) > MAX_LISTED else ""
        unfit = "".join(
            f"; {one.kind} that cannot be received: {one.problem}"
            for one in self._member.media.unfit[:MAX_LISTED]
        )
        return f", and sends {', '.join(listed) or 'no track'}{more}{unfit}"

    def _wait(
        self,
        find: Callable[[], T | None],
        what: str,
        timeout: float | None,
        details: Callable[[], str] = str,
    ) -> T:
        deadline = Deadline.of(timeout)
        guard.check_blocking(self._born, what)
        with self._hub.queue((Event,)) as events:
            self._objects.wake_by_metadata(events)
            while True:
                found = find()
                if found is not None:
                    return found
                raise_fresh(self._member.error)
                if self.state == "closed" and events.ended:
                    raise self._member.gone(what)
                try:
                    events.get(timeout=deadline.left())
                except MeteredTimeoutError:
                    raise MeteredTimeoutError(
                        f"{what}: none within {deadline}; the peer is {self.state}{details()}"
                    ) from None
                except ClosedError:
                    raise self._member.gone(what) from None

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
            NegotiationFailedError: The other side refuses data channels; or as :meth:`track`.
            ClosedError, ServerRequestError: As :meth:`track`.
        """
        options = channel_options(
            ordered=ordered,
            max_retransmits=max_retransmits,
            max_packet_life_time=max_packet_life_time,
            protocol=protocol,
        )
        check_label(label)

        def wrap(link: ChannelLink) -> DataChannel:
            channel = DataChannel(link, timeout=self._peer._timeout, _owner=self)
            return self._objects.note_channel(channel, theirs=False)

        channel: DataChannel = self._peer._call(
            self._member.open_channel,
            label,
            options,
            wrap,
            bool(wait),
            deadline=self._peer._deadline(timeout),
            what=f"data channel {label!r} to {self.id!r}",
            # (Once they are connected, the message that opens it has left.)
            progress=lambda: (f"the peer is {self.state}", self.state == "connected"),
        )
        return channel

    def _close_track(self, track: RemoteTrack, timeout: float | None) -> None:
        self._peer._call(
            self._member.close_track,
            core_of(track).incoming,
            deadline=self._peer._deadline(timeout),
            what=f"close {track!r}",
        )

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
            self._member.media.stats, deadline=self._peer._deadline(timeout), what="stats"
        )
