"""Make an HTTP call, over ``requests`` on daemon threads of our own.

The SFU, the control plane and TURN all go through :meth:`Http.fetch`. It is a
coroutine, although what it does blocks: on the engine's loop, a call's deadline and
Ctrl-C cancel it like anything else, and between two attempts no thread waits.

A request that has been sent cannot be recalled: when its caller gives up, it is
abandoned, and its late answer is discarded. Failures are told without secrets: what
the third party raised carries URLs and headers, so only its scrubbed text is the cause
of what is raised here.

``requests`` does not promise that threads may share a ``Session``. A request takes
an idle one for itself, or makes one, and gives it back at its end: so each thread
has its own, abandoned requests keep theirs, and connections are used again.
"""

from __future__ import annotations

import functools
import json as json_module
import logging
import math
import re
import ssl
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import anyio
import requests
import requests.auth
import urllib3.exceptions

from metered_sync.bridge import guard
from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.workers import run_in_worker
from metered_sync.engine.http_session import give_up_at, new_session
from metered_sync.engine.logs import scrub_loggers
from metered_sync.engine.network.retry_after import retry_after
from metered_sync.engine.network.route import Route
from metered_sync.wire.json_codec import encode
from metered_sync.wire.secrets import scrub, scrubbed_cause

__all__ = ["Answer", "Http", "HttpError"]

MAX_ANSWER = 4 << 20
"""Bytes of an answer's body that are read; no answer of these services comes near."""
MAX_EXCERPT = 500
"""Characters of an answer that is not JSON which an error shows."""
ATTEMPTS = 4
"""Attempts in all that one call may take."""
FIRST_RETRY_DELAY = 0.25
"""Seconds between the first attempt and the second; it doubles from then on."""
MAX_RETRY_DELAY = 60.0
"""Seconds; a server that asks for more is not waited for."""
ABANDONED_GRACE = 1.0
"""Seconds after its caller's deadline at which an abandoned request gives up, too."""
RETRIED_STATUSES = (429, 500, 502, 503, 504)
"""Statuses after which a safe call is tried again."""
MAX_IDLE_TIME = 30.0
"""Seconds that an idle connection is kept: less than firewalls and most servers allow."""
MAX_IDLE_SESSIONS = 8
"""Idle connections that one object keeps."""

logger = logging.getLogger("metered_sync")
scrub_loggers("urllib3", "requests")


