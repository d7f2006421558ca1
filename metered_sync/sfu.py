"""Publish and subscribe to media through the Global Cloud SFU."""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, overload
from urllib.parse import urlsplit

from aiortc.mediastreams import MediaStreamTrack

from metered_sync._facade import Client
from metered_sync.bridge.deadline import Deadline, check_timeout
from metered_sync.bridge.event_hub import EventHub
from metered_sync.bridge.loop import Engine
from metered_sync.engine.network.certificates import check_ca_file
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.engine.sfu.calls import Calls, GateCalls, SfuCalls
from metered_sync.engine.sfu.gate_tokens import GateTokens
from metered_sync.engine.sfu.link import SfuLink
from metered_sync.engine.sfu.options import SfuOptions
from metered_sync.engine.sfu.tracks import Incoming, Outgoing
from metered_sync.engine.webrtc.encoding import check_encoding
from metered_sync.errors import MeteredTimeoutError
from metered_sync.events import IceServer, Republished, TrackEnded
from metered_sync.media.sources.base import Source, TrackSource
from metered_sync.media.tracks.given import AnyTrack, TrackLike, sendable, tracks_of
from metered_sync.media.tracks.stream import MediaStream
from metered_sync.media.tracks.track import RemoteTrack, core_of
from metered_sync.options import token_function
from metered_sync.publication import Publication
from metered_sync.sfu_api import check_credentials
from metered_sync.wire.arguments import check_choice, check_text, check_whole, shown
from metered_sync.wire.control import Token
from metered_sync.wire.key_frames import MAX_PIXELS
from metered_sync.wire.secrets import hides_arguments
from metered_sync.wire.sfu import SessionInfo, TrackInfo
from metered_sync.wire.states import SfuClientState
from metered_sync.wire.timings import DEFAULT_TIMINGS, Timings
from metered_sync.wire.turn import GivenIceServers, check_ice_servers
from metered_sync.wire.urls import check_gate_url, is_loopback

__all__ = ["SfuClient"]

T = TypeVar("T")
MAX_LISTED = 5
"""Tracks that an error lists."""
DEFAULT_STUN = (IceServer(("stun:stun.metered.ca:80",)),)
"""The default STUN server. The SFU is reached directly: no TURN is needed towards it."""


class SfuEvents:
    """The sink of an SFU link: it emits events on the client, which it holds weakly."""

    def __init__(self, client: SfuClient, hub: EventHub) -> None:
        self._client = weakref.ref(client)
        self.emit, self.end = hub.emit, hub.end

    def republished(self, publication: Publication, session_id: str, track_id: str) -> None:
        self.emit(Republished(publication, session_id, track_id))

    def unpublished(self, publication: Publication) -> None:
        client = self._client()
        if client is not None:
            client._publications.discard(publication)

    def track_ended(self, incoming: Incoming) -> None:
        client = self._client()
        if client is not None:
            ended = TrackEnded(client._track(incoming))
            incoming.hub.emit(ended)
            self.emit(ended)


