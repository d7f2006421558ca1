"""Take down what goes over the wire while somebody looks, and always what was refused, and why.

An entry is what came or went, as it was: nothing is decoded here. It becomes JSON when it is sent
to a page, of which few entries are at 2,000 messages a second.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware
from aiohttp.web import Request, StreamResponse

from metered_sync.local.rest import Observed, observed
from metered_sync.wire.json_codec import decode, encode
from metered_sync.wire.limits import (
    CLOSE_ABNORMAL,
    CLOSE_ADMIN_DISCONNECT,
    CLOSE_MESSAGE_RATE,
    CLOSE_TOKEN_EXPIRED,
    CLOSE_TOO_BIG,
    MAX_FRAME,
    MESSAGE_BURST,
    MESSAGE_RATE,
)
from metered_sync.wire.secrets import cut_secrets, scrubbed

__all__ = ["Entry", "Journal"]

MAX_ENTRIES = 2000
"""Entries that are kept."""
MAX_REFUSED = 10
"""Entries of what was refused that are kept apart, whatever comes after them."""
MAX_KEPT = 8 << 20
"""Characters, or bytes, that they have at most together."""
MAX_TEXT = 16 << 10
"""Characters of a frame or a body that are kept."""
_WELCOME = b'{"type":"welcome"'
_WHY_CLOSED = {
    CLOSE_MESSAGE_RATE: f"more than {MESSAGE_RATE} frames a second, and {MESSAGE_BURST} at once "
    "(limits=False lifts that)",
    CLOSE_TOO_BIG: f"a frame of more than {MAX_FRAME} bytes",
    CLOSE_TOKEN_EXPIRED: "its token has expired",
    CLOSE_ADMIN_DISCONNECT: "somebody disconnected it",
}


@dataclass(slots=True)
class Entry:
    """A frame, an HTTP call, or the end of a connection."""

    number: int
    """Counts all entries of a cloud."""
    kind: str
    """``sent`` or ``got`` (by a client), ``call``, ``end``."""
    peer: str
    """The client, or method and path of the call."""
    text: str | bytes = field(repr=False)
    """The frame; the body of the request; the reason of the end."""
    size: int
    """How long the frame or body was; ``text`` may be cut."""
    at: float
    """As ``time.time()`` tells it."""
    status: int | None = None
    """The call's HTTP status, or the close code."""
    answer: bytes = field(default=b"", repr=False)
    """The body of the answer."""
    error: str | None = None
    """The word for programs, if it is refused."""
    why: str | None = None
    """Why, which the client is not told."""

    def has(self, words: str) -> bool:
        """Return whether the entry has these words, in lower case, in it."""
        return any(
            words in part.lower()
            for part in (self.peer, _text(self.text), _text(self.answer), self.why or "")
        )

    def body(self) -> dict[str, Any]:
        """Return the entry for ``json.dumps``; a text that was cut, and bytes, as they are."""
        row: dict[str, Any] = {
            "n": self.number,
            "kind": self.kind,
            "peer": self.peer,
            "text": _text(self.text),
            "size": self.size,
            "at": self.at,
        }
        if self.answer:
            row["answer"] = _text(self.answer)
        for name in ("status", "error", "why"):
            value = getattr(self, name)
            if value is not None:
                row[name] = value
        return row


class Journal:
    """The latest entries of a cloud. All methods belong to its loop."""

    def __init__(self) -> None:
        self.watching = False
        """Whether a page is open. If not, only what is refused is taken down."""
        self.last = 0
        """The number of the latest entry."""
        self.refusals = 0
        """How many entries there were of what was refused."""
        self.refused_last: deque[Entry] = deque(maxlen=MAX_REFUSED)
        """The latest of them."""
        self._entries: deque[Entry] = deque()
        self._kept = 0

    def since(self, number: int) -> Iterator[Entry]:
        """Yield the entries after that one, the latest first."""
        return takewhile(lambda entry: entry.number > number, reversed(self._entries))

    def clear(self) -> None:
        """Forget all entries."""
        self._entries.clear()
        self.refused_last.clear()
        self.refusals = self._kept = 0

    def _add(self, kind: str, peer: str, text: str | bytes, **more: Any) -> None:
        self.last += 1
        entry = Entry(self.last, kind, peer, text[:MAX_TEXT], len(text), time.time(), **more)
        self._entries.append(entry)
        self._kept += len(entry.text) + len(entry.answer)
        while len(self._entries) > MAX_ENTRIES or self._kept > MAX_KEPT:
            gone = self._entries.popleft()
            self._kept -= len(gone.text) + len(gone.answer)
        if entry.error is not None:
            self._note_refusal(entry)

    def _note_refusal(self, entry: Entry) -> None:
        self.refusals += 1
        self.refused_last.append(entry)

    # --- connections ---

    def frame(self, peer: str, text: str | bytes, *, sent: bool) -> None:
        """Take a frame down."""
        if isinstance(text, bytes) and text.startswith(_WELCOME):  # it may bring credentials
            text = _without_secrets(text)
        self._add("sent" if sent else "got", peer, text)

    def refused(self, peer: str, text: str | bytes, code: str, why: str) -> None:
        """Take down that a frame is refused; if frames are taken down, it is the latest one."""
        if not self.watching or isinstance(text, bytes):
            self._add("sent", peer, text)
        entry = self._entries[-1]
        entry.error, entry.why = code, why
        self._note_refusal(entry)

    # --- HTTP ---

    def middleware(self, own: str) -> Middleware:
        """Return what takes down the calls of an application, but those below ``own``, a path."""

        @web.middleware
        async def observe(request: Request, handler: Any) -> StreamResponse:
            if request.path.startswith(own):
                return await handler(request)  # type: ignore[no-any-return]
            call = Observed()
            token = observed.set(call)
            try:
                response: StreamResponse = await handler(request)
            except web.HTTPException as error:  # no such path
                self._called(request, call, error)
                raise
            finally:
                observed.reset(token)
            if isinstance(response, web.WebSocketResponse):
                self._ended(call, response)
            elif self.watching or response.status >= 400:
                self._called(request, call, response)
            return response

        return observe

    def _ended(self, call: Observed, ws: web.WebSocketResponse) -> None:
        if call.peer is None:  # it was closed as soon as it was open
            code, reason, error = ws.close_code, "", "turned away"
        elif call.goodbye is not None:
            (code, reason), error = call.goodbye, None
            call.why = _WHY_CLOSED.get(code)
        else:
            code, reason, error = ws.close_code or CLOSE_ABNORMAL, "", None
        peer = call.peer or "GET /v1"
        if self.watching or call.why is not None:
            error = error or (reason if call.why else None)
            self._add("end", peer, reason, status=code, error=error, why=call.why)

    def _called(self, request: Request, call: Observed, response: StreamResponse) -> None:
        body = response.body if isinstance(response, web.Response) else None
        answer = _without_secrets(body) if isinstance(body, bytes) else b""
        self._add(
            "call",
            f"{request.method} {cut_secrets(request.path)}",
            _without_secrets(call.body),
            status=response.status,
            answer=answer[:MAX_TEXT],
            error=response.reason if response.status >= 400 else None,
            why=call.why,
        )


def _without_secrets(text: str | bytes) -> bytes:
    """Return JSON without the values of what is secret in it, and other text without keys."""
    with suppress(ValueError, RecursionError):
        return encode(scrubbed(decode(text))).encode()
    return cut_secrets(_text(text)).encode("utf-8", "replace")


def _text(data: str | bytes) -> str:
    return data if isinstance(data, str) else data.decode("utf-8", "replace")
