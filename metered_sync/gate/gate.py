"""Check a call to the SFU and the token it comes with, forward it, and answer.

Source: docs/protocol/sfu.md#the-http-api for the calls, docs/gate.md for what is checked.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from metered_sync.bridge.clock import monotonic
from metered_sync.errors import MeteredTimeoutError, SfuError
from metered_sync.gate.descriptions import SendingRefusedError, receive_only
from metered_sync.gate.tickets import Tickets
from metered_sync.gate.wsgi import MAX_READ, wsgi_application
from metered_sync.sfu_api import SfuApi, check_credentials
from metered_sync.tokens import as_texts
from metered_sync.wire import sdp, tokens
from metered_sync.wire import sfu as wire
from metered_sync.wire.arguments import shown
from metered_sync.wire.fields import FieldError
from metered_sync.wire.json_codec import encode
from metered_sync.wire.limits import ACTIONS
from metered_sync.wire.secrets import check_key_pair, hides_arguments

__all__ = ["SfuGate"]

logger = logging.getLogger("metered_sync")
MAX_BODY = MAX_READ
"""Bytes of a call's body."""
CALLS_PER_SECOND = 10.0
"""Calls of one peer id that are forwarded in the long run, in each process."""
CALL_BURST = 60.0
"""Calls of one peer id that may come at once."""
MAX_COUNTED = 10_000
"""Peer ids whose calls are counted; of more, those that have been quiet for longest are not."""

_SESSION = r"/session/([A-Za-z0-9._~-]{1,2048})"
_ROUTES: tuple[tuple[str, re.Pattern[str], wire.Endpoint], ...] = (
    ("POST", re.compile(r"/session/new"), wire.NEW),
    ("POST", re.compile(_SESSION + "/track/publish"), wire.PUBLISH),
    ("POST", re.compile(_SESSION + "/track/subscribe"), wire.SUBSCRIBE),
    ("PUT", re.compile(_SESSION + "/renegotiate"), wire.RENEGOTIATE),
    ("POST", re.compile(_SESSION + "/track/close"), wire.CLOSE),
    ("GET", re.compile(r"/sessions"), wire.SESSIONS),
    ("GET", re.compile(_SESSION + "/tracks"), wire.TRACKS),
)
_REQUESTS: dict[wire.Endpoint, Any] = {
    wire.NEW: wire.NewRequest,
    wire.PUBLISH: wire.PublishRequest,
    wire.SUBSCRIBE: wire.SubscribeRequest,
    wire.RENEGOTIATE: wire.RenegotiateRequest,
    wire.CLOSE: wire.CloseRequest,
}
_CORS = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type",
    "Access-Control-Max-Age": "600",
}
Answer = tuple[int, dict[str, str], bytes]


