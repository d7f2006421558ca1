"""The messaging connection over its whole life: connect, keep alive, reconnect, close.

States (the facade shows the same names)::

    idle ──connect()──▶ connecting ──welcome──▶ connected ◀──welcome── reconnecting
      ▲                     │ failed               │ lost                ▲   │
      └─────────────────────┘                      ├────────────────────┘   │ budget spent,
                                                   │ terminal code, close()  │ close()
                                                   └───────────▶ closed ◀────┘

Frames cross without tasks, through an :class:`Outbox`, and messages through the readers of
:class:`Subscriptions`. Its methods run on the loop thread, except where one says otherwise.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.link import Link, MessageSink
from metered_sync.bridge.loop import Engine
from metered_sync.bridge.reader import Reader
from metered_sync.engine.messaging.handshake import Connector
from metered_sync.engine.messaging.inbound import Inbound
from metered_sync.engine.messaging.keepalive import await_silence
from metered_sync.engine.messaging.options import SignallingOptions
from metered_sync.engine.messaging.outbox import Outbox
from metered_sync.engine.messaging.replay import Replay
from metered_sync.engine.messaging.request import OutagePolicy, Request
from metered_sync.engine.messaging.subscriptions import Subscriptions
from metered_sync.errors import (
    AckTimeoutError,
    ClosedError,
    DisconnectedError,
    MeteredError,
    NotConnectedError,
    SignallingConnectError,
)
from metered_sync.wire import frames
from metered_sync.wire.events import (
    Connected,
    Disconnected,
    IceServer,
    Message,
    Outage,
    StateChange,
)
from metered_sync.wire.limits import (
    CLOSE_ABNORMAL,
    CLOSE_INACTIVITY,
    CLOSE_NORMAL,
    CLOSE_OVER_LIMIT,
)
from metered_sync.wire.secrets import scrub
from metered_sync.wire.states import SignallingClientState
from metered_sync.wire.timings import DEFAULT_TIMINGS, Timings
from metered_sync.wire.turn import welcome_ice_servers, welcome_metadata

if TYPE_CHECKING:
    from metered_sync.engine.messaging.websocket import WebSocket

__all__ = ["SignallingLink"]

logger = logging.getLogger("metered_sync")


class SignallingLink(Link):
    """One client's connection over its whole life, reconnects included."""

    def __init__(
        self,
        engine: Engine,
        sink: MessageSink,
        options: SignallingOptions,
        label: str,
        timings: Timings = DEFAULT_TIMINGS,
    ) -> None:
        self.label = label
        self.state: SignallingClientState = "idle"
        self.peer_id: str | None = None
        self.expires_at: float | None = None
        self.ice_servers: tuple[IceServer, ...] | None = None
        self.outbox = Outbox(options.rate_limit, engine.post)
        self.subscriptions = Subscriptions(self.outbox)
        self._engine = engine
        self._sink = sink
        self._options = options
        self._timings = timings
        self._connector = Connector(sink, options, label, timings)
        self._connection: WebSocket | None = None
        self._scope: anyio.CancelScope | None = None
        self._finished: anyio.Event | None = None
        self._retry_after: float | None = None
        self._lost_at: float | None = None

    @property
    def token(self) -> Callable[[], str | None]:
        """Returns the token that the connection was made with, where there is one."""
        return self._connector.token

    # --- any thread ---

    @property
    def max_message_size(self) -> int:
        """The largest frame that the server accepts, in bytes."""
        return self.outbox.max_size

    def check_open(self, what: str, *, blocking: bool = False) -> None:
        """Raise if nothing can be sent: what has ended the link, or that it is not up yet.

        ``blocking``: or if one cannot wait here for the acknowledgement.
        """
        if blocking:
            self._engine.check(what)
        self.check()
        if self.state in ("idle", "connecting"):
            raise NotConnectedError(
                f"{what}: {self.label} is not connected yet; use `with`, or call connect() first"
            )

    def request(
        self,
        request_id: str,
        text: str,
        what: str,
        *,
        outage: OutagePolicy = "wait",
        on_end: Callable[[Request], None] | None = None,
    ) -> Request:
        """Queue a frame that bears the id, and return the wait for its acknowledgement.

        Raises as :meth:`Outbox.put` does.
        """
        request = Request(request_id, text, what, outage=outage, on_end=on_end)
        self.outbox.put(request)
        return request

    def subscribe(self, channel: str, reader: Reader[Message], metadata: bool) -> Request:
        """Have messages of a channel delivered to a reader; return the wait for that."""
        request = Request("", "", f"subscribe to {channel!r}", outage="repeat")
        change = functools.partial(
            self.subscriptions.subscribe, channel, reader, metadata, request=request
        )
        return self._change(request, change)

    def unsubscribe(self, channel: str) -> Request:
        """End all readers of a channel; return the wait until the server knows."""
        request = Request("", "", f"unsubscribe from {channel!r}")
        change = functools.partial(self.subscriptions.remove_all, channel, request)
        return self._change(request, change)

    def _change(self, request: Request, change: Callable[[], Request | None]) -> Request:
        """Have the loop change subscriptions, which sends the request if it has to."""

        def run() -> None:
            try:
                if change() is None:
                    request.finish()
            except MeteredError as error:
                request.finish(error)

        self._engine.post(run)
        self._engine.check_running()  # else nobody would end the request
        return request

    def stop_delivery(self, channel: str, reader: Reader[Message]) -> None:
        """Deliver messages of a channel to a reader no longer; does not wait."""
        self._engine.post(self.subscriptions.remove, channel, reader)

    def wait(self, request: Request, deadline: Deadline) -> None:
        """Wait for a request's acknowledgement on a caller's thread; raise what it failed with."""
        try:
            ended = request.ended.wait(deadline)
        except BaseException:  # Ctrl-C
            self.outbox.forget(request)
            raise
        if not ended:
            self.outbox.forget(request)
            left = "it was sent" if request.sent else f"it never left ({self.state})"
            raise AckTimeoutError(
                f"{request.what}: no acknowledgement within {deadline}; {left}",
                request_id=request.id,
                timeout=deadline.timeout,
                sent=request.sent,
            )
        request.check()

    # --- the loop ---

    async def acknowledgement(self, request: Request) -> None:
        """Wait for a request's acknowledgement on the loop; raise what it failed with."""
        ended = anyio.Event()
        request.then(lambda _: ended.set())
        try:
            if not request.ended.is_set:
                await ended.wait()
        finally:
            if not request.ended.is_set:
                self.outbox.forget(request)
        request.check()

    async def connect(self) -> None:
        """Connect for the first time. Fails with the reason; is not retried."""
        async with self.opening():
            self.check()
            if self.state == "idle":
                await self._connect()

    def progress(self) -> tuple[str, bool]:
        """Say how far connecting has come, and that no request has left; from any thread."""
        return self._connector.stage, False

    async def _connect(self) -> None:
        self._set_state("connecting")
        self._engine.links.add(self)
        welcome = None
        try:
            with anyio.CancelScope() as self._scope:
                self._connection, welcome = await self._connector.open(within=math.inf)
        finally:
            if welcome is None:
                self._engine.links.discard(self)
                self._set_state("idle")
        self.check()  # it may have been closed meanwhile
        assert welcome is not None
        self._welcomed(welcome, is_reconnect=False)
        self._finished = anyio.Event()
        self._engine.spawn(self, self._run)

    async def aclose(self) -> None:
        """Close with the code that says so: 1000, "client requested close"."""
        self._finish(self.closed(), CLOSE_NORMAL, "client requested close")
        connection, finished = self._connection, self._finished
        try:
            if connection is not None:
                await self._close(connection, CLOSE_NORMAL, "client requested close")
        finally:
            self._stop()
        if finished is not None:
            await finished.wait()

    async def _close(
        self, connection: WebSocket, code: int, reason: str, within: float | None = None
    ) -> None:
        """Close a connection, in good order if the server plays along in time."""
        try:
            with anyio.move_on_after(self._timings.close if within is None else within):
                await connection.close(code, reason)
        finally:
            connection.abort()

    def lose_connection(self) -> None:
        """Reset the connection, as a network would; it is made again."""
        if self._connection is not None:
            self._connection.abort()

    def abort(self, error: BaseException) -> None:
        """Wake every waiter with an error."""
        self._finish(error, CLOSE_ABNORMAL, str(error))
        if self._engine.error is None:
            if self._connection is not None:
                self._connection.abort()
            self._stop()

    def _stop(self) -> None:
        """Break off what is being made."""
        self._connector.stop()
        if self._scope is not None:
            self._scope.cancel()

    async def _run(self) -> None:
        """Serve one connection after the other until the link is closed."""
        assert self._finished is not None
        try:
            with anyio.CancelScope() as self._scope:
                while self.error is None:
                    code, reason = await self._serve()
                    if self.error is None:
                        await self._recover(code, reason)
        finally:
            self._finished.set()

    async def _recover(self, code: int, reason: str) -> None:
        """Reconnect after a loss, or close the link for good."""
        if self._lost_at is None:
            self._lost_at = monotonic()
        backoff = self._options.reconnect
        end = self._options.why_final(code)
        if end is not None or backoff is None:
            self._give_up(code, reason, end or "reconnect is off")
            return
        self.state = "reconnecting"
        self.outbox.down(code, reason)
        if not self._options.auto_resubscribe:
            self.subscriptions.lapse()
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
                self._connection, welcome = await self._connector.open(within=self._timings.open)
            except SignallingConnectError as error:
                code, reason = error.close_code, error.close_reason
                self._retry_after = min(error.retry_after, self._timings.going_away_max)
                logger.info("%s: attempt %d failed: %s", self.label, attempt, error)
                end = self._options.why_final(code)
                if end is not None:
                    self._give_up(code, reason, end)
                    return
            else:
                break
        self._welcomed(welcome, is_reconnect=True)

    def _give_up(self, code: int, reason: str, why: str) -> None:
        """Close the link for good after a loss."""
        message = f"{self.label}: the connection ended (code {code}, {scrub(reason)!r}): {why}"
        self._finish(DisconnectedError(message, code=code, reason=reason), code, reason)

    def _finish(self, error: BaseException, code: int, reason: str) -> None:
        """Close for good: every waiter gets ``error``, readers drain first."""
        if self.error is not None:
            return
        was, self.state, self.error = self.state, "closed", error
        self._engine.links.discard(self)
        self.outbox.close(error)
        self.subscriptions.close(error)
        if was in ("connected", "reconnecting"):
            self._sink.emit(Disconnected(code, reason, will_reconnect=False))
        self._sink.emit(StateChange(was, "closed"))
        self._sink.end(None if isinstance(error, ClosedError) else error)

    def _set_state(self, state: SignallingClientState) -> None:
        if self.error is not None:
            return
        was, self.state = self.state, state
        self._sink.emit(StateChange(was, state))

    # --- one connection, on the loop ---

    def _welcomed(self, welcome: frames.Welcome, *, is_reconnect: bool) -> None:
        """Take over what the server's welcome says; the link is connected."""
        servers = welcome_ice_servers(welcome.metadata)
        self.peer_id = welcome.peer_id
        self.expires_at = welcome.expires_at
        self.outbox.max_size = welcome.max_message_size
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
                welcome_metadata(welcome.metadata),
            )
        )

    async def _serve(self) -> tuple[int, str]:
        """Carry frames until the connection ends; return its close code and reason."""
        connection = self._connection
        assert connection is not None
        ways = (self.outbox, self.subscriptions, self._sink, self.label, self._timings)
        inbound, replay = Inbound(*ways, own_id=self.peer_id), Replay(*ways)
        self.outbox.up(connection)
        replay.begin()  # before anything else is sent
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._keep_alive, connection)
                group.start_soon(self._restore, replay)
                connection.listen(inbound.receive)
                self.outbox.flush()
                await connection.wait_closed()
                group.cancel_scope.cancel()
        finally:
            self._connection = None
            self.outbox.stop()
            self._retry_after = inbound.retry_after
            connection.abort()  # where the close handshake did not end it
        return connection.close_code, scrub(connection.close_reason)

    async def _restore(self, replay: Replay) -> None:
        """See the subscriptions back; then the outage, if there was one, is over."""
        await replay.run()
        if self._lost_at is not None:
            lost_at, self._lost_at = self._lost_at, None
            self._sink.emit(Outage(monotonic() - lost_at))

    async def _keep_alive(self, connection: WebSocket) -> None:
        """Ping while nothing arrives; close a connection that stays silent."""
        limit = self._options.inactivity_timeout
        within = await await_silence(connection, self.outbox, limit, self._timings, self.label)
        await self._close(connection, CLOSE_INACTIVITY, "inactivity", within)
