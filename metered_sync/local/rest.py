"""Read the bodies of HTTP calls, answer them, and refuse them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from metered_sync.engine.logs import scrubbed_logger
from metered_sync.wire.fields import error_body
from metered_sync.wire.json_codec import decode
from metered_sync.wire.limits import MAX_REST_BODY

__all__ = ["Handler", "Refusal", "answer", "read_body", "read_json", "server_logger"]

Handler = Callable[[web.Request], Awaitable[web.Response]]


class Refusal(Exception):  # noqa: N818 - it is an answer, not a failure
    """A request is refused: the HTTP status, the service's word for it, a sentence."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def response(self) -> web.Response:
        """Return the answer, as the service words errors."""
        return answer(error_body(self.code, str(self)), self.status)


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
