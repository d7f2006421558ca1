"""Publish and subscribe to media through the Global Cloud SFU."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar, overload
from urllib.parse import urlsplit

from aiortc.mediastreams import MediaStreamTrack

from metered_sync.engine.deadline import Deadline
from metered_sync.engine.loop import Engine
from metered_sync.engine.sfu import Outgoing, SfuLink, SfuOptions, SfuState
from metered_sync.events import IceServer
from metered_sync.facade import Client
from metered_sync.media.sources import as_tracks
from metered_sync.media.track import RemoteTrack
from metered_sync.wire.sfu import RemoteTrackRef, SessionInfo, TrackInfo
from metered_sync.wire.urls import check_origin, is_loopback

__all__ = ["Publication", "SfuClient"]

T = TypeVar("T")
DEFAULT_URL = "https://global.sfu.metered.ca"
DEFAULT_STUN = (IceServer(("stun:stun.metered.ca:80",)),)
"""The SFU is reached directly; no TURN is needed towards it."""


class Publication:
    """A track that this client publishes."""

    def __init__(self, client: SfuClient, outgoing: Outgoing, track: MediaStreamTrack) -> None:
        self._client = client
        self._outgoing = outgoing
        self._track = track  # keeps the source alive

    def __repr__(self) -> str:
        return f"<Publication {self.kind} {self.name or self.track_id!r}>"

    @property
    def session_id(self) -> str:
        """The session that publishes it; subscribers need it."""
        return self._outgoing.session_id

    @property
    def track_id(self) -> str:
        """The track's id in that session; subscribers need it."""
        return self._outgoing.track_id

    @property
    def mid(self) -> str:
        """The media section that carries it."""
        return self._outgoing.mid

    @property
    def name(self) -> str | None:
        """The name it was given."""
        return self._outgoing.name

    @property
    def kind(self) -> str:
        """``"audio"`` or ``"video"``."""
        return self._outgoing.kind

    def close(self, *, timeout: float | None = None) -> None:
        """Stop publishing the track. Its source goes on until it is stopped. Repeatable."""
        self._client._unpublish(self, timeout)


