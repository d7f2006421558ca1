"""The one HTTP call, over ``requests`` on our own daemon threads.

A request that has been sent cannot be recalled: when its caller gives up, it is
abandoned, and its late answer is discarded. Failures are told without secrets;
what the third party raised would carry URLs and headers.
"""

from __future__ import annotations

import json as json_module
import logging
import math
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import anyio
import requests
import requests.auth
import urllib3.exceptions

from metered_sync.engine.deadline import Deadline
from metered_sync.engine.logs import scrub_loggers
from metered_sync.engine.workers import run_in_worker
from metered_sync.wire.urls import is_loopback, scrub

__all__ = ["Answer", "Http", "HttpError"]

MAX_BODY = 4 << 20
"""Bytes of an answer's body that are read; no answer of these services comes near."""
EXCERPT = 500
"""Characters of an answer that is not JSON which an error shows."""
ATTEMPTS = 4
FIRST_DELAY = 0.25
AFTER = 1.0
"""Seconds after its caller's deadline at which an abandoned request gives up, too."""
RETRIED = (429, 500, 502, 503, 504)

logger = logging.getLogger("metered_sync")
scrub_loggers("urllib3", "requests")


class HttpError(Exception):
    """No answer arrived."""


@dataclass(frozen=True)
class Answer:
    """What the server said."""

    status: int
    body: Any
    """The parsed JSON; an excerpt of the text where it is none; ``None`` where it is empty."""
    retry_after: float = 0.0
    """Seconds the server asks to wait, or 0."""

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300


class _Bearer(requests.auth.AuthBase):
    """Authorization as an object: a header alone would give way to a ``.netrc`` entry."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Http:
    """Requests to one origin with one secret."""

    def __init__(self, origin: str, bearer: str) -> None:
        self._origin = origin
        self._auth = _Bearer(bearer)
        self._session = requests.Session()
        # An environment's proxy cannot reach our loopback.
        self._session.trust_env = not is_loopback(urlsplit(origin).hostname)

    def close(self) -> None:
        """Close idle connections. Those in use close with their request."""
        self._session.close()

    async def fetch(
        self, method: str, path: str, *, json: Any = None, deadline: Deadline, safe: bool = False
    ) -> Answer:
        """Send a request and return its answer, whatever its status.

        Args:
            path: The path, with a query where there is one.
            json: The body.
            deadline: Bounds the whole call; the caller cancels it, this bounds the thread.
            safe: Whether it may be repeated: then 429, 5xx and connection failures are
                tried again with backoff.

        Raises:
            HttpError: No answer arrived; the text says why, without secrets.
        """
        delay = FIRST_DELAY
        for attempt in range(1, ATTEMPTS + 1):
            last = not safe or attempt == ATTEMPTS
            try:
                answer = await run_in_worker(self._send, method, path, json, deadline)
            except HttpError as failure:
                if last:
                    raise
                logger.debug("%s %s: %s; trying again", method, path, failure)
            else:
                delay = max(delay, answer.retry_after)
                if last or answer.status not in RETRIED or delay >= deadline.left():
                    return answer
            await anyio.sleep(delay)
            delay *= 2
        raise AssertionError("unreachable")

    def _send(self, method: str, path: str, json: Any, deadline: Deadline) -> Answer:
        left = deadline.left() + AFTER
        give_up = time.monotonic() + left
        data = None if json is None else json_module.dumps(json).encode()
        try:
            with self._session.request(
                method,
                self._origin + path,
                data=data,
                headers={"Content-Type": "application/json"} if data is not None else None,
                auth=self._auth,
                timeout=None if math.isinf(left) else left,
                allow_redirects=False,  # an API has no reason to, and would be sent the secret
                stream=True,
            ) as response:
                raw = bytearray()
                # (The timeout above is one of each read; a server may drip.)
                for piece in response.iter_content(65536):
                    raw += piece
                    if len(raw) > MAX_BODY or time.monotonic() > give_up:
                        raise HttpError("the answer is too long, or too slow")
                return Answer(response.status_code, _body(bytes(raw)), _retry_after(response))
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise HttpError(_reason(error)) from None  # (requests' own are OSErrors)


def _body(raw: bytes) -> Any:
    text = raw.decode("utf-8", "replace")
    try:
        return json_module.loads(text) if text else None
    except (ValueError, RecursionError):
        return scrub(text[:EXCERPT])


def _retry_after(response: requests.Response) -> float:
    try:
        return min(max(float(response.headers.get("Retry-After", 0)), 0.0), 60.0)
    except ValueError:
        return 0.0


def _reason(error: BaseException) -> str:
    """Say in a few words what kept the answer from coming."""
    if isinstance(error, requests.ConnectTimeout):
        return "the connection took too long"
    if isinstance(error, requests.Timeout):
        return "the answer took too long"
    if isinstance(error, requests.exceptions.SSLError):
        return "the TLS certificate or handshake was refused"
    inner: BaseException | None = error
    for _ in range(8):  # urllib3 wraps the system's error several times
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror.lower()
        nested: list[object] = [*getattr(inner, "args", ())]
        nested += [getattr(inner, "reason", None), getattr(inner, "__context__", None)]
        inner = next((e for e in nested if isinstance(e, BaseException)), None)
    return f"{type(error).__name__}: {scrub(str(error))[:200]}"