class _RefusedError(Exception):
    """A call is answered with an error of the gate's own."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = dict(headers or {})


def _unauthorized(code: str, message: str) -> _RefusedError:
    return _RefusedError(401, code, message, {"WWW-Authenticate": "Bearer"})


class SfuGate:
    """Forward the SFU's calls for those who may not hold its secret, such as browsers.

    It runs on the application's server and takes the room's own tokens, as
    :func:`~metered_sync.mint_token` makes them: a call comes with ``Authorization: Bearer
    <token>``. Publishing needs the permission *publish*. Only who has made a session may change
    it, and nobody lists them all. See ``docs/gate.md``.

    ``gate.wsgi`` is a WSGI application; :meth:`handle` is for every other framework. Safe to use
    from many threads, and in forked children.

    Args:
        app_id: The SFU app's id; ``METERED_SFU_APP_ID`` in the environment.
        secret: Its secret; ``METERED_SFU_SECRET``. It never leaves this process, but to the SFU.
        keys: The secret keys that sign the tokens: ``{"sk_id_…": "sk_secret_…"}``.
        url: The SFU's origin; ``METERED_SFU_URL``.
        origins: Origins of pages that may use the gate from elsewhere (``https://app.example``).
        default_permissions: The permissions of tokens that name none.
        timeout: Seconds that the SFU may take to answer.

    Raises:
        ValueError: A bad argument.
    """

    @hides_arguments
    def __init__(
        self,
        app_id: str | None = None,
        secret: str | None = None,
        keys: Mapping[str, str] | None = None,
        *,
        url: str | None = None,
        origins: Iterable[str] = (),
        default_permissions: Iterable[str] = ACTIONS,
        timeout: float = 15.0,
    ) -> None:
        app_id, secret, origin = check_credentials("SfuGate", app_id, secret, url)
        self._api = SfuApi(app_id, secret, origin, timeout=timeout)
        self._tickets = Tickets(secret)
        if not keys or not isinstance(keys, Mapping):
            raise ValueError('SfuGate needs keys={"sk_id_…": "sk_secret_…"}: who signs tokens')
        for key_id, key_secret in keys.items():
            check_key_pair("SfuGate", key_id, key_secret)
        held = dict(keys)
        self._claims: Callable[[str], tokens.Claims] = lambda token: tokens.parse_claims(
            token, held[tokens.key_id(token)]
        )
        self._origins = frozenset(_origin(one) for one in as_texts("origins", origins) or ())
        names = as_texts("default_permissions", default_permissions) or ()
        self._permissions = frozenset(names)
        unknown = self._permissions - set(ACTIONS)
        if unknown:
            raise ValueError(
                f"default_permissions has {shown(sorted(unknown))}; known are {', '.join(ACTIONS)}"
            )
        self._url = origin
        self._rates = _Rates()
        self.wsgi = wsgi_application(self.handle)
        """The gate as a WSGI application; mount it wherever its address is to be."""

    def __repr__(self) -> str:
        return f"<SfuGate to {self._url}>"

    def close(self) -> None:
        """Close idle connections to the SFU. Calls made later open new ones."""
        self._api.close()

    @hides_arguments
    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer one call.

        Args:
            method: The HTTP method.
            path: The path below the gate's address, decoded and without a query, such as
                ``"/session/new"``.
            headers: The request's headers; their case does not matter.
            body: The request's body.

        Returns:
            Status, headers and body of the answer. Never raises for what a caller sends.
        """
        given = {name.lower(): value for name, value in headers.items()}
        answered: dict[str, str] = {}
        try:
            answered |= self._cors(given)
            if method == "OPTIONS":
                return 204, answered | _CORS, b""
            status, content = self._answer(method, path, given, body)
        except _RefusedError as error:
            status, content = error.status, {"error": error.code, "message": error.message}
            answered |= error.headers
        answered |= {"Content-Type": "application/json", "Cache-Control": "no-store"}
        return status, answered, json.dumps(content).encode()

    def _cors(self, headers: Mapping[str, str]) -> dict[str, str]:
        origin = headers.get("origin")
        if origin is None:
            return {}
        if origin in self._origins:
            return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
        if origin != "null" and urlsplit(origin).netloc == headers.get("host"):
            return {}
        raise _RefusedError(403, "origin_not_allowed", "pages of this origin may not use the gate")

    def _answer(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Any]:
        endpoint, session_id = _route(method, path)
        claims = self._check_token(headers.get("authorization", ""))
        wait = self._rates.take(claims.peer_id, monotonic())
        if wait:
            raise _RefusedError(
                429, "too_many_calls", "call less often", {"Retry-After": str(int(wait) + 1)}
            )
        if endpoint is wire.SESSIONS:
            raise _RefusedError(403, "not_listed", "the gate does not list sessions")
        permissions = self._permissions if claims.permissions is None else claims.permissions
        may_publish = "publish" in permissions
        if endpoint is wire.PUBLISH and not may_publish:
            raise _RefusedError(403, "publish_not_permitted", "the token may not publish")
        if endpoint not in (wire.NEW, wire.TRACKS):
            self._check_ticket(session_id, claims.peer_id)
        content = None if endpoint is wire.TRACKS else _content(endpoint, body, may_publish)
        return self._forward(endpoint, wire.plain_session_id(session_id), content, claims)

    def _check_ticket(self, session_id: str, peer_id: str) -> None:
        until = self._tickets.expiry(session_id, peer_id)
        if until is None:
            raise _RefusedError(
                403, "not_your_session", "only who made a session may change it, with its ticket"
            )
        if until <= time.time():
            raise _RefusedError(403, wire.TICKET_EXPIRED, "make a new session: its ticket expired")

    def _check_token(self, authorization: str) -> tokens.Claims:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise _unauthorized("no_token", "send Authorization: Bearer <token>")
        try:
            claims = self._claims(token.strip())
            if claims.expires_at <= time.time():
                raise ValueError("expired")
        except (ValueError, KeyError) as error:
            what = "has expired" if str(error) == "expired" else "is not valid here"
            raise _unauthorized("invalid_token", f"the token {what}") from None
        return claims

    def _forward(
        self,
        endpoint: wire.Endpoint,
        session_id: str,
        content: Any,
        claims: tokens.Claims,
    ) -> tuple[int, Any]:
        try:
            answer = self._api.forward(endpoint, session_id, content)
        except MeteredTimeoutError:
            raise _RefusedError(504, "sfu_timeout", "the SFU did not answer in time") from None
        except SfuError as error:
            raise self._refusal(error) from None
        if endpoint is wire.NEW:
            try:
                made = wire.Negotiated.parse(answer).session_id
            except FieldError:
                raise _RefusedError(502, "sfu_unusable", "the SFU's answer is of no use") from None
            ticketed = self._tickets.issue(made, claims.peer_id, claims.expires_at)
            answer = {**answer, "sessionId": ticketed}
        return 200, answer

    def _refusal(self, error: SfuError) -> _RefusedError:
        if error.status in (401, 403):
            logger.error("SfuGate: the SFU refuses the gate itself: %s", error)
            return _RefusedError(502, "gate_refused", "the SFU refuses the gate")
        if error.status is None or error.status >= 500:
            logger.warning("SfuGate: %s", error)
            return _RefusedError(502, "sfu_unreachable", "the SFU cannot be reached")
        codes = {400: "bad_request", 404: "not_found", 409: "conflict", 429: "too_many_calls"}
        code = codes.get(error.status, "refused")
        return _RefusedError(error.status, code, f"the SFU refuses the call ({error.status})")


def _route(method: str, path: str) -> tuple[wire.Endpoint, str]:
    allowed = []
    for allowed_method, pattern, endpoint in _ROUTES:
        found = pattern.fullmatch(path)
        if found is not None:
            if method == allowed_method:
                return endpoint, found[1] if found.groups() else ""
            allowed.append(allowed_method)
    if allowed:
        raise _RefusedError(
            405, "method_not_allowed", "no such method here", {"Allow": ", ".join(allowed)}
        )
    raise _RefusedError(404, "not_found", "no such call")


def _content(endpoint: wire.Endpoint, body: bytes, may_publish: bool) -> Any:
    """Return the body to forward: what has been read of the caller's, and nothing else."""
    if len(body) > MAX_BODY:
        raise _RefusedError(413, "too_large", f"a call has {MAX_BODY} bytes at most")
    try:
        request = _REQUESTS[endpoint].parse(json.loads(body))
        if endpoint is not wire.SUBSCRIBE:
            text = request.description.sdp
            sdp.parse(text)
            if not may_publish:
                text = receive_only(text)
            request = replace(request, description=replace(request.description, sdp=text))
        content = request.body()
        encode(content).encode()
        return content
    except SendingRefusedError:
        raise _RefusedError(403, "publish_not_permitted", "the token may not publish") from None
    except (FieldError, sdp.SdpError) as error:
        raise _RefusedError(400, "bad_request", f"the body is of no use: {error}") from None
    except (ValueError, RecursionError):
        raise _RefusedError(400, "bad_request", "the body is not JSON") from None


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
        raise ValueError(
            f"origins holds scheme and host, like https://app.example, not {shown(text)}"
        )
    return f"{parts.scheme}://{parts.netloc}"


class _Rates:
    """The calls that each peer has left at present."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what is left, for all threads that serve
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, peer_id: str, now: float) -> float:
        """Take one call; return 0, or the seconds until there is one again."""
        with self._lock:
            left, at = self._left.get(peer_id, (CALL_BURST, now))
            left = min(left + (now - at) * CALLS_PER_SECOND, CALL_BURST)
            wait = max(1 - left, 0) / CALLS_PER_SECOND
            self._left[peer_id] = (left if wait else left - 1, now)
            self._left.move_to_end(peer_id)
            while len(self._left) > MAX_COUNTED:
                self._left.popitem(last=False)
            return wait
