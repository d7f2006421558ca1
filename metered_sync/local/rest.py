"""Read the bodies of HTTP calls, answer them, and refuse them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from metered_sync.engine.logs import scrubbed_logger
from metered_sync.wire.fields import error_body
from metered_sync.wire.json_codec import decode
from metered_sync.wire.limits import MAX_REST_BODY

__all__ = [
    "Handler",
    "Observed",
    "Refusal",
    "answer",
    "explain",
    "observed",
    "read_body",
    "read_json",
    "server_logger",
]

Handler = Callable[[web.Request], Awaitable[web.Response]]


class Refusal(Exception):  # noqa: N818 - it is an answer, not a failure
    """A request is refused: the HTTP status, the service's word for it, a sentence.

    ``why`` is for the developer at this machine: more than the service tells its clients.
    """

    def __init__(self, status: int, code: str, message: str, why: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.why = why or message

    def response(self) -> web.Response:
        """Return the answer, as the service words errors."""
        explain(self.why)
        return answer(error_body(self.code, str(self)), self.status)


@dataclass
class Observed:
    """What is to be seen of an HTTP call, but for what request and answer show."""

    body: bytes = field(default=b"", repr=False)
    """The request's body, if it was read."""
    why: str | None = None
    """Why it is refused."""
    peer: str | None = None
    """The client whose connection the call became."""
    goodbye: tuple[int, str] | None = None
    """The code and reason with which the server closed that."""


observed: ContextVar[Observed | None] = ContextVar("observed", default=None)
"""Set while a call is carried out that somebody observes."""


def explain(why: str) -> None:
    """Tell who observes this call why it is refused."""
    call = observed.get()
    if call is not None:
        call.why = why


def answer(body: Any, status: int = 200, **headers: str) -> web.Response:
    """Return an answer with JSON in it."""
    return web.json_response(
        body, status=status, headers={name.replace("_", "-"): v for name, v in headers.items()}
    )


async def read_body(request: web.Request, most: int) -> bytes:
    """Read a body of at most so many bytes; :class:`Refusal` of one that is longer (413)."""
    too_large = Refusal(413, "invalid_request", f"a body has at most {most} bytes")
    if (request.content_length or 0) > most:
        raise too_large
    try:
        raw = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise too_large from None
    except (web.RequestPayloadError, ConnectionError):  # a chunk that is none; it went away
        raise Refusal(400, "invalid_request", "the body cannot be read") from None
    if len(raw) > most:
        raise too_large
    return raw


async def read_json(request: web.Request, most: int = MAX_REST_BODY) -> Any:
    """Read and decode a body of at most so many bytes; ``None`` where there is none.

    Raises:
        Refusal: It is no JSON (400), or longer (413).
    """
    raw = await read_body(request, most)
    if not raw:
        return None
    call = observed.get()
    if call is not None:
        call.body = raw
    try:
        return decode(raw)
    except (ValueError, RecursionError):
        raise Refusal(400, "invalid_request", "the body is not JSON") from None


class _Answered(logging.Filter):
    """Leaves out errors that a client made: it got them in its answer.

    Requests that are no HTTP are meant; aiohttp logs them with a traceback, and with the
    first bytes, which may be part of a key.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError)


def server_logger() -> logging.Logger:
    """Return the logger for the HTTP server's own troubles."""
    logger = scrubbed_logger("metered_sync.local.http")
    if not any(isinstance(f, _Answered) for f in logger.filters):
        logger.addFilter(_Answered())
    return logger
