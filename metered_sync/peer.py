"""Share media, data and messages with the members of a room, for code that blocks."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, TypeVar

from metered_sync._facade import Client
from metered_sync._room_events import RoomEvents, remote_peer
from metered_sync._room_sfu import room_options, take_if
from metered_sync._sent_tracks import SentTracks, check_stream
from metered_sync.bridge import guard
from metered_sync.bridge.deadline import Deadline, check_timeout
from metered_sync.bridge.loop import Engine
from metered_sync.engine.rooms.link import RoomLink
from metered_sync.engine.rooms.media import ConnectionOptions, RoomMedia
from metered_sync.engine.rooms.mesh import Mesh
from metered_sync.engine.sfu_rooms.room_media import SfuRoomMedia
from metered_sync.engine.sfu_rooms.room_track import SubscribePolicy
from metered_sync.engine.webrtc.encoding import check_encoding
from metered_sync.errors import (
    MeteredPeerSendError,
    MeteredPeerStateError,
    MeteredTimeoutError,
    raise_fresh,
)
from metered_sync.events import (
    PeerJoined,
    ServerError,
    StateChange,
)
from metered_sync.media.tracks.given import AnyTrack, TrackLike, one_track
from metered_sync.media.tracks.stream import MediaStream
from metered_sync.media.tracks.track import RemoteTrack
from metered_sync.options import (
    DuringOutage,
    ReconnectOptions,
    check_during_outage,
    signalling_options,
)
from metered_sync.remote_peer import RemotePeer
from metered_sync.sfu_api import SfuMedia
from metered_sync.wire import frames, signals
from metered_sync.wire.arguments import check_choice, check_function, check_whole, shown
from metered_sync.wire.control import Token
from metered_sync.wire.key_frames import MAX_PIXELS
from metered_sync.wire.names import check_one_channel, check_peer_id, is_reserved
from metered_sync.wire.secrets import hides_arguments
from metered_sync.wire.states import MeteredPeerState
from metered_sync.wire.timings import DEFAULT_TIMINGS, Timings
from metered_sync.wire.turn import GivenIceServers, check_ice_servers, has_relay

__all__ = ["MeteredPeer"]

Self = TypeVar("Self", bound="MeteredPeer")

logger = logging.getLogger("metered_sync")

TURN_REMEDY = (
    'pass one with its credentials (IceServer("turn:…", username, credential); '
    "TurnApi(…).ice_servers() returns a list)"
)


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
            ``token_provider_timeout``, ``rate_limit`` and ``ca_file``. The key or token needs the
            Send permission: signals between peers travel as direct messages.
        ice_servers: STUN and TURN servers, instead of those that the service names: a list of
            :class:`~metered_sync.IceServer`, dicts as browsers take them, addresses, or aiortc's
            ``RTCIceServer``.
        relay_only: Use TURN only, and reveal no address of this machine. Where no TURN server is
            known on joining, a warning says so; through the SFU ``ice_servers`` must have one.
        gather_timeout: Seconds to wait for STUN and TURN servers in each negotiation, at most.
        max_pixels: The area of the pictures that are decoded, width times height: larger ones
            are dropped, and the log says so once.
        media: ``"mesh"``: each member sends its tracks to each of the others. ``"sfu"``: through
            the SFU, for rooms from a handful of members to hundreds; its credentials are
            ``METERED_SFU_APP_ID``, ``METERED_SFU_SECRET`` and ``METERED_SFU_URL`` in the
            environment, or those of a :class:`~metered_sync.SfuMedia`. All members of a room
            have to use the same.
        subscribe: Through the SFU: which tracks are received. ``"on-read"``: those that somebody
            reads, until five seconds after the last reader has gone. ``"all"``, ``"none"``, or a
            function that takes a :class:`~metered_sync.RemoteTrack` and says whether it is
            received though nobody reads it; it is called once for each, on the thread of the
            callbacks.
        max_video: Through the SFU: how many tracks of pictures are received at once, at most:
            those of the speakers first, then those whose reader was opened or called last. The
            others wait.

    Raises:
        ValueError: A bad argument.
    """

    _emitter = "MeteredPeer"

    @hides_arguments
    def __init__(
        self,
        *,
        api_key: str | None = None,
        token_provider: Callable[[], str | Token] | Token | str | None = None,
        url: str | None = None,
        timeout: float = 15.0,
        reconnect: bool | ReconnectOptions = True,
        inactivity_timeout: float = 60.0,
        token_provider_timeout: float = 10.0,
        auto_resubscribe: bool = True,
        rate_limit: tuple[float, float] | None = (90, 180),
        ca_file: str | os.PathLike[str] | None = None,
        ice_servers: GivenIceServers | None = None,
        relay_only: bool = False,
        gather_timeout: float = 5.0,
        max_pixels: int = MAX_PIXELS,
        media: Literal["mesh", "sfu"] | SfuMedia = "mesh",
        subscribe: SubscribePolicy | Callable[[RemoteTrack], bool] = "on-read",
        max_video: int = 16,
        _timings: Timings = DEFAULT_TIMINGS,
    ) -> None:
        super().__init__("MeteredPeer", timeout)
        try:
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
                ca_file=ca_file,
            )
            servers = None if ice_servers is None else check_ice_servers(ice_servers)
        finally:
            del api_key, token_provider, ice_servers  # no frame of a traceback shows them
        if not auto_resubscribe:
            raise ValueError("auto_resubscribe must be on: a room is a subscription")
        self._options = ConnectionOptions(
            servers,
            bool(relay_only),
            check_timeout("gather_timeout", gather_timeout),
            check_whole("max_pixels", max_pixels, 1, unit="pixels"),
            self._signalling.ca_file,
        )
        self._timings = _timings
        self._sent = SentTracks()
        self._subscribe = (
            check_function("subscribe", subscribe, arguments=1)
            if callable(subscribe)
            else check_choice("subscribe", subscribe, ("on-read", "all", "none"))
        )
        self._max_video = check_whole("max_video", max_video, 0, unit="tracks")
        if media == "sfu":
            media = SfuMedia()
        elif not isinstance(media, SfuMedia) and media != "mesh":
            raise ValueError(f'media must be "mesh", "sfu" or SfuMedia(…), not {shown(media)}')
        self._media = media
        if relay_only and media != "mesh" and not has_relay(servers or ()):
            raise ValueError(
                "relay_only=True needs a TURN server, and the way to the SFU has only those of "
                f"ice_servers: {TURN_REMEDY}"
            )
        self._decide: Callable[[RemoteTrack], None] | None = None

    def __repr__(self) -> str:
        where = f" in {self.channel!r}" if self.channel else ""
        others = len(self._link.roster.present) if self._link else 0
        return f"<MeteredPeer{where}: {self.state}, {others} others>"

    def _make_link(self, engine: Engine) -> RoomLink:
        options, timings, label = self._signalling, self._timings, self._label
        mesh = Mesh(self._options, options.url, timings)
        media: RoomMedia = mesh
        if isinstance(self._media, SfuMedia):
            given = room_options(self._media, self._options, self._max_video)
            if callable(self._subscribe):
                self._decide = self._hub.deferred(take_if(self._subscribe))
            else:
                given = replace(given, subscribe=self._subscribe)
            media = SfuRoomMedia(engine, given, mesh, label, timings)
        return RoomLink(engine, RoomEvents(self), options, media, label, timings)

    # --- joining and leaving ---

    def _enter(self) -> None:
        self._link_to_open()

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
        check_one_channel(channel, "join")
        link = self._link_to_open()
        link.check()
        if link.state not in ("idle", "joining"):
            raise self._wrong_state("join", f"it is {link.state}; a peer joins one room, once")
        self._call(
            link.join,
            channel,
            bool(include_sender_metadata),
            deadline=deadline,
            what=f"join {channel!r}",
            progress=link.progress,
        )
        given = self._options.ice_servers
        if self._options.relay_only and not has_relay(
            link.ice_servers() if given is None else given
        ):
            lacking = (
                "the service names none (the iceServers of the token's metadata)"
                if given is None
                else "ice_servers has none"
            )
            logger.warning(
                "MeteredPeer: relay_only=True needs a TURN server, and %s: no media connection can "
                "be made without; %s as ice_servers",
                lacking,
                TURN_REMEDY,
            )

    @contextmanager
    def joined(
        self: Self,
        channel: str,
        *,
        include_sender_metadata: bool = False,
        timeout: float | None = None,
    ) -> Iterator[Self]:
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
        deadline = self._deadline(timeout)
        guard.check_process(self._born, self._label)
        if self._link is not None and reason is not None and self._link.error is None:
            self._start().post(self._link.leaving, reason)
        super().close(timeout=deadline.left())

    # --- what is known ---

    @property
    def state(self) -> MeteredPeerState:
        """``"idle"``, ``"joining"``, ``"joined"``, ``"reconnecting"``, ``"leaving"`` or
        ``"closed"``."""
        if self._link is None:
            return "closed" if self._closed else "idle"
        return self._link.state

    @property
    def peer_id(self) -> str | None:
        """The id under which the others know this peer; ``None`` before it has joined."""
        return self._link.peer_id if self._link is not None else None

    @property
    def channel(self) -> str | None:
        """The room's channel."""
        return self._link.channel.name if self._link is not None else None

    @property
    def speakers(self) -> list[str]:
        """The ids of the other members that speak, the loudest first.

        Through the SFU: as members say of themselves, and as the sound is measured that is
        received here. Empty in a mesh.
        """
        return list(self._link.media.speakers) if self._link is not None else []

    @property
    def remote_peers(self) -> list[RemotePeer]:
        """The other members that are there."""
        present = self._link.roster.present if self._link is not None else ()
        return [remote_peer(self, member) for member in present]

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
                for member in link.roster.present:
                    if peer_id in (None, member.id):
                        return remote_peer(self, member)
                raise_fresh(link.roster.list_error)
                try:
                    events.get(timeout=deadline.left())
                except MeteredTimeoutError:
                    there = [repr(member.id) for member in link.roster.present]
                    names = ", ".join([*there[:5], *("…" for _ in there[5:6])]) or "nobody"
                    raise MeteredTimeoutError(
                        f"{what}: nobody came within {deadline}; in {link.channel.name!r} there is "
                        f"{names} besides this peer"
                    ) from None

    # --- messages ---

    def send(
        self, data: Any, *, during_outage: DuringOutage = "wait", timeout: float | None = None
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
        channel = link.channel.name or ""
        request_id = link.signalling.outbox.new_id()
        text = frames.build_publish(channel, data, request_id)
        self._exchange(link, request_id, text, f"send to {channel!r}", during_outage, timeout)

    def send_to(
        self,
        peer_id: str,
        data: Any,
        *,
        during_outage: DuringOutage = "wait",
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
        request_id = link.signalling.outbox.new_id()
        text = frames.build_send(peer_id, data, request_id)
        self._exchange(link, request_id, text, f"send to peer {peer_id!r}", during_outage, timeout)

    def _exchange(
        self,
        link: RoomLink,
        request_id: str,
        text: str,
        what: str,
        during_outage: DuringOutage,
        timeout: float | None,
    ) -> None:
        outage = check_during_outage(during_outage)
        deadline = self._deadline(timeout)
        self._start().check(what)
        request = link.signalling.request(request_id, text, what, outage=outage)
        link.signalling.wait(request, deadline)

    def _sending(self, method: str) -> RoomLink:
        link = self._link
        if link is not None:
            link.check()
        if link is None or link.state not in ("joined", "reconnecting"):
            raise MeteredPeerSendError(
                f"{method}: the peer is {self.state}, not in a room; call join() first",
                code="not_joined",
            )
        return link

    def _joined_link(self, method: str) -> RoomLink:
        link = self._link
        if link is not None:
            link.check()
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
        track: TrackLike,
        stream: MediaStream | None = None,
        metadata: dict[str, Any] | None = None,
        *,
        video_bitrate: int | None = None,
        max_framerate: float | None = None,
        codec: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Send a track to everybody in the room, now and later, until its source ends.

        Adding the same track again, in the same way, does nothing.

        Args:
            track: A source that has one track (an :class:`AudioSource`), a source's ``.video``
                or ``.audio``, any aiortc track, or a :class:`RemoteTrack`: that is decoded here
                and encoded again.
            stream: Groups it with other tracks on the other side.
            metadata: A JSON object that the others see with the track.
            video_bitrate: Bits per second; ``None`` adapts to the network.
            max_framerate: Pictures per second, at most.
            codec: ``"vp8"`` or ``"h264"``; ``None`` leaves it to the negotiation.

        Raises:
            MeteredPeerStateError: It is sent already, in another stream, with other metadata or
                other options (``code="track_already_attached"``), or the peer is closed.
            MediaError: A source's ``.video`` or ``.audio`` that it does not have; a track that
                has ended.
            TypeError: Something that is not one track; a source with pictures and sound.
            OversizedPayloadError: The metadata is too large for a message.
        """
        one = one_track(track, "add_track()")
        if stream is not None:
            check_stream("add_track", stream)
        options = (video_bitrate, max_framerate, codec)
        self._add([one], None if stream is None else stream.id, metadata, options, timeout)

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
        check_stream("add_stream", stream)
        if not stream.tracks:
            raise ValueError("the stream has no tracks; add some to it first")
        options = (video_bitrate, max_framerate, codec)
        self._add(stream.tracks, stream.id, metadata, options, timeout)

    def _add(
        self,
        tracks: Sequence[AnyTrack],
        stream_id: str | None,
        metadata: dict[str, Any] | None,
        options: tuple[int | None, float | None, str | None],
        timeout: float | None,
    ) -> None:
        deadline = self._deadline(timeout)
        link = self._link_to_open()
        self._start().check("add tracks")
        link.check()
        if metadata is not None and not isinstance(metadata, dict):
            raise TypeError(f"metadata must be a mapping, not {type(metadata).__name__}")
        encodings = check_encoding({track.kind for track in tracks}, *options)
        self._sent.add(
            tracks,
            stream_id,
            metadata,
            encodings,
            state=self.state,
            post=self._start().post,
            to=link.our_tracks,
        )
        self._call(link.settled, deadline=deadline, what="add tracks")

    def get_track_metadata(self, track: TrackLike) -> dict[str, Any] | None:
        """Return a copy of the metadata that is sent with a track; ``None`` where there is none.

        ``None`` also for a track that is not sent.
        """
        return self._sent.metadata([one_track(track, "get_track_metadata()")])

    def get_stream_metadata(self, stream: MediaStream) -> dict[str, Any] | None:
        """Return a copy of the metadata that is sent with a stream's tracks: that of the first.

        ``None`` where there is none, or none of its tracks is sent.
        """
        check_stream("get_stream_metadata", stream)
        return self._sent.metadata(self._sent.of_stream(stream.id))

    def remove_track(self, track: TrackLike, *, timeout: float | None = None) -> None:
        """Stop sending a track. Its source goes on. One that is not sent is left alone.

        A track whose source has ended is removed by itself.

        Raises:
            TypeError: Something that is not one track.
        """
        self._remove([one_track(track, "remove_track()")], timeout)

    def remove_stream(self, stream: MediaStream, *, timeout: float | None = None) -> None:
        """Stop sending the tracks that were added as this stream."""
        check_stream("remove_stream", stream)
        self._remove(self._sent.of_stream(stream.id), timeout)

    def _remove(self, tracks: Iterable[AnyTrack], timeout: float | None) -> None:
        deadline = self._deadline(timeout)
        self._start().check("remove tracks")
        link = self._link
        if link is not None and self._sent.remove(tracks, self._start().post, link.our_tracks):
            self._call(link.settled, deadline=deadline, what="remove tracks")

    def replace_track(
        self,
        old: TrackLike,
        new: TrackLike,
        *,
        timeout: float | None = None,
    ) -> None:
        """Send another track in the place of one, without a pause for negotiating.

        Args:
            old: A track that is sent, or the source that it was added by.
            new: One of the same kind; ``None`` sends nothing any more, as
                :meth:`remove_track`.

        Raises:
            MeteredPeerStateError: ``old`` is not sent (any more: its source has ended), or the
                peer is reconnecting or closed.
            MediaError: ``new`` has ended.
            TypeError: ``new`` is of another kind, or one of the two is not one track.
        """
        if old is None:
            raise TypeError("replace_track: old must be a track that is sent, not None")
        before = one_track(old, "replace_track()")
        after = None if new is None else one_track(new, "replace_track()")
        deadline = self._deadline(timeout)
        link = self._link
        if link is None or link.state in ("reconnecting", "leaving", "closed"):
            raise self._wrong_state("replace_track", f"not while the peer is {self.state}")
        self._start().check("replace_track")
        self._sent.replace(
            before, after, state=self.state, post=self._start().post, to=link.our_tracks
        )
        self._call(link.settled, deadline=deadline, what="replace a track")
