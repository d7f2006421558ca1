"""Carry text messages over a WebSocket: ``websockets``' protocol, with a short way for text.

``connect()`` of ``websockets`` makes the TCP connection (TLS and proxies included) and has this
class ask for the upgrade; its sans-I/O ``ClientProtocol`` does the handshake, control frames,
fragments, limits and the close. What is nearly all of the traffic - text frames that come
whole - is cut out of the stream here and handed on as bytes, many at once, without an object or a
task for each; and frames go out as bytes that a caller's thread has built, many with one write.
``benchmarks/pubsub.py`` says what that is worth.

The rule that keeps the two in step: while the short way is open, the library's parser is given
whole control frames only, so it is at the start of a frame when the next one comes. At
anything else - fragments, binary, a frame that is too long or otherwise against RFC 6455, the
close - the short way ends for good, and all that follows is the library's. A service that
sends one JSON text a frame never gets there before the close.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import deque
from collections.abc import Callable, Mapping
from email import message_from_bytes
from typing import Any, cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN

from metered_sync.bridge.clock import monotonic
from metered_sync.wire.limits import CLOSE_ABNORMAL, MAX_INBOUND_FRAME
from metered_sync.wire.websocket import WHOLE_TEXT

__all__ = ["Receiver", "UpgradeRefusedError", "WebSocket"]

Receiver = Callable[["deque[bytes | None]"], None]
"""Takes messages from the left of those that have arrived: the UTF-8 bytes of a text each, or
``None`` for a binary one. For those that it leaves it is called again in the loop's next step."""

WRITE_BUFFER = 1 << 15
"""Bytes in the transport's buffer from which on it takes no more."""
READ_AT_ONCE = 1 << 15
"""Bytes that are read from the transport with one call, at most."""
_NO_BUFFER = memoryview(b"")
_DATA_OPCODES = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)
_CONTROL_HEADS = (0x88, 0x89, 0x8A)
_RESPONSE_END = b"\r\n\r\n"
_MAX_RESPONSE = 1 << 16
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})\b")
BODY_PATIENCE = 0.5
"""Seconds that the body of a refusal may take: it may have no length, and no end."""


class UpgradeRefusedError(Exception):
    """The answer to the upgrade has another status than 101.

    Not the library's own class: that one has ``connect()`` follow redirects.
    """

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.headers = headers
        """By their names in lower case."""
        self.body = body
        """Its beginning."""


