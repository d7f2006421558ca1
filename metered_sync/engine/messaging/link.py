"""The messaging connection: connect, keep alive, reconnect, and carry frames.

States (the facade shows the same names)::

    idle ──connect()──▶ connecting ──welcome──▶ connected ◀──welcome── reconnecting
      ▲                     │ failed               │ lost                ▲   │
      └─────────────────────┘                      ├────────────────────┘   │ budget spent,
                                                   │ terminal code, close()  │ close()
                                                   └───────────▶ closed ◀────┘

Frames cross without tasks, through an :class:`Outbox`, and messages through the readers of
:class:`Channels`. What is here runs on the loop thread, except where it says otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Literal

import anyio

from metered_sync.bridge.loop import Engine, EventSink, Link
from metered_sync.bridge.reader import Reader
from metered_sync.engine.messaging.handshake import ABNORMAL, Dialler, SignallingOptions
from metered_sync.engine.messaging.outbox import Outbox, Request
from metered_sync.engine.messaging.subscriptions import Channels
from metered_sync.engine.messaging.websocket import WebSocket
from metered_sync.errors import (
    AckTimeoutError,
    ClosedError,
    DisconnectedError,
    NotConnectedError,
    OversizedPayloadError,
    ServerRequestError,
    SignallingConnectError,
    fresh,
)
from metered_sync.wire import frames
from metered_sync.wire.events import (
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
from metered_sync.wire.limits import (
    CLOSE_INACTIVITY,
    CLOSE_NORMAL,
    CLOSE_OVER_LIMIT,
    CLOSE_TOKEN_EXPIRED,
    MAX_FRAME,
    TERMINAL_CLOSES,
)
from metered_sync.wire.secrets import scrub
from metered_sync.wire.timings import DEFAULT_TIMINGS, Timings

__all__ = ["SignallingLink", "State"]

State = Literal["idle", "connecting", "connected", "reconnecting", "closed"]
logger = logging.getLogger("metered_sync")

REPLAY_ATTEMPTS = 4
PASSING = ("backend_error", "internal_error")
"""Codes of the server after which asking again makes sense."""


class _Replay:
    """Subscriptions that were asked for again after a reconnect; on the loop."""

    def __init__(self) -> None:
        self.requests: dict[str, Request] = {}
        self.ended = anyio.Event()
        """All of them have been answered."""
        self._left = 0
        self.ended.set()

    def add(self, name: str, request: Request) -> None:
        if not self.requests:
            self.ended = anyio.Event()
        self.requests[name] = request
        self._left += 1

    def note_end(self, _: Request) -> None:
        self._left -= 1
        if not self._left:
            self.ended.set()


class SignallingLink(Link):
    """One client's connection over its whole life, reconnects included."""

    def __init__(
        self,
        engine: Engine,
        sink: EventSink,
        options: SignallingOptions,
        label: str,
        timings: Timings = DEFAULT_TIMINGS,
    ) -> None:
        self.label = label
        self.state: State = "idle"
        self.peer_id: str | None = None
        self.expires_at: float | None = None
        self.max_message_size = MAX_FRAME
        self.ice_servers: tuple[IceServer, ...] | None = None
        self.error: BaseException | None = None
        """Why the link is closed, once it is."""
        self.channels = Channels()
        self._engine = engine
        self._sink = sink
        self._options = options
        self._timings = timings
        # Guards ``state`` and ``error``: an engine that dies closes the link from elsewhere.
        self._lock = threading.Lock()
        self._outbox = Outbox(options.rate_limit, self._wake)
        self._connection: WebSocket | None = None
        self._sending = False  # whether the connection takes what is in the outbox
        self._timer: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._scope: anyio.CancelScope | None = None
        self._finished: anyio.Event | None = None
        self._retry_after: float | None = None
        self._lost_at: float | None = None
        self._dialler = Dialler(sink, options, label, timings)

    # --- any thread ---

    def request(
        self,
        build: Callable[[str], str],
        what: str,
        *,
        wait: bool = True,
        on_end: Callable[[Request], None] | None = None,
        timeout: float | None = None,
    ) -> Request:
        """Queue a frame; ``build`` makes its text from the request's id.

        A request with a ``timeout`` is one that nobody waits for: it expires by itself, and
        there is a limit to how many may be queued.

        Raises :class:`OversizedPayloadError`, what ended the link if it is closed, and
        ``queue.Full``.
        """
        if self.error is not None:
            raise fresh(self.error)
        if self.state in ("idle", "connecting"):
            raise self._not_connected(what)
        request_id = self._outbox.new_id()
        payload = build(request_id).encode()
        if len(payload) > self.max_message_size:
            raise OversizedPayloadError(
                f"{what}: the frame is {len(payload)} bytes, the server accepts "
                f"{self.max_message_size}; split the data or send a reference to it",
                size=len(payload),
                cap=self.max_message_size,
            )
        request = Request(request_id, payload, what, wait=wait, on_end=on_end, timeout=timeout)
        self._outbox.put(request, bounded=timeout is not None)
        return request

    def _wake(self) -> None:
        self._engine.post(self._flush)

    def forget(self, request: Request) -> None:
        """Give up on a request: it leaves no more, or its acknowledgement counts no more."""
        self._outbox.forget(request)

    def withdraw(self, request: Request) -> bool:
        """Take back a request that has not left; say whether that worked."""
        return self._outbox.withdraw(request)

    def _not_connected(self, what: str) -> NotConnectedError:
        return NotConnectedError(
            f"{what}: {self.label} is not connected yet; use `with`, or call connect() first"
        )

    def add_reader(self, name: str, reader: Reader[Message], metadata: bool) -> bool:
        """Deliver a channel's messages to ``reader``; say whether the server must be asked."""
        with self._lock:
            if self.error is not None:
                raise fresh(self.error)
            if self.state in ("idle", "connecting"):
                raise self._not_connected(f"subscribe to {name!r}")
            return self.channels.add(name, reader, metadata)

    def remove_reader(self, name: str, reader: Reader[Message]) -> None:
        """Stop delivering to a reader; the channel's last one takes the subscription along."""
        self.channels.remove(name, reader, lambda: self._unsubscribe(name))

    def remove_channel(self, name: str) -> Request | None:
        """End a channel's readers; return the request that tells the server, if it must."""
        requests: list[Request] = []
        self.channels.remove_all(name, lambda: requests.append(self._unsubscribe(name)))
        return requests[0] if requests else None

    def _unsubscribe(self, name: str) -> Request:
        request_id = self._outbox.new_id()
        payload = frames.build_unsubscribe(name, request_id).encode()
        request = Request(request_id, payload, f"unsubscribe from {name!r}")
        try:
            self._outbox.put(request)
        except (ClosedError, DisconnectedError) as error:
            request.finish(error)
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
                await self._close(connection, CLOSE_NORMAL, "client requested close")
        finally:
            self._dialler.stop()
            if self._scope is not None:
                self._scope.cancel()
        if finished is not None:
            await finished.wait()

    async def _close(self, connection: WebSocket, code: int, reason: str) -> None:
        """Close a connection, in good order if the server plays along in time."""
        with anyio.move_on_after(self._timings.close):
            await connection.close(code, reason)
        connection.transport.abort()

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
                    code, reason = await self._serve(replay)
                    if self.error is None:
                        await self._recover(code, reason)
                        replay = self._options.auto_resubscribe
        finally:
            self._finished.set()

    async def _recover(self, code: int, reason: str) -> None:
        """Reconnect after a loss, or close the link for good."""
        if self._lost_at is None:
            self._lost_at = time.monotonic()
        backoff = self._options.reconnect
        end = self._terminal(code)
        if end is None and backoff is None:
            end = "reconnect is off"
        if end is not None or backoff is None:
            self._give_up(code, reason, end or "")
            return
        with self._lock:
            self.state = "reconnecting"
        self._outbox.down(code, reason)
        if not self._options.auto_resubscribe:
            self.channels.lapse()
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
        self._engine.links.discard(self)
        self._outbox.close(error)
        end = None if isinstance(error, ClosedError) else error
        self.channels.close(end)
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

    async def _serve(self, replay: bool) -> tuple[int, str]:
        """Carry frames until the connection ends; return its close code and reason."""
        connection, self._retry_after = self._connection, None
        assert connection is not None
        self._outbox.up()
        names = self.channels.to_repeat() if replay else []
        repeated = self._repeat(names)  # before anything else is sent
        self._sending, connection.on_room = True, self._flush
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._watch, connection)
                group.start_soon(self._replay, repeated)
                connection.listen(self._receive)
                self._flush()
                await connection.wait_closed()
                group.cancel_scope.cancel()
        finally:
            self._connection, self._sending = None, False
            connection.transport.abort()  # where the close handshake did not end it
            for timer in (self._timer, self._expiry):
                if timer is not None:
                    timer.cancel()
            self._timer = self._expiry = None
        # (On the connection itself these exist since websockets 14.1 only.)
        protocol = connection.protocol
        return int(protocol.close_code or ABNORMAL), scrub(protocol.close_reason or "")

    # --- sending ---

    def _flush(self) -> None:
        """Send what is queued, as far as the connection and the rate limit allow it now."""
        connection = self._connection
        if connection is None or not self._sending or not connection.is_open:
            return  # the next connection begins with it
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while connection.is_open and not connection.full:  # (a write may find it broken)
            requests, delay = self._outbox.batch()
            if not requests:
                if delay >= 0:
                    self._timer = asyncio.get_running_loop().call_later(delay, self._flush)
                break
            connection.transport.write(b"".join([request.frame for request in requests]))
            for request in requests:
                request.frame = b""  # who waits for an acknowledgement needs it no more
            if self._expiry is None:
                self._expire()

    def _expire(self) -> None:
        """Fail requests that nobody waits for and whose acknowledgement is overdue."""
        now = time.monotonic()
        expired, next_at = self._outbox.expired(now)
        for request in expired:
            request.finish(
                AckTimeoutError(
                    f"{request.what}: no acknowledgement within {request.timeout:g} s; it was sent",
                    request_id=request.id,
                    timeout=request.timeout or 0.0,
                    sent=True,
                )
            )
        loop = asyncio.get_running_loop()
        self._expiry = loop.call_later(next_at - now, self._expire) if next_at else None

    async def _watch(self, connection: WebSocket) -> None:
        """Ping while nothing arrives; close a connection that stays silent."""
        limit = self._options.inactivity_timeout
        interval = max(self._timings.ping_floor, limit * self._timings.ping_fraction)
        while True:
            silence = time.monotonic() - connection.last_text
            if silence >= limit:
                logger.info("%s: nothing arrived for %.0f s", self.label, silence)
                await self._close(connection, CLOSE_INACTIVITY, "inactivity")
                return
            pause = interval - silence
            if silence >= interval:
                pause = min(interval, limit - silence)
                ping = Request("", frames.build_ping().encode(), "ping", wait=False)
                self._outbox.urge([ping], expect_ack=False)
                self._flush()
            await anyio.sleep(max(pause, 0.01))

    # --- subscriptions after a reconnect ---

    def _repeat(self, names: list[str]) -> _Replay:
        """Ask for subscriptions again, before anything else that is queued."""
        replay = _Replay()
        for name in names:
            metadata = self.channels.wants_metadata(name)
            request_id = self._outbox.new_id()
            text = frames.build_subscribe(name, request_id, include_sender_metadata=metadata)
            what = f"subscribe to {name!r}"
            replay.add(
                name,
                Request(
                    request_id,
                    text.encode(),
                    what,
                    wait=False,
                    on_end=self.on_subscribed(name, metadata, replay.note_end),
                ),
            )
        self._outbox.urge(list(replay.requests.values()))
        return replay

    def on_subscribed(
        self, name: str, metadata: bool, then: Callable[[Request], None] | None = None
    ) -> Callable[[Request], None]:
        """Return what is to happen when a subscription's request has ended."""

        def on_end(request: Request) -> None:
            if request.error is None:
                self.channels.acknowledged(name, metadata, lambda: self._unsubscribe(name))
            if then is not None:
                then(request)

        return on_end

    async def _replay(self, replay: _Replay) -> None:
        """See to it that subscriptions are acknowledged; then the outage is over."""
        for attempt in range(1, REPLAY_ATTEMPTS + 1):
            with anyio.move_on_after(self._timings.replay_retry) as pause:
                await replay.ended.wait()
            wanted = self.channels.to_repeat()  # less what has been unsubscribed meanwhile
            names = [
                n for n, r in replay.requests.items() if n in wanted and not self._is_settled(n, r)
            ]
            if not names:
                break
            if attempt == REPLAY_ATTEMPTS:
                for name in names:
                    self._give_up_on(name)
                break
            if not pause.cancelled_caught:  # refused in passing: do not ask again at once
                await anyio.sleep(self._timings.replay_retry)
            replay = self._repeat(names)
            self._flush()
        if self._lost_at is not None:
            lost_at, self._lost_at = self._lost_at, None
            self._sink.emit(Outage(time.monotonic() - lost_at))

    def _is_settled(self, name: str, request: Request) -> bool:
        """Whether a subscription is back or refused for good; one that is neither is forgotten."""
        error = request.error
        if request.ended.is_set and error is None:
            return True
        if isinstance(error, ServerRequestError) and error.code not in PASSING:
            self._lose(name, error, error.code)
            return True
        self._outbox.forget(request)
        return False

    def _give_up_on(self, name: str) -> None:
        """Stop asking for a subscription that the server does not acknowledge."""
        error = AckTimeoutError(
            f"subscription to {name!r}: after a reconnect the server did not acknowledge it in "
            f"{REPLAY_ATTEMPTS} attempts; subscribe again",
            request_id="",
            timeout=REPLAY_ATTEMPTS * self._timings.replay_retry,
            sent=True,
        )
        self._lose(name, error, "subscription_lost")

    def _lose(self, name: str, error: BaseException, code: str) -> None:
        """Tell a channel's readers, and callbacks, that it is subscribed to no more."""
        logger.error("%s: %s", self.label, error)
        self.channels.refuse(name, error)
        self._sink.emit(ServerError(code, str(error), None))

    # --- receiving ---

    def _receive(self, text: bytes | None) -> None:
        """Take a message of the connection."""
        if text is None:
            logger.warning("%s: ignored a binary frame", self.label)
            return
        request = self._outbox.take(frames.acknowledged(text))
        if request is not None:
            request.finish()
            return
        try:
            frame = frames.parse_server_frame(text)
        except frames.FrameError as error:
            logger.warning("%s: ignored a frame: %s", self.label, error)
        else:
            self._handle(frame)

    def _handle(self, frame: frames.ServerFrame | None) -> None:
        if isinstance(frame, Message):
            self.channels.deliver(frame)
            self._sink.emit(frame)
        elif isinstance(frame, Direct):
            self._sink.emit(frame)
        elif isinstance(frame, Presence):
            self.channels.note_presence(frame, self.peer_id)
            self._sink.emit(frame)
        elif isinstance(frame, frames.Ack):
            request = self._outbox.take(frame.request_id)
            if request is not None:
                request.finish()
        elif isinstance(frame, frames.ErrorFrame):
            self._handle_error(frame)
        elif isinstance(frame, frames.GoingAwayFrame):
            delay = self._timings.going_away_default
            if frame.retry_after_ms is not None:
                delay = min(frame.retry_after_ms / 1000, self._timings.going_away_max)
            self._retry_after = delay
            self._sink.emit(GoingAway(round(delay * 1000)))
        elif frame is None:
            logger.info("%s: ignored a frame of a type that is not known", self.label)

    def _handle_error(self, frame: frames.ErrorFrame) -> None:
        request = self._outbox.take(frame.request_id) if frame.request_id else None
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


_REMEDIES = {
    "action_not_permitted": "the key or token lacks that permission (publishable keys lack Send "
    "unless it is switched on in the dashboard)",
    "channel_not_authorized": "the key's or token's patterns do not cover the channel",
    "channel_limit_exceeded": "unsubscribe from another channel first",
    "peer_not_found": "no such peer is connected now",
    "over_message_quota": "the plan's messages are used up",
}
