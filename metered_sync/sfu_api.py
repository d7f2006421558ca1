"""Make the SFU's HTTP calls for a WebRTC stack of the user's own. Needs no extra."""

from __future__ import annotations

import functools
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from metered_sync._rest import RestClient
from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.network.certificates import check_ca_file
from metered_sync.engine.sfu.calls import Calls, GateCalls, SfuCalls
from metered_sync.wire import sfu as wire
from metered_sync.wire.arguments import check_text
from metered_sync.wire.fields import FieldError, Fields
from metered_sync.wire.secrets import check_sfu_app, hides_arguments
from metered_sync.wire.urls import check_gate_url, check_origin

__all__ = ["SfuApi", "SfuMedia", "check_credentials"]

TokenGetter = Callable[[], Awaitable[str]]
SFU_URL = "https://global.sfu.metered.ca"
"""The origin of the Global SFU."""


def check_credentials(
    label: str, app_id: str | None, secret: str | None, url: str | None
) -> tuple[str, str, str]:
    """Return app id, secret and origin, taken from the environment where they are ``None``.

    Raises:
        ValueError: One is missing, or cannot be what it should be.
    """
    names = tuple(
        name if value is not None else f"METERED_SFU_{name.upper()}"
        for name, value in (("app_id", app_id), ("secret", secret))
    )
    app_id = app_id if app_id is not None else os.environ.get("METERED_SFU_APP_ID")
    secret = secret if secret is not None else os.environ.get("METERED_SFU_SECRET")
    try:
        for name, value in (("app_id", app_id), ("secret", secret)):
            if value is None or value == "":
                raise ValueError(
                    f"{label} needs {name}=… (from the service's dashboard), or "
                    f"METERED_SFU_{name.upper()} in the environment"
                )
        check_sfu_app(label, app_id, secret, names)
        given = url is not None
        if url is None:
            url = os.environ.get("METERED_SFU_URL") or SFU_URL
        origin = check_origin(url, secure="https", name="url" if given else "METERED_SFU_URL")
    except BaseException:
        app_id = secret = value = None  # no frame of the traceback shows them
        raise
    return str(app_id), str(secret), origin


class SfuMedia:
    """The way to the SFU for a room whose media go through it: ``MeteredPeer(media=SfuMedia(…))``.

    Args:
        app_id: The SFU app's id; ``METERED_SFU_APP_ID`` in the environment.
        secret: Its secret; ``METERED_SFU_SECRET``. It lets its holder use every session of the
            app: keep it on servers.
        url: The SFU's origin; ``METERED_SFU_URL``.
        gate: The address of a :class:`~metered_sync.SfuGate` instead, where the secret must not
            be: it is called with the room's own token.

    Raises:
        ValueError: One is missing, or cannot be what it should be.
    """

    __slots__ = ("calls", "url")

    @hides_arguments
    def __init__(
        self,
        *,
        app_id: str | None = None,
        secret: str | None = None,
        url: str | None = None,
        gate: str | None = None,
    ) -> None:
        self.calls: Callable[[str, TokenGetter, str | None], Calls]
        """Makes the calls: by a label, a function that returns the room's token, a ``ca_file``."""
        if gate is not None and (app_id, secret, url) != (None, None, None):
            raise ValueError("SfuMedia takes gate=, or app_id=, secret= and url=, not both")
        if gate is not None:
            origin, prefix = check_gate_url(gate, "gate")
            self.url = origin
            self.calls = lambda label, token, ca_file: GateCalls(
                label, origin, prefix, token, ca_file=ca_file
            )
        else:
            app, key, self.url = check_credentials("SfuMedia", app_id, secret, url)
            self.calls = lambda label, _, ca_file: SfuCalls(
                label, self.url, app, key, ca_file=ca_file
            )

    def __repr__(self) -> str:
        return f"<SfuMedia {self.url}>"