class SfuClient(Client[SfuLink]):
    """A session with the SFU: publish tracks, and subscribe to those of others.

    ``with`` connects and closes; so do :meth:`connect` and :meth:`close`. Methods may be
    called from any thread; negotiations of one session take their turn.

    **Recovery.** Where the connection fails, or the SFU forgets the session, a new one is
    made: ``state`` is ``"reconnecting"`` meanwhile, and an :class:`~metered_sync.Outage`
    event tells when it is over. What was published is published again, by new ids (a
    :class:`~metered_sync.Republished` event each); what was subscribed to is subscribed to
    again, by its name where its publisher has got new ids, too. Sources go on, readers see
    a pause. Calls made meanwhile wait. After two minutes in vain everything ends with the
    reason. ``recover=False``: it ends with the first loss.

    **Sources** stay their users': they go on when a publication or the client is closed, and may
    be published again, or at the same time by other clients and in rooms. One that has ended is
    unpublished by itself. A subscription whose publisher closes the track ends, and a
    :class:`~metered_sync.TrackEnded` event tells.

    The secret belongs to the whole app and lets its holder use every session: keep it
    on servers.

    Args:
        app_id: The SFU app's id; ``METERED_SFU_APP_ID`` in the environment.
        secret: Its secret; ``METERED_SFU_SECRET``.
        url: The SFU's origin, ``https://host`` (``http://`` for loopback hosts only);
            ``METERED_SFU_URL``.
        token_provider: Instead of app id and secret, where the secret must not be: a function
            that returns a room's token, or such a token. Then ``url`` is the address of an
            :class:`~metered_sync.SfuGate`, and may have a path.
        metadata: A text that others see in :meth:`sessions`.
        timeout: Seconds that a call which acts may take, unless it says otherwise.
        ice_servers: STUN servers to find this machine's public address by, in any form that
            ``MeteredPeer`` takes them in. Unless given, the service's, or none towards a loopback
            host.
        gather_timeout: Seconds to wait for those servers' answers, in each negotiation
            at most; what is known by then goes out.
        recover: Whether a session that is lost is made again.
        max_pixels: The area of the pictures that are decoded, width times height: larger ones
            are dropped, and the log says so once.
        ca_file: A file of certificates (PEM) to be trusted, as for
            :class:`~metered_sync.SignallingClient`.
    """

    _emitter = "SfuClient"

    @hides_arguments
    def __init__(
        self,
        *,
        app_id: str | None = None,
        secret: str | None = None,
        url: str | None = None,
        token_provider: Callable[[], str | Token] | Token | str | None = None,
        metadata: str | None = None,
        timeout: float = 15.0,
        ice_servers: GivenIceServers | None = None,
        gather_timeout: float = DEFAULT_TIMINGS.gather,
        recover: bool = True,
        max_pixels: int = MAX_PIXELS,
        ca_file: str | os.PathLike[str] | None = None,
        _timings: Timings = DEFAULT_TIMINGS,
    ) -> None:
        super().__init__("SfuClient", timeout)
        trusted = check_ca_file(ca_file)
        self._make_calls: Callable[[], Calls]
        try:
            if token_provider is not None:
                if (app_id, secret) != (None, None):
                    raise ValueError("SfuClient takes app_id and secret, or token_provider")
                origin = self._use_gate(token_provider, url, trusted)
            else:
                app, key, origin = check_credentials("SfuClient", app_id, secret, url)
                self._make_calls = functools.partial(
                    SfuCalls, "SfuClient", origin, app, key, ca_file=trusted
                )
                del key
            if ice_servers is None:
                ice_servers = () if is_loopback(urlsplit(origin).hostname) else DEFAULT_STUN
            servers = check_ice_servers(ice_servers)
        finally:
            del app_id, secret, token_provider, ice_servers  # no frame of a traceback shows them
        if metadata is not None and not isinstance(metadata, str):
            raise TypeError(f"metadata must be a string, not {type(metadata).__name__}")
        if not isinstance(recover, bool):
            raise TypeError(f"recover must be True or False, not {shown(recover)}")
        gather = check_timeout("gather_timeout", gather_timeout)
        self._options = SfuOptions(
            origin,
            metadata,
            servers,
            gather,
            recover,
            check_whole("max_pixels", max_pixels, 1, unit="pixels"),
            trusted,
        )
        self._url = origin
        self._timings = _timings
        self._publications: set[Publication] = set()
        """Publications, held for the events about them as long as they are published."""

    def _use_gate(
        self,
        token_provider: Callable[[], str | Token] | Token | str,
        url: str | None,
        ca_file: str | None,
    ) -> str:
        """Make the calls at a gate; return its origin."""
        address = url or os.environ.get("METERED_SFU_URL")
        if address is None:
            raise ValueError("SfuClient with token_provider needs url=…, the gate's address")
        origin, prefix = check_gate_url(address)
        try:
            provider = token_function("SfuClient", token_provider)
        finally:
            del token_provider  # no frame of a traceback shows it

        def make() -> GateCalls:
            tokens = GateTokens("SfuClient", provider)
            return GateCalls("SfuClient", origin, prefix, tokens.token, ca_file=ca_file)

        self._make_calls = make
        return origin

    def __repr__(self) -> str:
        session = f", session {self.session_id}" if self.session_id else ""
        return f"<SfuClient {self._url}: {self.state}{session}>"

    # --- life ---

    def connect(self, *, timeout: float | None = None) -> None:
        """Open a session, and return when media can flow. Returns at once if connected.

        Raises:
            SfuAuthError: Wrong app id or secret.
            SfuError: The SFU cannot be reached, or refuses.
            NegotiationFailedError: No media connection; ``stage`` says how far it came.
            MeteredTimeoutError: Not connected before the deadline.
            ClosedError: The client was closed; make a new one.
        """
        deadline = self._deadline(timeout)
        link = self._link_to_open()
        self._run(link, link.connect, deadline=deadline, what="connect")

    def _enter(self) -> None:
        self.connect()

    def _make_link(self, engine: Engine) -> SfuLink:
        return SfuLink(
            engine,
            SfuEvents(self, self._hub),
            self._options,
            self._make_calls(),
            self._label,
            self._timings,
        )

    @property
    def state(self) -> SfuClientState:
        """``"idle"``, ``"connecting"``, ``"connected"``, ``"reconnecting"`` or ``"closed"``."""
        if self._link is None:
            return "closed" if self._closed else "idle"
        return self._link.state

    @property
    def session_id(self) -> str | None:
        """The session's id; ``None`` before :meth:`connect`, another one after a recovery."""
        return self._link.session_id if self._link is not None else None

    def _run(
        self,
        link: SfuLink,
        operation: Callable[..., Awaitable[T]],
        *args: Any,
        deadline: Deadline,
        what: str,
    ) -> T:
        """Run one of the link's operations and wait for it."""
        result: T = self._call(
            link.run,
            operation,
            *args,
            deadline,
            deadline=deadline,
            what=what,
            progress=link.progress,
        )
        return result

    # --- publishing ---

    @overload
    def publish(
        self,
        track: MediaStreamTrack | RemoteTrack | TrackSource[Any, Any] | None,
        *,
        name: str | None = None,
        video_bitrate: float | None = None,
        max_framerate: float | None = None,
        codec: str | None = None,
        timeout: float | None = None,
    ) -> Publication: ...
    @overload
    def publish(
        self,
        track: Source | MediaStream | Sequence[TrackLike],
        *,
        name: str | None = None,
        video_bitrate: float | None = None,
        max_framerate: float | None = None,
        codec: str | None = None,
        timeout: float | None = None,
    ) -> list[Publication]: ...
    def publish(
        self,
        track: Any,
        *,
        name: str | None = None,
        video_bitrate: float | None = None,
        max_framerate: float | None = None,
        codec: str | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Publish a track, or several in one round, until its source ends.

        Args:
            track: A track (``source.video``, any aiortc track, or a :class:`RemoteTrack`, which
                is decoded here and encoded again), a source, anything else with ``.tracks``, or a
                list of these. It may be published already, or be sent to a room: then it is
                read once, and encoded once where the options below are the same.
            name: A name for subscribers to find it by. Tracks of one call share it;
                their kinds tell them apart.
            video_bitrate: Bits per second to encode at, whatever the SFU reports. Unless
                given, that follows its reports, between 250 and 1500 kbit/s for VP8.
            max_framerate: Frames per second to send at most; others are left out.
            codec: The codec to prefer: ``"vp8"`` or ``"h264"``; ``"opus"``, ``"g722"``,
                ``"pcmu"`` or ``"pcma"``. Another one is used where the SFU lacks it.

        Returns:
            A :class:`Publication`, for a source that has one track by its nature
            (:class:`AudioSource`, :class:`VideoSource`), too; for one that may have several
            (:func:`~metered_sync.from_file`) and for a list a list of them, even of one.

        Raises:
            SfuError: The SFU refuses. aiortc cannot take an offer back, so the session is
                made anew (with ``recover=False``: closed).
            MediaError: The source has no such track, or the track has ended; or the SFU takes none
                of its codecs. Then none of a list is published, and the session goes on.
            TypeError: Something that is neither a track nor has any.
            ValueError: An option makes no sense; an unknown codec's error names those
                that are available.
            MeteredTimeoutError: Not published before the deadline; as for ``SfuError``.
        """
        deadline = self._deadline(timeout)
        if name is not None:
            check_text("name", name)
        many = isinstance(track, (list, tuple))
        tracks: list[AnyTrack] = []
        for one in track if many else [track]:
            found, several = tracks_of(one)
            tracks += found
            many = many or several
        encodings = check_encoding(
            {one.kind for one in tracks}, video_bitrate, max_framerate, codec
        )
        link = self._connected("publish")
        outgoing = [
            Outgoing(LocalTrack(sendable(one), encoding=encodings[one.kind]), name)
            for one in tracks
        ]
        publications = [
            Publication(self, one, track) for one, track in zip(outgoing, tracks, strict=True)
        ]
        try:
            if outgoing:
                self._run(link, link.publish, outgoing, deadline=deadline, what="publish")
            self._publications.update(publications)
            for publication in publications:
                if publication._outgoing.closed:  # its source has ended just now
                    self._publications.discard(publication)
            return publications if many else publications[0]
        except BaseException:  # Ctrl-C may come when all is done: then nobody has what is published
            self._publications.difference_update(publications)
            link.drop(outgoing)
            raise

    def _unpublish(self, publication: Publication, timeout: float | None) -> None:
        deadline = self._deadline(timeout)
        link = self._link
        self._publications.discard(publication)
        if link is None or link.error is not None or publication._outgoing.closed:
            return
        self._run(
            link,
            link.unpublish,
            publication._outgoing,
            deadline=deadline,
            what=f"close {publication!r}",
        )

    # --- subscribing ---

    @overload
    def subscribe(
        self,
        session_id: str | TrackInfo | Publication,
        track_id: str | None = None,
        *,
        timeout: float | None = None,
    ) -> RemoteTrack: ...
    @overload
    def subscribe(
        self, session_id: Sequence[TrackInfo | Publication], *, timeout: float | None = None
    ) -> list[RemoteTrack]: ...
    def subscribe(
        self, session_id: Any, track_id: str | None = None, *, timeout: float | None = None
    ) -> Any:
        """Receive a track that any session of the app publishes.

        Args:
            session_id: The publisher's session id, together with ``track_id``; or a
                :class:`TrackInfo` or :class:`Publication`; or a list of those, which is
                subscribed to in one round.
            track_id: The track's id in that session.

        Returns:
            A :class:`RemoteTrack`; for a list, a list in the same order.

        Raises:
            SfuNotFoundError: There is no such session or track.
            SfuError: The SFU refuses.
            NegotiationFailedError: What the SFU offers cannot be used.
            MediaError: A track is sent in a codec that cannot be decoded here; the error names it.
                Of a list no track is received then.
            MeteredTimeoutError: Not negotiated before the deadline.
        """
        deadline = self._deadline(timeout)
        many = isinstance(session_id, (list, tuple))
        wanted = [_track_info(item, track_id) for item in (session_id if many else [session_id])]
        if not wanted:
            return []
        link = self._connected("subscribe")
        incoming = [Incoming(info, self._options.max_pixels) for info in wanted]
        try:
            self._run(link, link.subscribe, incoming, deadline=deadline, what="subscribe")
            tracks = [self._track(one) for one in incoming]
            return tracks if many else tracks[0]
        except BaseException:  # as in publish()
            link.drop(incoming)
            raise

    def _track(self, incoming: Incoming) -> RemoteTrack:
        """Return the one object for a track."""
        # (It is held weakly: the engine must not keep the client alive.)
        track: RemoteTrack = incoming.handle.get(lambda: RemoteTrack(incoming, self))
        return track

    def _close_track(self, track: RemoteTrack, timeout: float | None) -> None:
        self.unsubscribe(track, timeout=timeout)

    def unsubscribe(self, track: RemoteTrack, *, timeout: float | None = None) -> None:
        """Stop receiving a track; its readers drain and end. Repeatable.

        Raises:
            SfuError: The SFU refuses. The session is made anew then, without the track
                (with ``recover=False``: closed).
            MeteredTimeoutError: Not done before the deadline; as for ``SfuError``.
        """
        deadline = self._deadline(timeout)
        if not isinstance(track, RemoteTrack) or core_of(track).owner is not self:
            raise ValueError(f"{shown(track)} is not a track that this SfuClient subscribed to")
        link = self._connected("unsubscribe")
        link.check()
        if not track.ended:
            self._run(
                link,
                link.unsubscribe,
                core_of(track).incoming,
                deadline=deadline,
                what=f"unsubscribe from {track!r}",
            )

    # --- looking around ---

    def sessions(self, *, timeout: float | None = None) -> list[SessionInfo]:
        """List the app's sessions, this one included."""
        deadline = self._deadline(timeout)
        link = self._connected("sessions")
        return self._run(link, link.directory.sessions, deadline=deadline, what="sessions")

    def tracks(self, session_id: str, *, timeout: float | None = None) -> list[TrackInfo]:
        """List the tracks that a session publishes.

        Raises:
            SfuNotFoundError: There is no such session.
        """
        deadline = self._deadline(timeout)
        check_text("session_id", session_id)
        link = self._connected("tracks")
        return self._run(link, link.directory.tracks, session_id, deadline=deadline, what="tracks")

    def wait_for_track(
        self,
        session_id: str | None = None,
        *,
        name: str | None = None,
        kind: str | None = None,
        timeout: float | None = None,
    ) -> TrackInfo:
        """Wait until a track is published, and return it, to be subscribed to.

        Looks through the sessions, the newest first, again and again: 20 requests a second
        at most. This client's own tracks come last, and only with a name or a session id.

        Args:
            session_id: The publisher's session; ``None``: any session of the app.
            name: The name it must have.
            kind: ``"audio"`` or ``"video"``, where it matters.
            timeout: Seconds to wait; ``None`` waits for the track, close or Ctrl-C.

        Raises:
            SfuNotFoundError: There is no session ``session_id``.
            SfuError: The SFU cannot be reached, or refuses.
            MeteredTimeoutError: No such track came in time.
        """
        deadline = Deadline.of(timeout)
        for what, value in (("session_id", session_id), ("name", name)):
            if value is not None:
                check_text(what, value)
        check_choice("kind", kind, ("audio", "video", None))
        link = self._connected("wait_for_track")
        wanted = {"session_id": session_id, "name": name, "kind": kind}
        given = ", ".join(f"{key}={value!r}" for key, value in wanted.items() if value)
        what = f"wait_for_track({given})"
        others: list[TrackInfo] = []

        def seen(tracks: Sequence[TrackInfo]) -> None:
            others[:] = tracks

        try:
            found: TrackInfo = self._call(
                link.run,
                link.wait_for_track,
                session_id,
                name,
                kind,
                seen,
                deadline,
                deadline=deadline,
                what=what,
            )
        except MeteredTimeoutError as error:
            there = ", ".join(
                f"{one.kind or 'a track'} {one.name or one.track_id!r} of session {one.session_id}"
                for one in others[:MAX_LISTED]
            )
            more = f" and {len(others) - MAX_LISTED} more" if len(others) > MAX_LISTED else ""
            raise MeteredTimeoutError(
                f"{self._label}: {what}: no such track within {deadline}; published are "
                f"{there or 'no others'}{more}",
                sent=error.sent,
            ) from None
        return found

    def stats(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return counts of all that was sent and received, over all sessions this client had.

        Returns:
            ``state``, ``session_id``, ``recoveries``, ``round_trip_time`` (seconds, to the
            SFU and back; ``None`` until the SFU has reported on something published);
            ``paths``, each the kinds of the ``local`` and ``remote`` ICE candidate in use;
            ``publications``, each with ``bytes_sent`` (payload), ``packets_sent``,
            ``packets_lost`` and ``round_trip_time`` (as the SFU reports them),
            ``frames_sent``, ``bitrate`` (bits per second of the last two seconds), ``kind``,
            ``id``, ``name``; and ``subscriptions``, each as :meth:`RemoteTrack.stats`.
        """
        deadline = self._deadline(timeout)
        link = self._connected("stats")
        return self._run(link, link.stats, deadline=deadline, what="stats")


def _track_info(item: Any, track_id: str | None) -> TrackInfo:
    if isinstance(item, TrackInfo):
        return item
    if isinstance(item, Publication):
        return item._outgoing.info()
    if isinstance(item, str) and isinstance(track_id, str) and item and track_id:
        return TrackInfo(item, track_id, None, "")
    raise TypeError(
        "subscribe() takes a session id and a track id, or a TrackInfo, a Publication or a "
        f"list of those; got {type(item).__name__} and {type(track_id).__name__}"
    )
