"""The messaging connection: connect, keep alive, reconnect, and carry frames.

States (the facade shows the same names)::

    idle ──connect()──▶ connecting ──welcome──▶ connected ◀──welcome── reconnecting
      ▲                     │ failed               │ lost                ▲   │
      └─────────────────────┘                      ├────────────────────┘   │ budget spent,
                                                   │ terminal code, close()  │ close()
                                                   └───────────▶ closed ◀────┘

Frames do not cross as tasks. A caller's thread puts a :class:`Request` into the
outbox and wakes the loop at most once per burst; the writer task sends; the
reader task releases the request's waiter when the acknowledgement comes.

``_lock`` guards ``_outbox``, ``_pending`` and ``_channels``, which callers'
threads share with the loop. It is held for a few dictionary operations only.
"""

from __future__ import annotations

import itertools
import logging
import math
import secrets
import threading
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

import anyio
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from metered_sync.engine.deadline import Signal
from metered_sync.engine.dialling import ABNORMAL, Dialler, SignallingOptions
from metered_sync.engine.loop import Engine, EventSink, Link
from metered_sync.engine.reader import Reader
from metered_sync.errors import (
    ClosedError,
    DisconnectedError,
    NotConnectedError,
    OversizedPayloadError,
    ServerRequestError,
    SignallingConnectError,
    fresh,
)
from metered_sync.events import (
    Connected,
    Direct,
    Disconnected,
    GoingAway,
    IceServer,
    Message,
    Outage,
    Presence,
    ServerError,
    StateChange,
)
from metered_sync.wire import frames
from metered_sync.wire.limits import (
    CLOSE_INACTIVITY,
    CLOSE_NORMAL,
    CLOSE_OVER_LIMIT,
    CLOSE_TOKEN_EXPIRED,
    MAX_FRAME,
    TERMINAL_CLOSES,
)
from metered_sync.wire.names import utf8_size
from metered_sync.wire.timings import DEFAULT, Timings
from metered_sync.wire.urls import scrub

__all__ = ["Request", "SignallingLink", "State"]

State = Literal["idle", "connecting", "connected", "reconnecting", "closed"]
logger = logging.getLogger("metered_sync")

REPLAY_ATTEMPTS = 4


class Request:
    """A frame on its way out, and the wait for its acknowledgement."""

    __slots__ = ("ended", "error", "id", "on_ack", "sent", "text", "wait", "what")

    def __init__(
        self,
        request_id: str,
        text: str,
        what: str,
        on_ack: Callable[[], None] | None = None,
        wait: bool = True,
    ) -> None:
        self.id = request_id
        self.text = text
        self.what = what
        self.on_ack = on_ack
        """Runs on the loop, before whoever waits is released."""
        self.wait = wait
        """Whether an outage before it has left is waited out."""
        self.sent = False
        self.error: BaseException | None = None
        self.ended = Signal()

    def finish(self, error: BaseException | None = None) -> None:
        """Release whoever waits. The first outcome counts."""
        if not self.ended.is_set:
            self.error = error
            self.ended.set()


@dataclass
class _Channel:
    """A channel that somebody here reads."""

    readers: tuple[weakref.ref[Reader[Message]], ...] = ()
    forgotten: bool = False
    """Whether a reader was collected without being closed: callbacks may count on it."""
    wanted_metadata: bool = False
    metadata: bool = False
    """What the server has acknowledged."""
    acknowledged: bool = False

    def alive(self) -> list[Reader[Message]]:
        """Return the readers that somebody still holds."""
        return [reader for ref in self.readers if (reader := ref()) is not None]

    def keep(self, readers: list[Reader[Message]]) -> None:
        """Replace the readers; note those that are gone."""
        self.forgotten |= any(ref() is None for ref in self.readers)
        self.readers = tuple(weakref.ref(reader) for reader in readers)


