"""Hold the connections of the local cloud's clients, and write frames to them.

Frames are made once, however many clients get them, and written to the TCP transports
directly: as one write per connection and turn of the event loop, without a task or a
wake-up in between. What a client does not take at once waits in its transport, which
keeps the order; a client that takes nothing is cut off when too much waits.
"""

from __future__ import annotations

import asyncio
import socket as sockets
import struct
from collections import deque
from typing import TYPE_CHECKING, Protocol

from aiohttp import web

from metered_sync.bridge.clock import monotonic
from metered_sync.local.keys import Identity
from metered_sync.wire.events import PresencePeer
from metered_sync.wire.limits import MESSAGE_BURST, MESSAGE_RATE
from metered_sync.wire.websocket import text_head, text_payload

if TYPE_CHECKING:
    from metered_sync.local.frame_log import FrameLog

__all__ = ["SendScheduler", "Socket", "Watcher", "text_frame"]

MAX_UNSENT = 8 << 20
"""Bytes that may wait for a client that does not read; then its connection is cut."""
_WRITE_CHECK_INTERVAL = 1 << 16
"""Bytes between two looks at how many wait: the transport has to add them up."""
_PING = b"\x89\x00"


class Watcher(Protocol):
    """Is shown what goes over the connections, on the loop; for people to look at."""

    watching: bool
    """Whether it wants to see frames at present."""

    def frame(self, peer: str, text: str | bytes, *, sent: bool) -> None:
        """See a frame that a client sent, before it is carried out, or one that it got."""

    def refused(self, peer: str, text: str | bytes, code: str, why: str) -> None:
        """See that the frame which a client sent last is refused."""


def text_frame(text: str) -> bytes:
    """Return a text message as a server sends it: in one frame, unmasked (RFC 6455, 5.2)."""
    payload = text.encode()
    return text_head(len(payload)) + payload


class Socket:
    """One client's WebSocket connection, as the server holds it."""

    def __init__(
        self,
        identity: Identity,
        ws: web.WebSocketResponse,
        transport: asyncio.Transport,
        scheduler: SendScheduler,
    ) -> None:
        self.identity = identity
        self.peer_id = identity.peer_id
        self.channels: set[str] = set()
        """The channels and patterns it has subscribed to."""
        self.publishes: set[str] = set()
        """Channels that it has been found to be allowed to publish to."""
        self.heard = True
        """Whether anything came from it since the last ping."""
        self.goodbye: tuple[int, str] | None = None
        """The code and reason with which the server closes it; what it sends counts no more."""
        self.ended = asyncio.Event()
        self._task = asyncio.current_task()
        self._ws = ws
        self._transport = transport
        self._scheduler = scheduler
        self._frames: list[bytes] = []
        self._unchecked = 0
        self._tokens = float(MESSAGE_BURST)
        self._tokens_at = monotonic()

    def may(self, action: str) -> bool:
        """Return whether the connection has a permission."""
        return action in self.identity.grant.actions

    def presence(self) -> PresencePeer:
        """Return this peer as presence shows it to others."""
        return PresencePeer(self.peer_id, self.identity.peer_metadata)

    def within_rate(self) -> bool:
        """Count a frame against the token bucket; return whether it had room."""
        now = monotonic()
        refill = (now - self._tokens_at) * MESSAGE_RATE
        self._tokens = min(float(MESSAGE_BURST), self._tokens + refill) - 1
        self._tokens_at = now
        return self._tokens >= 0

    # --- out ---

    def send(self, frame: bytes) -> None:
        """Send a frame, at the end of this turn of the loop."""
        if self._scheduler.slow:
            self._scheduler.postpone(self, frame)
        else:
            self.put(frame)

    def put(self, frame: bytes) -> None:
        """Send a frame that has waited as long as it had to."""
        if not self._frames:
            self._scheduler.schedule(self)
        self._frames.append(frame)

    def flush(self) -> None:
        """Write the frames that have gathered."""
        frames, self._frames = self._frames, []
        # Behind a close frame nothing may follow (RFC 6455, 5.5.1).
        if not frames or self._ws.closed or self._transport.is_closing():
            return
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        self._transport.write(data)
        log = self._scheduler.log
        if log is not None and log.recording:
            for frame in frames:
                log.add(self.peer_id, text_payload(frame), sent=False)
        watcher = self._scheduler.watcher
        if watcher is not None and watcher.watching:
            for frame in frames:
                watcher.frame(self.peer_id, text_payload(frame), sent=False)
        self._unchecked += len(data)
        if self._unchecked > _WRITE_CHECK_INTERVAL:
            self._unchecked = 0
            if self._transport.get_write_buffer_size() > MAX_UNSENT:
                self._transport.abort()

    def ping(self) -> None:
        """Ask for a sign of life, or give up a connection that gave none after the last ping."""
        if not self.heard:
            self._transport.abort()
        elif not (self._ws.closed or self._transport.is_closing()):
            self.heard = False
            self._transport.write(_PING)

    def shut(self, code: int, reason: str) -> None:
        """Have the connection closed with a code, by the task that reads from it."""
        if self.goodbye is None:
            self.goodbye = code, reason
            if self._task is not None and self._task is not asyncio.current_task():
                self._task.cancel()

    async def close(self, within: float) -> None:
        """Close as :meth:`shut` said; what was sent goes first. For the reading task alone.

        Goes on reading until the client agrees: the TCP connection would be reset
        otherwise, and the client would not see the code. One that does not react within
        that many seconds is cut off.
        """
        code, reason = self.goodbye or (1000, "")
        await self._scheduler.drained(self)
        self.flush()
        try:
            await asyncio.wait_for(self._ws.close(code=code, message=reason.encode()), within)
        except asyncio.TimeoutError:
            pass
        if not self._transport.is_closing() or self._transport.get_write_buffer_size():
            self._transport.abort()  # closing it would wait for the client to read

    def reset(self) -> None:
        """Cut the TCP connection, so that the client sees a reset."""
        raw = self._transport.get_extra_info("socket")
        if raw is not None and not self._transport.is_closing():
            raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