class SfuApi(RestClient):
    """The SFU's seven calls, each a method: what goes in and comes out is the service's JSON.

    For programs that have a WebRTC stack of their own; :class:`~metered_sync.SfuClient`
    does all of it. Only one negotiation of a session may be under way at a time: that is
    the caller's to see to. Methods may be called from any thread, and in forked children.

    **With asyncio**, call them by :func:`asyncio.to_thread`::

        made = await asyncio.to_thread(api.create_session, pc.localDescription)

    A call made on the loop's thread itself stops that loop, which has to send the first packets
    (ICE, DTLS) of the connection meanwhile: the SFU gives up waiting for them.

    A *description* is a ``{"type": …, "sdp": …}`` mapping, or anything with those
    attributes, such as aiortc's. Lists of tracks hold mappings with the service's field
    names; unknown fields are sent as they are.

    The secret belongs to the whole app and lets its holder use every session: keep it
    on servers.

    Every method takes ``timeout=``, in seconds, and raises

    - :class:`~metered_sync.SfuError` where the SFU cannot be reached, or refuses: by its
      subclasses ``SfuAuthError`` (401, 403), ``SfuNotFoundError`` (404) and
      ``SfuConflictError`` (409), with ``status``, ``endpoint`` and ``body``;
    - :class:`~metered_sync.MeteredTimeoutError` when the deadline passes;
    - ``ValueError`` where an argument lacks a field.

    Args:
        app_id: The SFU app's id; ``METERED_SFU_APP_ID`` in the environment.
        secret: Its secret; ``METERED_SFU_SECRET``.
        url: The SFU's origin, ``https://host`` (``http://`` for loopback hosts only);
            ``METERED_SFU_URL``.
        timeout: Seconds that a call may take, unless it says otherwise.
        ca_file: A file of certificates (PEM) to be trusted, as for
            :class:`~metered_sync.SignallingClient`.
    """

    @hides_arguments
    def __init__(
        self,
        app_id: str | None = None,
        secret: str | None = None,
        url: str | None = None,
        *,
        timeout: float = 15.0,
        ca_file: str | os.PathLike[str] | None = None,
    ) -> None:
        try:
            super().__init__("SfuApi", timeout)
            trusted = check_ca_file(ca_file)
            app_id, secret, self._origin = check_credentials("SfuApi", app_id, secret, url)
        except BaseException:
            app_id = secret = None  # no frame of the traceback shows them
            raise
        self._calls = SfuCalls("SfuApi", self._origin, app_id, secret, ca_file=trusted)

    def __repr__(self) -> str:
        return f"<SfuApi {self._origin}>"

    @hides_arguments
    def create_session(
        self, offer: Any, *, metadata: str | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """Make a session (``POST /session/new``).

        Args:
            offer: The first offer. It may carry tracks already, and needs at least one
                media section or data channel.
            metadata: A text that :meth:`sessions` shows.

        Returns:
            ``{"sessionId": …, "sessionDescription": …}``, the SFU's answer.
        """
        body: dict[str, Any] = {"sessionDescription": _description(offer)}
        if metadata is not None:
            body["metadata"] = metadata
        wire.NewRequest.parse(body)
        result: dict[str, Any] = self._send(wire.NEW, timeout, body=body)
        return result

    @hides_arguments
    def publish_tracks(
        self,
        session_id: str,
        tracks: Iterable[Mapping[str, Any]],
        offer: Any,
        *,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Publish tracks on a live session (``POST …/track/publish``).

        Args:
            session_id: The session that publishes.
            tracks: ``{"trackId": …, "mid": …, "customTrackName": …}`` each: the id in the
                offer's ``msid``, the transceiver's mid, and a name if it shall have one.
            offer: A new offer that carries them.

        Returns:
            ``{"sessionId": …, "sessionDescription": …}``, the SFU's answer.
        """
        body = {"tracks": _tracks(tracks), "sessionDescription": _description(offer)}
        wire.PublishRequest.parse(body)
        result: dict[str, Any] = self._send(wire.PUBLISH, timeout, session_id, body)
        return result

    def subscribe_tracks(
        self,
        session_id: str,
        tracks: Iterable[Mapping[str, Any] | wire.TrackInfo],
        *,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Ask for tracks of other sessions (``POST …/track/subscribe``).

        Args:
            session_id: The session that is to receive them.
            tracks: ``{"remoteSessionId": …, "remoteTrackId": …}`` each, or a
                :class:`~metered_sync.TrackInfo`.

        Returns:
            ``{"sessionId": …, "sessionDescription": …, "immediateRenegotiationRequired": …}``:
            an *offer* of the SFU's. Send your answer with :meth:`renegotiate`.
        """
        listed = [
            {"remoteSessionId": item.session_id, "remoteTrackId": item.track_id}
            if isinstance(item, wire.TrackInfo)
            else item
            for item in tracks
        ]
        body = {"tracks": _tracks(listed)}
        wire.SubscribeRequest.parse(body)
        result: dict[str, Any] = self._send(wire.SUBSCRIBE, timeout, session_id, body)
        return result

    @hides_arguments
    def renegotiate(
        self, session_id: str, description: Any, *, timeout: float | None = None
    ) -> Any:
        """Send a description, usually the answer to the SFU's offer (``PUT …/renegotiate``).

        Returns:
            Whatever the SFU says; ``None`` where it says nothing.
        """
        body = {"sessionDescription": _description(description)}
        wire.RenegotiateRequest.parse(body)
        return self._send(wire.RENEGOTIATE, timeout, session_id, body, kind=object)

    @hides_arguments
    def close_tracks(
        self,
        session_id: str,
        tracks: Iterable[Mapping[str, Any] | str],
        offer: Any,
        *,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """End tracks of a session (``POST …/track/close``).

        Args:
            session_id: The session that publishes, or receives, them.
            tracks: ``{"trackId": …}`` each, or the id itself.
            offer: A new offer that no longer carries them.

        Returns:
            ``{"sessionId": …, "success": …, "sessionDescription": …}``, the SFU's answer.
        """
        listed = [{"trackId": item} if isinstance(item, str) else item for item in tracks]
        body = {"tracks": _tracks(listed), "sessionDescription": _description(offer)}
        wire.CloseRequest.parse(body)
        result: dict[str, Any] = self._send(wire.CLOSE, timeout, session_id, body)
        return result

    def sessions(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """List the app's sessions (``GET /sessions``).

        Returns:
            ``{"sessionId": …, "connectionState": …, "metadata": …, "sfuAppId": …}`` each.
        """
        result: list[dict[str, Any]] = self._send(wire.SESSIONS, timeout, kind=list)
        return result

    def tracks(self, session_id: str, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """List the tracks that a session publishes (``GET /session/{id}/tracks``).

        Returns:
            ``{"trackId": …, "customTrackName": …, "mid": …, "trackKind": …, …}`` each.
        """
        result: list[dict[str, Any]] = self._send(wire.TRACKS, timeout, session_id, kind=list)
        return result

    def forward(self, endpoint: wire.Endpoint, session_id: str, body: Any) -> Any:
        """Make a call with a body of the SFU's own form; return the decoded answer."""
        return self._send(endpoint, None, session_id or None, body, kind=object)

    def close(self) -> None:
        """Close idle connections to the SFU. Calls made later open new ones."""
        self._calls.close()

    def _send(
        self,
        endpoint: wire.Endpoint,
        timeout: float | None,
        session_id: str | None = None,
        body: Any = None,
        kind: type = dict,
    ) -> Any:
        if session_id is not None:
            check_text("session_id", session_id)

        def ask(deadline: Deadline) -> Awaitable[Any]:
            parse = functools.partial(_expect, kind)
            session = session_id or ""
            return self._calls.ask(endpoint, parse, deadline, session_id=session, body=body)

        return self._cross(ask, what=f"{endpoint.method} {endpoint.route}", timeout=timeout)


def _expect(kind: type, body: object) -> object:
    if not isinstance(body, kind):
        what = "a list" if kind is list else "an object"
        raise FieldError(f"the body must be {what}")
    return body


def _description(value: Any) -> dict[str, Any]:
    if isinstance(value, (str, bytes)):
        raise TypeError(
            f"a description is needed, not its text alone ({type(value).__name__}): "
            '{"type": "offer" or "answer", "sdp": …}, or an object with these attributes'
        )
    get: Callable[[str], Any] = (
        value.get if isinstance(value, Mapping) else functools.partial(_attribute, value)
    )
    return wire.parse_description(
        Fields({"type": get("type"), "sdp": get("sdp")}, "sessionDescription")
    ).body()


def _attribute(value: Any, name: str) -> Any:
    return getattr(value, name, None)


def _tracks(tracks: Iterable[Any]) -> list[Any]:
    return [dict(item) if isinstance(item, Mapping) else item for item in tracks]