class SignallingLink(Link):
    """One client's connection over its whole life, reconnects included."""

    def __init__(
        self,
        engine: Engine,
        sink: EventSink,
        options: SignallingOptions,
        label: str,
        timings: Timings = DEFAULT,
    ) -> None:
        self.label = label
        self.state: State = "idle"
        self.peer_id: str | None = None
        self.expires_at: float | None = None
        self.max_message_size = MAX_FRAME
        self.ice_servers: tuple[IceServer, ...] | None = None
        self.error: BaseException | None = None
        """Why the link is closed, once it is."""
        self._engine = engine
        self._sink = sink
        self._options = options
        self._timings = timings
        self._lock = threading.Lock()
        self._outbox: deque[Request] = deque()
        self._pending: dict[str, Request] = {}
        self._channels: dict[str, _Channel] = {}
        self._woken = False
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)  # next() on it is atomic
        # From here on: the loop thread only.
        self._connection: ClientConnection | None = None
        self._wake: anyio.Event | None = None
        self._scope: anyio.CancelScope | None = None
        self._finished: anyio.Event | None = None
        self._last_text = 0.0
        self._retry_after: float | None = None
        self._dialler = Dialler(sink, options, label, timings)
        self._bucket = _Bucket(options.rate_limit)

    # --- any thread ---

    def request(
        self,
        build: Callable[[str], str],
        what: str,
        on_ack: Callable[[], None] | None = None,
        *,
        wait: bool = True,
    ) -> Request:
        """Queue a frame; ``build`` makes its text from the request's id.

        Raises :class:`OversizedPayloadError`, and what ended the link if it is closed.
        """
        request_id = self._next_id()
        text = build(request_id)
        size = utf8_size(text)
        if size > self.max_message_size:
            raise OversizedPayloadError(
                f"{what}: the frame is {size} bytes, the server accepts {self.max_message_size}; "
                "split the data or send a reference to it",
                size=size,
                cap=self.max_message_size,
            )
        request = Request(request_id, text, what, on_ack, wait)
        with self._lock:
            self._check_open(what)
            if not wait and self.state == "reconnecting":
                raise _down(what)
            self._queue(request)
        return request

    def _queue(self, request: Request) -> None:
        """Put a request into the outbox; the lock is held."""
        self._pending[request.id] = request
        self._outbox.append(request)
        if not self._woken:
            self._woken = True
            self._engine.post(self._on_wake)

    def _next_id(self) -> str:
        return f"{self._prefix}-{next(self._numbers)}"

    def forget(self, request: Request) -> None:
        """Give up on a request: if it has not left, it never will."""
        with self._lock:
            self._pending.pop(request.id, None)
            if not request.sent:
                try:
                    self._outbox.remove(request)
                except ValueError:
                    pass

    def _check_open(self, what: str) -> None:
        if self.error is not None:
            raise fresh(self.error)
        if self.state in ("idle", "connecting"):
            raise NotConnectedError(
                f"{what}: {self.label} is not connected yet; use `with`, or call connect() first"
            )

    def add_reader(self, name: str, reader: Reader[Message], metadata: bool) -> bool:
        """Deliver a channel's messages to ``reader``; say whether the server must be asked."""
        with self._lock:
            self._check_open(f"subscribe to {name!r}")
            channel = self._channels.setdefault(name, _Channel())
            channel.wanted_metadata |= metadata
            channel.keep([*channel.alive(), reader])
            return not channel.acknowledged or channel.wanted_metadata > channel.metadata

    def subscribed(self, name: str, metadata: bool) -> None:
        """Note that the server has acknowledged a channel; reconnects repeat it from now on."""
        with self._lock:
            if name in self._channels:
                self._channels[name].acknowledged = True
                self._channels[name].metadata = metadata

    def wants_metadata(self, name: str) -> bool:
        """Whether any reader of the channel asked for its senders' metadata."""
        with self._lock:
            return name in self._channels and self._channels[name].wanted_metadata

    def remove_reader(self, name: str, reader: Reader[Message]) -> None:
        """Stop delivering to a reader; the channel's last one takes the subscription along."""
        with self._lock:
            channel = self._channels.get(name)
            if channel is not None and reader in (readers := channel.alive()):
                readers.remove(reader)
                channel.keep(readers)
                if not readers and not channel.forgotten:
                    self._unsubscribe(name)

    def remove_channel(self, name: str) -> Request | None:
        """End a channel's readers; return the request that tells the server, if it must."""
        with self._lock:
            channel = self._channels.get(name)
            if channel is None:
                return None
            readers, request = channel.alive(), self._unsubscribe(name)
        for reader in readers:
            reader.end()
        return request

    def _unsubscribe(self, name: str) -> Request:
        """Forget a channel and tell the server, in one step: no subscribe() comes between."""
        del self._channels[name]
        request_id = self._next_id()
        text = frames.build_unsubscribe(name, request_id)
        request = Request(request_id, text, f"unsubscribe from {name!r}")
        self._queue(request)
        return request

    # --- life, on the loop ---

    async def connect(self) -> None:
        """Connect for the first time. Fails with the reason; is not retried."""
        async with self.opening():
            if self.error is not None:
                raise fresh(self.error)
            if self.state == "idle":
                await self._connect()

    async def _connect(self) -> None:
        self._set_state("connecting")
        self._engine.links.add(self)
        welcome = None
        try:
            with anyio.CancelScope() as self._scope:
                self._connection, welcome = await self._dialler.open(within=math.inf)
        finally:
            if welcome is None:
                self._engine.links.discard(self)
                self._set_state("idle")
        if self.error is not None or welcome is None:  # closed meanwhile
            raise fresh(self.error or ClosedError(f"{self.label} is closed"))
        self._welcomed(welcome, is_reconnect=False)
        self._finished = anyio.Event()
        self._engine.spawn(self, self._run)

    async def aclose(self) -> None:
        """Close with the code that says so: 1000, "client requested close"."""
        closed = ClosedError(f"{self.label} is closed")
        self._finish(closed, CLOSE_NORMAL, "client requested close")
        connection, finished = self._connection, self._finished
        try:
            if connection is not None:
                with anyio.move_on_after(self._timings.close):
                    await connection.close(CLOSE_NORMAL, "client requested close")
        finally:
            if self._scope is not None:
                self._scope.cancel()
        if finished is not None:
            await finished.wait()

    def abort(self, error: BaseException) -> None:
        """Wake every waiter with an error."""
        self._finish(error, ABNORMAL, str(error))
        if self._connection is not None and self._engine.error is None:
            self._connection.transport.abort()

    async def _run(self) -> None:
        """Serve one connection after the other until the link is closed."""
        assert self._finished is not None
        try:
            with anyio.CancelScope() as self._scope:
                replay = False
                while self.error is None:
                    code, reason = await self._serve(replay=replay)
                    if self.error is None:
                        await self._recover(code, reason)
                        replay = self._options.auto_resubscribe
        finally:
            self._finished.set()

    async def _recover(self, code: int, reason: str) -> None:
        """Reconnect after a loss, or close the link for good."""
        lost_at = time.monotonic()
        backoff = self._options.reconnect
        end = self._terminal(code)
        if end is None and backoff is None:
            end = "reconnect is off"
        if end is not None or backoff is None:
            self._give_up(code, reason, end or "")
            return
        self._fail_sent(code, reason)
        self._sink.emit(Disconnected(code, reason, will_reconnect=True))
        self._sink.emit(StateChange("connected", "reconnecting"))
        attempt = 0
        while True:
            attempt += 1
            if attempt > backoff.max_attempts:
                self._give_up(code, reason, f"{attempt - 1} attempts to reconnect failed")
                return
            floor = self._timings.slow_floor if code == CLOSE_OVER_LIMIT else 0.0
            floor = max(floor, self._retry_after or 0.0)
            self._retry_after = None
            await anyio.sleep(backoff.delay(attempt, floor))
            try:
                self._connection, welcome = await self._dialler.open(within=self._timings.open)
            except SignallingConnectError as error:
                code, reason = error.close_code, error.close_reason
                logger.info("%s: attempt %d failed: %s", self.label, attempt, error)
                end = self._terminal(code)
                if end is not None:
                    self._give_up(code, reason, end)
                    return
            else:
                break
        self._welcomed(welcome, is_reconnect=True)
        self._sink.emit(Outage(time.monotonic() - lost_at))

    def _terminal(self, code: int) -> str | None:
        """Say why a connection that ended with ``code`` must not be made again."""
        if code == CLOSE_TOKEN_EXPIRED and not self._options.renewable:
            return "the token has expired; pass a token_provider to renew it"
        if code in (401, 403) and not self._options.renewable:
            return "the server refuses the key or token"
        return TERMINAL_CLOSES.get(code)

    def _give_up(self, code: int, reason: str, why: str) -> None:
        message = f"{self.label}: the connection ended (code {code}, {scrub(reason)!r}): {why}"
        self._finish(DisconnectedError(message, code=code, reason=reason), code, reason)

    def _finish(self, error: BaseException, code: int, reason: str) -> None:
        """Close for good: every waiter gets ``error``, readers drain first."""
        with self._lock:
            if self.error is not None:
                return
            was, self.state, self.error = self.state, "closed", error
            requests, self._pending = self._pending, {}
            channels, self._channels = self._channels, {}
            self._outbox.clear()
        self._engine.links.discard(self)
        for request in requests.values():
            request.finish(fresh(error))
        end = None if isinstance(error, ClosedError) else error
        for channel in channels.values():
            for reader in channel.alive():
                reader.end(end)
        if was in ("connected", "reconnecting"):
            self._sink.emit(Disconnected(code, reason, will_reconnect=False))
        self._sink.emit(StateChange(was, "closed"))
        self._sink.end(end)

    def _set_state(self, state: State) -> None:
        with self._lock:
            if self.error is not None:
                return
            was, self.state = self.state, state
        self._sink.emit(StateChange(was, state))

    # --- one connection, on the loop ---

    def _welcomed(self, welcome: frames.Welcome, *, is_reconnect: bool) -> None:
        servers = frames.parse_ice_servers(welcome.metadata)
        self.peer_id = welcome.peer_id
        self.expires_at = welcome.expires_at
        self.max_message_size = welcome.max_message_size
        if servers is not None:  # a reconnect's welcome may leave them out
            self.ice_servers = servers
        self._last_text = time.monotonic()
        self._set_state("connected")
        self._sink.emit(
            Connected(
                welcome.peer_id,
                welcome.server_time,
                welcome.expires_at,
                is_reconnect,
                welcome.max_message_size,
                self.ice_servers,
            )
        )

    async def _serve(self, *, replay: bool) -> tuple[int, str]:
        """Carry frames until the connection ends; return its close code and reason."""
        connection, self._retry_after = self._connection, None
        assert connection is not None
        self._bucket.fill()
        self._wake = anyio.Event()
        try:
            async with anyio.create_task_group() as group:
                replayed = anyio.Event()
                if replay:
                    group.start_soon(self._replay, connection, replayed)
                else:
                    replayed.set()
                group.start_soon(self._until_closed, self._write, connection, replayed)
                group.start_soon(self._until_closed, self._watch, connection)
                await self._until_closed(self._read, connection)
                group.cancel_scope.cancel()
        finally:
            self._connection = None
            connection.transport.abort()  # where the close handshake did not end it
        # (On the connection itself these exist since websockets 14.1 only.)
        protocol = connection.protocol
        return protocol.close_code or ABNORMAL, scrub(protocol.close_reason or "")

    async def _until_closed(
        self, task: Callable[..., Awaitable[None]], connection: ClientConnection, *args: Any
    ) -> None:
        try:
            await task(connection, *args)
        except ConnectionClosed:
            pass  # the reader ends the connection's tasks

    async def _read(self, connection: ClientConnection) -> None:
        while True:
            text = await connection.recv()
            self._last_text = time.monotonic()
            try:
                frame = frames.parse_server_frame(text)
            except frames.FrameError as error:
                logger.warning("%s: ignored a frame: %s", self.label, error)
                continue
            if frame is not None:
                self._handle(frame)

    async def _write(self, connection: ClientConnection, replayed: anyio.Event) -> None:
        await replayed.wait()
        while self._wake is not None:
            if self._outbox:
                await self._bucket.take()
            request = self._next()
            if request is not None:
                await connection.send(request.text)
            else:
                await self._wake.wait()
                self._wake = anyio.Event()

    def _next(self) -> Request | None:
        with self._lock:
            if self._outbox:
                request = self._outbox.popleft()
                request.sent = True
                return request
            self._woken = False
            return None

    def _on_wake(self) -> None:
        if self._wake is not None:
            self._wake.set()

    async def _watch(self, connection: ClientConnection) -> None:
        """Ping while nothing arrives; close a connection that stays silent."""
        limit = self._options.inactivity_timeout
        interval = max(self._timings.ping_floor, limit * self._timings.ping_fraction)
        while True:
            silence = time.monotonic() - self._last_text
            if silence >= limit:
                logger.info("%s: nothing arrived for %.0f s", self.label, silence)
                await connection.close(CLOSE_INACTIVITY, "inactivity")
                return
            pause = interval - silence
            if silence >= interval:
                pause = min(interval, limit - silence)
                # A peer that reads no more blocks sending, too.
                with anyio.move_on_after(pause):
                    await self._bucket.take()
                    await connection.send(frames.build_ping())
            await anyio.sleep(max(pause, 0.01))

    async def _replay(self, connection: ClientConnection, replayed: anyio.Event) -> None:
        """Repeat the subscriptions on a new connection, before anything else is sent."""
        with self._lock:
            open_ = {name for name, c in self._channels.items() if c.acknowledged}
        for _ in range(REPLAY_ATTEMPTS):
            requests = {}
            for name in sorted(open_):
                requests[name] = await self._repeat(connection, name)
            replayed.set()
            if not requests:
                return
            await anyio.sleep(self._timings.replay_retry)
            open_ = {n for n, r in requests.items() if not r.ended.is_set or self._refusal(n, r)}
            with self._lock:
                open_ &= set(self._channels)
                for request in requests.values():
                    self._pending.pop(request.id, None)
        if open_:
            logger.error("%s: no acknowledgement for subscriptions %s", self.label, sorted(open_))

    async def _repeat(self, connection: ClientConnection, name: str) -> Request:
        request_id = self._next_id()
        text = frames.build_subscribe(
            name, request_id, include_sender_metadata=self.wants_metadata(name)
        )
        request = Request(request_id, text, f"subscribe to {name!r}")
        request.sent = True
        with self._lock:
            self._pending[request_id] = request
        try:
            await self._bucket.take()
            await connection.send(text)
        except ConnectionClosed:
            pass
        return request

    def _refusal(self, name: str, request: Request) -> bool:
        """End a channel's readers if it was refused for good; say whether to try again."""
        error = request.error
        if error is None:
            return False
        if not isinstance(error, ServerRequestError) or error.code in (
            "backend_error",
            "internal_error",
        ):
            return True
        with self._lock:
            channel = self._channels.pop(name, None)
        for reader in channel.alive() if channel is not None else ():
            reader.end(error)
        return False

    def _fail_sent(self, code: int, reason: str) -> None:
        """Fail what was in flight; what has not left waits for the next connection."""
        with self._lock:
            self.state = "reconnecting"
            lost = [r for r in self._pending.values() if r.sent or not r.wait]
            for request in lost:
                del self._pending[request.id]
            self._outbox = deque(r for r in self._outbox if r.wait)
            if not self._options.auto_resubscribe:
                for channel in self._channels.values():
                    channel.acknowledged = channel.metadata = False
        for request in lost:
            request.finish(
                DisconnectedError(
                    f"{request.what}: the connection was lost (code {code}) before the "
                    "acknowledgement; it may or may not have been delivered",
                    code=code,
                    reason=reason,
                )
                if request.sent
                else _down(request.what)
            )

    def _handle(self, frame: frames.ServerFrame) -> None:
        if isinstance(frame, frames.Ack):
            request = self._pending.pop(frame.request_id, None)
            if request is not None:
                if request.on_ack is not None:
                    request.on_ack()
                request.finish()
        elif isinstance(frame, Message):
            channel = self._channels.get(frame.channel)
            for ref in channel.readers if channel is not None else ():
                reader = ref()
                if reader is not None:
                    reader.put(frame)
            self._sink.emit(frame)
        elif isinstance(frame, (Direct, Presence)):
            self._sink.emit(frame)
        elif isinstance(frame, frames.ErrorFrame):
            self._handle_error(frame)
        elif isinstance(frame, frames.GoingAwayFrame):
            delay = self._timings.going_away_default
            if frame.retry_after_ms is not None:
                delay = min(frame.retry_after_ms / 1000, self._timings.going_away_max)
            self._retry_after = delay
            self._sink.emit(GoingAway(round(delay * 1000)))

    def _handle_error(self, frame: frames.ErrorFrame) -> None:
        request = self._pending.pop(frame.request_id, None) if frame.request_id else None
        if request is not None:
            detail = f": {scrub(frame.message)}" if frame.message else ""
            remedy = _REMEDIES.get(frame.code)
            request.finish(
                ServerRequestError(
                    f"{request.what}: the server refused it ({frame.code}){detail}"
                    + (f"; {remedy}" if remedy else ""),
                    code=frame.code,
                    request_id=frame.request_id,
                )
            )
        elif not (frame.code == "unknown_type" and frame.request_id is None):
            # (A server older than app-level pings answers them so.)
            text = scrub(frame.message) if frame.message is not None else None
            logger.warning("%s: the server reports %s: %s", self.label, frame.code, text)
            self._sink.emit(ServerError(frame.code, text, frame.request_id))


def _down(what: str) -> NotConnectedError:
    return NotConnectedError(f"{what}: the connection is down and being made again")


_REMEDIES = {
    "action_not_permitted": "the key or token lacks that permission (publishable keys lack Send "
    "unless it is switched on in the dashboard)",
    "channel_not_authorized": "the key's or token's patterns do not cover the channel",
    "channel_limit_exceeded": "unsubscribe from another channel first",
    "peer_not_found": "no such peer is connected now",
    "over_message_quota": "the plan's messages are used up",
}


class _Bucket:
    """The client's side of the service's token bucket: frames per second, and a burst."""

    def __init__(self, limit: tuple[float, float] | None) -> None:
        self._rate, self._burst = limit or (0.0, 0.0)
        self._tokens = self._burst
        self._at = time.monotonic()

    def fill(self) -> None:
        """Start anew: the server's bucket is one per connection."""
        self._tokens, self._at = self._burst, time.monotonic()

    async def take(self) -> None:
        """Wait until a frame may be sent."""
        if not self._rate:
            return
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        self._tokens -= 1
        if self._tokens < 0:
            await anyio.sleep(-self._tokens / self._rate)