class SendScheduler:
    """Decides when frames leave: once a turn of the loop, or later where a fault delays them."""

    def __init__(self) -> None:
        self.slow = False
        """Whether frames are delayed, or delayed ones are still on their way."""
        self.log: FrameLog | None = None
        """Takes down what leaves and what comes, while it records."""
        self.watcher: Watcher | None = None
        """Shows it to people, while they look."""
        self._full: list[Socket] = []
        """The connections that have something to write."""
        self._delay = 0.0
        self._late: deque[tuple[float, Socket, bytes]] = deque()
        """Delayed frames, with the loop's time at which they go on."""
        self._due = 0.0
        """When the last of them does; none that comes later may overtake it."""
        self._held: dict[Socket, list[bytes]] | None = None
        """Acknowledgements that are held back, with what must not overtake them."""
        self._timer: asyncio.TimerHandle | None = None
        self._release_timer: asyncio.TimerHandle | None = None

    def schedule(self, socket: Socket) -> None:
        """Have a connection's frames written at the end of this turn of the loop."""
        if not self._full:
            asyncio.get_running_loop().call_soon(self._flush)
        self._full.append(socket)

    def _flush(self) -> None:
        full, self._full = self._full, []
        for socket in full:
            socket.flush()

    # --- acknowledgements ---

    def acknowledge(self, socket: Socket, frame: bytes) -> None:
        """Send an acknowledgement, or hold it back."""
        if self._held is None:
            socket.send(frame)
        else:
            self._held.setdefault(socket, []).append(frame)

    def announce(self, socket: Socket, frame: bytes) -> None:
        """Send presence; never before the acknowledgement of the subscription it belongs to."""
        if self._held is not None and socket in self._held:
            self._held[socket].append(frame)
        else:
            socket.send(frame)

    def hold(self, seconds: float) -> None:
        """Hold acknowledgements back for so long from now."""
        if self._held is None:
            self._held = {}
        if self._release_timer is not None:
            self._release_timer.cancel()
        self._release_timer = asyncio.get_running_loop().call_later(seconds, self._release)

    @property
    def holding(self) -> bool:
        """Whether acknowledgements are held back."""
        return self._held is not None

    def _release(self) -> None:
        held, self._held = self._held, None
        for socket, frames in (held or {}).items():
            for frame in frames:
                socket.send(frame)

    # --- delay ---

    def delay(self, seconds: float) -> None:
        """Delay each frame from now on; 0 ends it, for those that are not on their way yet."""
        self._delay = seconds
        self.slow = bool(seconds or self._late)

    def postpone(self, socket: Socket, frame: bytes) -> None:
        """Send a frame later."""
        loop = asyncio.get_running_loop()
        self._due = max(loop.time() + self._delay, self._due)
        if not self._late:
            self._timer = loop.call_at(self._due, self._advance)
        self._late.append((self._due, socket, frame))

    def _advance(self) -> None:
        loop = asyncio.get_running_loop()
        while self._late and self._late[0][0] <= loop.time():
            _, socket, frame = self._late.popleft()
            socket.put(frame)
        if self._late:
            self._timer = loop.call_at(self._late[0][0], self._advance)
        self.slow = bool(self._delay or self._late)

    async def drained(self, socket: Socket) -> None:
        """Wait until no frame to this connection is on its way."""
        while True:
            dues = [due for due, other, _ in self._late if other is socket]
            if not dues:
                return
            await asyncio.sleep(max(0.001, dues[-1] - asyncio.get_running_loop().time()))

    def close(self) -> None:
        """Send what is delayed, end all faults."""
        for timer in (self._timer, self._release_timer):
            if timer is not None:
                timer.cancel()
        while self._late:
            _, socket, frame = self._late.popleft()
            socket.put(frame)
        self.delay(0)
        self._release()
