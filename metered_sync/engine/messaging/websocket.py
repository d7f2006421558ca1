"""The WebSocket of a messaging connection: ``websockets``, with a short way for text frames.

``websockets`` does the handshake, TLS, control frames, fragments, limits and the close. What
is nearly all of the traffic - text frames that come whole - is cut out of the stream here and
handed on as bytes, without an object, a queue or a task for each; and frames go out as bytes
that a caller's thread has built, many with one write. ``benchmarks/pubsub.py`` says what that
is worth.

The rule that keeps the two in step: while the short way is open, the library's parser is given
whole control frames only, so it is at the start of a frame when the next one comes. At
anything else - fragments, binary, a frame that is too long or otherwise against RFC 6455, the
close - the short way ends for good, and all that follows is the library's. A service that
sends one JSON text a frame never gets there before the close.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import CLOSING, OPEN, Event

from metered_sync.wire.limits import MAX_INBOUND_FRAME
from metered_sync.wire.websocket import WHOLE_TEXT

__all__ = ["Receiver", "WebSocket"]

Receiver = Callable[["bytes | None"], None]
"""Takes a message: the UTF-8 bytes of a text, or ``None`` for a binary one."""

_DATA_OPCODES = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)
_CONTROL_HEADS = (0x88, 0x89, 0x8A)
_RESPONSE_END = b"\r\n\r\n"
_MAX_RESPONSE = 1 << 16


class WebSocket(ClientConnection):
    """A client's connection. Messages go to a receiver: neither ``recv()`` nor ``send()`` is used.

    All of it runs on the loop thread.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.on_room: Callable[[], None] | None = None
        """Called when the transport takes more again, after :attr:`full` was true."""
        self.last_text = time.monotonic()
        """When text came last: what tells a live connection."""
        self._early: deque[bytes | None] = deque()
        self._receiver: Receiver = self._early.append
        # The head of the answer to the upgrade, as far as it has come; then None.
        self._head: bytes | None = b""
        self._short = False  # whether text frames take the short way
        self._rest = b""  # the beginning of a frame
        self._pieces: list[bytes] = []  # of a fragmented message
        self._binary = False
        self._cut_off: asyncio.TimerHandle | None = None

    def listen(self, receiver: Receiver | None) -> None:
        """Hand messages to ``receiver``, first those held back; ``None`` holds them back."""
        self._receiver = self._early.append if receiver is None else receiver
        while self._early and receiver is not None and self._receiver == receiver:
            receiver(self._early.popleft())

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent."""
        return self.protocol.state is OPEN and not self.transport.is_closing()

    @property
    def full(self) -> bool:
        """Whether the transport's buffer is full."""
        return self.paused

    # --- incoming ---

    def data_received(self, data: bytes) -> None:
        """Take bytes from the transport."""
        if self._short:
            self._cut(data)
        elif self._head is not None:
            self._await_head(self._head + data)
        else:
            self._parse(data)

    def _await_head(self, data: bytes) -> None:
        """Give the library the head of the answer, apart from the frames that follow it."""
        head, end, frames = data.partition(_RESPONSE_END)
        if not end and len(data) <= _MAX_RESPONSE:
            self._head = data
            return
        self._head = None
        self._parse(head + end)
        self._short = self.protocol.state is OPEN
        if frames:
            self.data_received(frames)

    def _cut(self, data: bytes) -> None:
        """Cut the stream into frames."""
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        now = time.monotonic()
        while end - at >= 2:
            first, size, start = data[at], data[at + 1], at + 2
            if first == WHOLE_TEXT and size < 128:
                if size > 125:  # a longer size follows
                    start += 2 if size == 126 else 8
                    if end < start:
                        break
                    size = int.from_bytes(data[at + 2 : start], "big")
                stop = start + size
                if stop <= end and size <= MAX_INBOUND_FRAME:
                    self.last_text = now
                    self._receiver(data[start:stop])
                    at = stop
                    continue
                self._short = size <= MAX_INBOUND_FRAME
                break
            stop = start + size
            if first not in _CONTROL_HEADS or size > 125:
                self._short = False
                break
            if stop > end:
                break
            self._parse(data[at:stop])
            at = stop
            if self.protocol.state is not OPEN:
                self._short = False
                break
        self._rest = data[at:]
        if not self._short and self._rest:
            rest, self._rest = self._rest, b""
            self._parse(rest)

    def _parse(self, data: bytes) -> None:
        """Have the library parse what has come, and bound the close that may follow from it.

        The library waits for the server to end the TCP connection. It bounds that where
        ``recv()`` and ``send()`` wait with it, which are not used here.
        """
        super().data_received(data)
        if self.protocol.state is CLOSING and self._cut_off is None:
            self._cut_off = self.loop.call_later(self.close_timeout or 0, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._cut_off is not None:
            self._cut_off.cancel()

    def process_event(self, event: Event) -> None:
        """Take what the library has parsed."""
        if not isinstance(event, Frame) or event.opcode not in _DATA_OPCODES:
            super().process_event(event)
            return
        if event.opcode is not Opcode.CONT:
            self._pieces, self._binary = [], event.opcode is Opcode.BINARY
        self._pieces.append(bytes(event.data))
        if event.fin and self._binary:
            self._receiver(None)
        elif event.fin:
            self.last_text = time.monotonic()
            self._receiver(b"".join(self._pieces))

    # --- outgoing ---

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.on_room is not None:
            self.on_room()