class WebSocket(asyncio.BufferedProtocol):
    """Carry text messages over a client's connection; on the loop.

    ``connect()`` is told to make its connections of this class. It passes more options than
    there are here, about queues and pings of its own, and calls :meth:`handshake`, then
    :meth:`start_keepalive`; where they fail it aborts ``transport``.
    """

    def __init__(
        self, protocol: ClientProtocol, *, close_timeout: float | None = None, **_: Any
    ) -> None:
        self.protocol = protocol
        self.transport: asyncio.Transport
        self.full = False
        """Whether the transport's buffer is full."""
        self.on_room: Callable[[], None] | None = None
        """Called when the transport takes more again, after :attr:`full` was true."""
        self.last_text = monotonic()
        """The monotonic time at which text came last: the sign of a live connection."""
        self.asked = asyncio.Event()
        """Set by the first write of a request after text has come."""
        self._asked_at = -math.inf
        self._loop = asyncio.get_running_loop()
        self._close_timeout = close_timeout
        self._answered: asyncio.Future[None] = self._loop.create_future()
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._cut_off: asyncio.TimerHandle | None = None
        self._buffer = _NO_BUFFER
        self._arrived: deque[bytes | None] = deque()
        self._receiver: Receiver | None = None
        # The head of the answer to the upgrade, as far as it has come; then None.
        self._head: bytes | None = b""
        self._refusal: UpgradeRefusedError | None = None  # as far as its head tells
        self._short = False  # whether text frames take the short way
        self._rest = b""  # the beginning of a frame, or all that waits for the next step
        self._waiting = False  # for the next step
        self._ended = False
        self._pieces: list[bytes] = []  # of a fragmented message
        self._binary = False

    # --- the upgrade ---

    async def handshake(
        self, additional_headers: Any = None, user_agent_header: str | None = None
    ) -> None:
        """Ask for the upgrade, and wait for the answer; raise what is wrong with it."""
        request = self.protocol.connect()
        if additional_headers is not None:
            request.headers.update(additional_headers)
        if user_agent_header is not None:
            request.headers.setdefault("User-Agent", user_agent_header)
        self.protocol.send_request(request)
        self._send()
        either = (self._answered, self._lost)
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        failure = self.protocol.handshake_exc
        if isinstance(failure, InvalidStatus):
            response = failure.response
            body = bytes(response.body or b"")
            fields = {name.lower(): value for name, value in response.headers.raw_items()}
            raise UpgradeRefusedError(response.status_code, fields, body)
        if self._refusal is not None:
            raise self._refusal
        if failure is not None:
            raise failure
        if not self._answered.done():
            raise ConnectionError("the connection was lost before the answer to the upgrade")

    def start_keepalive(self) -> None:
        """Do nothing: the connection's owner watches over it."""

    # --- life ---

    def listen(self, receiver: Receiver | None) -> None:
        """Hand messages to ``receiver``, first those held back; ``None`` holds them back."""
        self._receiver = receiver
        self._hand_on()

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent."""
        return self.protocol.state is OPEN and not self.transport.is_closing()

    @property
    def close_code(self) -> int:
        """The close code, once the connection has ended."""
        return int(self.protocol.close_code or CLOSE_ABNORMAL)

    @property
    def close_reason(self) -> str:
        """The reason that came with the close code."""
        return self.protocol.close_reason or ""

    async def close(self, code: int, reason: str) -> None:
        """Send a close frame, and wait until the server has ended the connection, or its time."""
        if self.protocol.state is OPEN:
            self.protocol.send_close(code, reason)
            self._send()
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Wait for the end of the connection."""
        await asyncio.shield(self._lost)

    def abort(self) -> None:
        """End the connection now, whatever is on its way."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(WRITE_BUFFER)

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish()
        self.protocol.receive_eof()  # (repeatable) the state is "closed" after it
        self.full = False
        if self._cut_off is not None:
            self._cut_off.cancel()
        self._lost.set_result(None)

    # --- incoming ---

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer that the transport reads into, made for each time.

        (Where it is not asked for one, TLS makes one of 256 KiB for each record that comes. Into a
        bytearray asyncio's TLS reads one record only, and the next into a slice of it: a copy.)
        """
        self._buffer = memoryview(bytearray(READ_AT_ONCE))
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what the transport has read."""
        data, self._buffer = bytes(self._buffer[:nbytes]), _NO_BUFFER
        self.data_received(data)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the stream."""
        if self._short:
            self._cut(data)
        elif self._head is not None:
            self._await_head(self._head + data)
        else:
            self._parse(data)
        self._hand_on()

    def _await_head(self, data: bytes) -> None:
        """Give the library the head of the answer, apart from the frames that follow it."""
        head, end, frames = data.partition(_RESPONSE_END)
        if not end and len(data) <= _MAX_RESPONSE:
            self._head = data
            return
        self._head = None
        status = _STATUS_LINE.match(head)
        if status is not None and status[1] != b"101":
            self._refused(int(status[1]), head, frames)
        self._parse(head + end)
        self._short = self.protocol.state is OPEN
        if frames:
            self.data_received(frames)

    def _refused(self, status: int, head: bytes, body: bytes) -> None:
        """Keep what the head of a refusal says, in case that its body does not end."""
        parsed = message_from_bytes(head.partition(b"\r\n")[2] + _RESPONSE_END)
        fields = {name.lower(): str(value) for name, value in parsed.items()}
        self._refusal = UpgradeRefusedError(status, fields, body)
        self._loop.call_later(BODY_PATIENCE, self._answer)

    def _answer(self) -> None:
        if not self._answered.done():
            self._answered.set_result(None)

    def _cut(self, data: bytes) -> None:
        """Cut the stream into frames."""
        if self._waiting:  # (TLS may bring more all the same)
            self._rest += data
            return
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        now = monotonic()
        while end - at >= 2:
            first, size, start = data[at], data[at + 1], at + 2
            if first == WHOLE_TEXT and size < 128:
                if size > 125:  # a longer size follows
                    start += 2 if size == 126 else 8
                    if end < start:
                        break
                    if size == 126:  # nearly always; this takes a third of the time
                        size = data[at + 2] << 8 | data[at + 3]
                    else:
                        size = int.from_bytes(data[at + 2 : start], "big")
                stop = start + size
                if stop <= end and size <= MAX_INBOUND_FRAME:
                    self.last_text = now
                    self._arrived.append(data[start:stop])
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

    def _hand_on(self) -> None:
        """Have the receiver take what has arrived; let the loop do something else in between."""
        while self._arrived and self._receiver is not None and not self._waiting:
            self._receiver(self._arrived)
            if self._arrived and self._receiver is not None and not self._ended:
                self._waiting = True
                self.transport.pause_reading()
                self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._waiting:
            self._waiting = False
            self._cut(b"")
            self._hand_on()
            if not self._waiting:
                self.transport.resume_reading()

    def _finish(self) -> None:
        """Hand on what waits: the stream has ended."""
        self._ended, self._waiting = True, False
        self._cut(b"")
        self._hand_on()

    def _parse(self, data: bytes) -> None:
        """Have the library parse what has come, and send what it answers."""
        self.protocol.receive_data(data)
        self._process()

    def eof_received(self) -> None:
        """Take the end of the stream; the transport closes itself."""
        self._finish()
        self.protocol.receive_eof()
        self._process()
        self._hand_on()

    def _process(self) -> None:
        """Take what the library has parsed, after sending what it answers."""
        events = self.protocol.events_received()
        self._send()
        for event in events:
            if isinstance(event, Frame) and event.opcode in _DATA_OPCODES:
                self._take(event)
        if events or self.protocol.handshake_exc is not None:
            self._answer()  # the first event is the answer to the upgrade

    def _take(self, frame: Frame) -> None:
        """Take a data frame of the library's parser, and keep the message that it completes."""
        if frame.opcode is not Opcode.CONT:
            self._pieces, self._binary = [], frame.opcode is Opcode.BINARY
        self._pieces.append(bytes(frame.data))
        if frame.fin and self._binary:
            self._arrived.append(None)
        elif frame.fin:
            self.last_text = monotonic()
            self._arrived.append(b"".join(self._pieces))

    # --- outgoing ---

    def write(self, data: bytes, *, is_request: bool = False) -> None:
        """Send frames that are built already; note the first that the server has to answer."""
        if is_request and self._asked_at <= self.last_text:
            self._asked_at = monotonic()
            self.asked.set()
        self.transport.write(data)

    def unanswered(self) -> float:
        """Return for how many seconds requests have been waiting without any text coming."""
        return monotonic() - self._asked_at if self._asked_at > self.last_text else 0.0

    def _send(self) -> None:
        """Send what the library has to say, and bound the close that may follow from it.

        The library's protocol waits for the server to end the TCP connection.
        """
        for data in self.protocol.data_to_send():
            if data:
                self.transport.write(data)
            elif self.transport.can_write_eof():
                try:
                    self.transport.write_eof()
                except (OSError, RuntimeError):  # (uvloop's, where the other side was quicker)
                    pass
            else:
                self.transport.close()
        if self.protocol.close_expected() and self._cut_off is None:
            self._cut_off = self._loop.call_later(self._close_timeout or 0, self.transport.abort)

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        if self.on_room is not None:
            self.on_room()