class SfuClient(Client[SfuLink]):
    """A session with the SFU: publish tracks, and subscribe to those of others.

    ``with`` connects and closes; so do :meth:`connect` and :meth:`close`. Methods may be
    called from any thread; negotiations of one session take their turn.

    The secret belongs to the whole app and lets its holder use every session: keep it
    on servers.

    Args:
        app_id: The SFU app's id; ``METERED_SFU_APP_ID`` in the environment.
        secret: Its secret; ``METERED_SFU_SECRET``.
        url: The SFU's origin, ``https://host`` (``http://`` for loopback hosts only);
            ``METERED_SFU_URL``.
        metadata: A text that others see in :meth:`sessions`.
        timeout: Seconds that a call which acts may take, unless it says otherwise.
        ice_servers: STUN servers to find this machine's public address by. Unless given,
            the service's, or none towards a loopback host.
    """

    def __init__(
        self,
        *,
        app_id: str | None = None,
        secret: str | None = None,
        url: str | None = None,
        metadata: str | None = None,
        timeout: float = 15.0,
        ice_servers: Iterable[IceServer] | None = None,
    ) -> None:
        super().__init__("SfuClient", timeout)
        app_id = app_id if app_id is not None else os.environ.get("METERED_SFU_APP_ID")
        secret = secret if secret is not None else os.environ.get("METERED_SFU_SECRET")
        for name, value in (("app_id", app_id), ("secret", secret)):
            if not isinstance(value, str) or not value:
                raise ValueError(
                    f"SfuClient needs {name}=… (from the service's dashboard), or "
                    f"METERED_SFU_{name.upper()} in the environment"
                )
        if not str(secret).isprintable() or " " in str(secret):
            raise ValueError(
                "SfuClient: the secret contains a space or a line break; was it copied whole, "
                "and nothing but it?"
            )
        if metadata is not None and not isinstance(metadata, str):
            raise TypeError(f"metadata must be a string, not {type(metadata).__name__}")
        if url is None:
            url = os.environ.get("METERED_SFU_URL") or DEFAULT_URL
        origin = check_origin(url, secure="https")
        if ice_servers is None:
            ice_servers = () if is_loopback(urlsplit(origin).hostname) else DEFAULT_STUN
        self._options = SfuOptions(origin, str(app_id), metadata, tuple(ice_servers))
        self._secret = str(secret)

    def __repr__(self) -> str:
        session = f", session {self.session_id}" if self.session_id else ""
        return f"<SfuClient {self._options.url}: {self.state}{session}>"

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

    def _make_link(self, engine: Engine) -> SfuLink:
        return SfuLink(engine, self._hub, self._options, self._secret, self._label)

    @property
    def state(self) -> SfuState:
        """``"idle"``, ``"connecting"``, ``"connected"`` or ``"closed"``."""
        if self._link is None:
            return "closed" if self._closed else "idle"
        return self._link.state

    @property
    def session_id(self) -> str | None:
        """The session's id; ``None`` before :meth:`connect`."""
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

    def publish(self, track: Any, *, name: str | None = None, timeout: float | None = None) -> Any:
        """Publish a track, or all tracks of a source, in one round.

        Args:
            track: A track (``source.video``, or any aiortc track), or a source (an object
                with ``.tracks``, such as :func:`~metered_sync.from_file` returns).
            name: A name for subscribers to find it by. Tracks of one source share it;
                their kinds tell them apart.

        Returns:
            A :class:`Publication`; for a source a list of them, even of one.

        Raises:
            SfuError: The SFU refuses. The session is closed then: aiortc cannot take an
                offer back.
            MediaError: The source has no such track.
            MeteredTimeoutError: Not published before the deadline; the session is closed.
        """
        deadline = self._deadline(timeout)
        if name is not None and not (isinstance(name, str) and name):
            raise ValueError("name must be a non-empty string or None")
        tracks, many = as_tracks(track)
        link = self._connected("publish")
        named = [(one, name) for one in tracks]
        outgoing = self._run(link, link.publish, named, deadline=deadline, what="publish")
        publications = [
            Publication(self, out, one) for out, one in zip(outgoing, tracks, strict=True)
        ]
        return publications if many else publications[0]

    def _unpublish(self, publication: Publication, timeout: float | None) -> None:
        deadline = self._deadline(timeout)
        link = self._link
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
            MeteredTimeoutError: Not negotiated before the deadline.
        """
        deadline = self._deadline(timeout)
        many = isinstance(session_id, (list, tuple))
        wanted = [_track_info(item, track_id) for item in (session_id if many else [session_id])]
        if not wanted:
            return []
        link = self._connected("subscribe")
        refs = [RemoteTrackRef(info.session_id, info.track_id) for info in wanted]
        incoming = self._run(link, link.subscribe, refs, deadline=deadline, what="subscribe")
        tracks = [
            RemoteTrack(one, self, id=info.track_id, name=info.name, stream_id=info.session_id)
            for one, info in zip(incoming, wanted, strict=True)
        ]
        return tracks if many else tracks[0]

    def unsubscribe(self, track: RemoteTrack, *, timeout: float | None = None) -> None:
        """Stop receiving a track; its readers drain and end. Repeatable.

        Raises:
            SfuError: The SFU refuses. The session is closed then.
            MeteredTimeoutError: Not done before the deadline; the session is closed.
        """
        deadline = self._deadline(timeout)
        if not isinstance(track, RemoteTrack) or track._owner is not self:
            raise ValueError(f"{track!r} is not a track that this SfuClient subscribed to")
        link = self._connected("unsubscribe")
        if not track.ended:
            self._run(
                link,
                link.unsubscribe,
                track._incoming,
                deadline=deadline,
                what=f"unsubscribe from {track!r}",
            )

    # --- looking around ---

    def sessions(self, *, timeout: float | None = None) -> list[SessionInfo]:
        """List the app's sessions, this one included."""
        deadline = self._deadline(timeout)
        link = self._connected("sessions")
        return self._run(link, link.sessions, deadline=deadline, what="sessions")

    def tracks(self, session_id: str, *, timeout: float | None = None) -> list[TrackInfo]:
        """List the tracks that a session publishes.

        Raises:
            SfuNotFoundError: There is no such session.
        """
        deadline = self._deadline(timeout)
        if not isinstance(session_id, str) or not session_id:
            raise ValueError("session_id must be a non-empty string")
        link = self._connected("tracks")
        return self._run(link, link.tracks, session_id, deadline=deadline, what="tracks")


def _track_info(item: Any, track_id: str | None) -> TrackInfo:
    if isinstance(item, TrackInfo):
        return item
    if isinstance(item, Publication):
        return TrackInfo(item.session_id, item.track_id, item.name, item.kind, item.mid)
    if isinstance(item, str) and isinstance(track_id, str) and item and track_id:
        return TrackInfo(item, track_id, None, "")
    raise TypeError(
        "subscribe() takes a session id and a track id, or a TrackInfo, a Publication or a "
        f"list of those; got {type(item).__name__} and {type(track_id).__name__}"
    )