class HttpError(Exception):
    """No answer to a request arrived."""

    def __init__(self, message: str, *, sent: bool = True, final: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        """Whether the request may have reached the server."""
        self.final = final
        """Whether another attempt would fail alike: a certificate, a proxy's password."""


@dataclass(frozen=True)
class Answer:
    """A server's answer: its status and its decoded body."""

    status: int
    body: Any
    """The parsed JSON; an excerpt of the text where it is none; ``None`` where it is empty."""
    retry_after: float = 0.0
    """Seconds the server asks to wait, or 0."""

    @property
    def ok(self) -> bool:
        """Return whether the status is 2xx."""
        return 200 <= self.status < 300


class _Credential(requests.auth.AuthBase):
    """Puts the secret into a request at the last moment: no path, header or log has it before.

    (An Authorization header passed to ``requests`` would give way to a ``.netrc`` entry,
    besides.)
    """

    def __init__(self, secret: str, parameter: str | None) -> None:
        self._secret = secret
        self._parameter = parameter
        # A bearer may be a pair, of which the second half is the secret one.
        forms = {secret, quote(secret), quote(secret, safe=""), secret.rpartition(":")[2]}
        self._forms = [form for form in forms if len(form) >= 8]

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._parameter is None:
            request.headers["Authorization"] = f"Bearer {self._secret}"
        else:
            request.prepare_url(request.url, {self._parameter: self._secret})
        return request

    def hide(self, text: str) -> str:
        """Return a text with the secret cut out."""
        for form in self._forms:
            text = text.replace(form, "…")
        return text


class Http:
    """Requests to one origin with one secret, for any number of threads and forked children.

    Args:
        origin: Scheme, host and port.
        secret: Sent as a bearer token,
        parameter: or as this parameter of the query.
        ca_file: The certificates that are trusted; else the environment's.
    """

    def __init__(
        self,
        origin: str,
        secret: str,
        *,
        parameter: str | None = None,
        ca_file: str | None = None,
    ) -> None:
        self._origin = origin
        self._auth = _Credential(secret, parameter)
        self._ca_file = ca_file
        self._closed = False
        self._born = guard.generation()
        # When each was last used, and the session: newest last. (A deque needs no lock.)
        self._idle: deque[tuple[float, requests.Session]] = deque()
        weakref.finalize(self, _close, self._idle).atexit = False

    def hide(self, text: str) -> str:
        """Return a text with the secret cut out."""
        return self._auth.hide(text)

    def close(self) -> None:
        """Close idle connections. Those in use close with their request."""
        self._closed = True
        _close(self._idle)

    def _take(self) -> requests.Session:
        if self._born != guard.generation():  # these connections are the parent's
            _close(self._idle)
            self._born = guard.generation()
        try:
            used, session = self._idle.pop()
        except IndexError:
            session = new_session()  # proxies and certificates are chosen here
        else:
            if monotonic() - used > MAX_IDLE_TIME:
                session.close()  # its connection; the next request makes another
                _close(self._idle)  # which were idle for longer
        return session

    def _give_back(self, session: requests.Session) -> None:
        self._idle.append((monotonic(), session))
        _close(self._idle, keep=0 if self._closed else MAX_IDLE_SESSIONS)

    async def fetch(
        self, method: str, path: str, *, json: Any = None, deadline: Deadline, safe: bool = False
    ) -> Answer:
        """Send a request and return its answer, whatever its status.

        It is tried again, with backoff, where it never left; and after other failures,
        429 and 5xx if it is ``safe``. The server's ``Retry-After`` is kept to. Where
        the deadline leaves no time for that, the last answer or failure stands.

        Args:
            path: The path, with a query where there is one, and without the secret.
            json: The body.
            deadline: Bounds the whole call; the caller cancels it, this bounds the thread.
            safe: Whether it may be carried out twice.

        Raises:
            HttpError: No answer arrived; the text says why, without secrets.
        """
        data = None if json is None else encode(json).encode()
        delay = FIRST_RETRY_DELAY
        for attempt in range(1, ATTEMPTS + 1):
            last = attempt == ATTEMPTS
            wait = delay
            try:
                answer = await run_in_worker(self._send, method, path, data, deadline)
            except HttpError as failure:
                if last or failure.final or (failure.sent and not safe):
                    raise
                if wait >= deadline.left():
                    raise
                problem = str(failure)
            else:
                wait = max(delay, answer.retry_after)
                if last or not safe or answer.status not in RETRIED_STATUSES:
                    return answer
                if wait >= deadline.left() or wait > MAX_RETRY_DELAY:
                    return answer
                problem = f"HTTP {answer.status}"
            logger.debug("%s %s: %s; trying again in %.2f s", method, path, problem, wait)
            await anyio.sleep(wait)
            delay *= 2
        raise AssertionError("unreachable")

    def _send(self, method: str, path: str, data: bytes | None, deadline: Deadline) -> Answer:
        left = deadline.left() + ABANDONED_GRACE
        try:
            route = Route.choose(self._origin, self._ca_file, socks="socks")
            verify = route.authorities.verify()
        except ValueError as error:  # (whose words are ours)
            problem = str(error)
        else:
            return self._exchange(method, path, data, left, route, verify)
        raise HttpError(problem, sent=False, final=True)

    def _exchange(
        self,
        method: str,
        path: str,
        data: bytes | None,
        left: float,
        route: Route,
        verify: str | bool,
    ) -> Answer:
        give_up = monotonic() + left
        give_up_at.set(give_up)  # in the worker's own context
        session = self._take()
        try:
            with session.request(
                method,
                self._origin + path,
                data=data,
                headers={"Content-Type": "application/json"} if data is not None else None,
                auth=self._auth,
                timeout=None if math.isinf(left) else left,
                allow_redirects=False,  # an API has no reason to, and would be sent the secret
                proxies=None if route.proxy is None else {"https": route.proxy.url},
                verify=verify,
                stream=True,
            ) as response:
                raw = bytearray()
                # The timeout above is one of each read, so a server that drips must be left by
                # the clock: with read1, for iter_content goes on until its piece is full.
                pieces = response.iter_content(65536)
                if hasattr(response.raw, "read1"):  # (urllib3 2)
                    read1 = functools.partial(response.raw.read1, 65536, decode_content=True)
                    pieces = iter(read1, b"")
                for piece in pieces:
                    raw += piece
                    if len(raw) > MAX_ANSWER or monotonic() > give_up:
                        raise HttpError("the answer is too long, or too slow")
                text = raw.decode("utf-8", "replace")
                body = _body(text if response.ok else self._auth.hide(text))
                headers = response.headers
                wait = retry_after(headers.get("Retry-After"), headers.get("Date"))
                return Answer(response.status_code, body, wait)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            failure = _failure(error, route)
            failure.__cause__ = scrubbed_cause(error, self._auth.hide)
        finally:
            self._give_back(session)
        raise failure  # here, where what was caught does not become its context


def _close(sessions: deque[tuple[float, requests.Session]], keep: int = 0) -> None:
    try:
        while len(sessions) > keep:
            sessions.popleft()[1].close()
    except IndexError:  # another thread was quicker
        pass


def _body(text: str) -> Any:
    try:
        return json_module.loads(text) if text else None
    except (ValueError, RecursionError):
        return scrub(text[:MAX_EXCERPT])


def _nested(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those inside it: urllib3 wraps the system's several times."""
    inner: BaseException | None = error
    for _ in range(8):
        if inner is None:
            return
        yield inner
        found: list[object] = [*inner.args]
        found += [getattr(inner, "reason", None), inner.__context__]
        inner = next((e for e in found if isinstance(e, BaseException)), None)


_CONNECT_REFUSED = re.compile(r"Tunnel connection failed: (\d{3})")
"""What ``http.client`` says of a proxy's answer to CONNECT."""
_BEFORE_SENDING = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
    ssl.SSLCertVerificationError,
)


def _may_have_left(error: BaseException) -> bool:
    return not any(isinstance(inner, _BEFORE_SENDING) for inner in _nested(error))


def _failure(error: BaseException, route: Route) -> HttpError:
    """Return the error that says why no answer arrived."""
    sent, proxy = _may_have_left(error), route.proxy
    for inner in _nested(error):
        tls = route.tls_failure(inner)
        if tls is not None:
            return HttpError(route.through(tls), sent=sent, final=True)
    reason = route.through(_reason(error))
    if proxy is None or not isinstance(error, requests.exceptions.ProxyError):
        return HttpError(reason, sent=sent)
    refused = _CONNECT_REFUSED.search(str(error))
    if refused is None:
        return HttpError(reason, sent=False)
    status = int(refused[1])
    final = status not in RETRIED_STATUSES
    return HttpError(proxy.refusal(status, route.host), sent=False, final=final)


def _reason(error: BaseException) -> str:
    """Return in a few words why no answer arrived."""
    if isinstance(error, requests.ConnectTimeout):
        return "the connection took too long"
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        return "the answer took too long"
    for inner in _nested(error):
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror.lower()
    return f"{type(error).__name__}: {scrub(str(error))[:200]}"
