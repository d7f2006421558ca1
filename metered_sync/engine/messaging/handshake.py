"""Make one messaging connection: the token, the upgrade, the server's welcome."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from metered_sync.bridge.link import EventSink
from metered_sync.engine.messaging.options import SignallingOptions
from metered_sync.engine.messaging.token_provider import TokenProvider, reason
from metered_sync.errors import SignallingConnectError
from metered_sync.wire import frames
from metered_sync.wire.events import TokenProviderError
from metered_sync.wire.limits import (
    CLOSE_ABNORMAL,
    CLOSE_NORMAL,
    CLOSE_OVER_LIMIT,
    CLOSE_TOKEN_EXPIRED,
    TERMINAL_CLOSES,
)
from metered_sync.wire.secrets import scrub
from metered_sync.wire.timings import Timings
from metered_sync.wire.urls import signalling_url

if TYPE_CHECKING:
    from metered_sync.engine.messaging.websocket import WebSocket

__all__ = ["Connector"]

REPORTED_FAILURES = 3
"""After how many failures in a row of the token provider an event tells of them."""


class Connector:
    """Make connections with one set of options; on the loop."""

    def __init__(
        self, sink: EventSink, options: SignallingOptions, label: str, timings: Timings
    ) -> None:
        # Here, on a caller's thread: it loads `websockets`, which importing this library need not.
        from metered_sync.engine.messaging.upgrade import open_socket

        self._open_socket = open_socket
        self._sink = sink
        self._options = options
        self._label = label
        self._timings = timings
        self.stage = "not begun"
        """How far the latest attempt has come, in words."""
        self.token: Callable[[], str | None] = lambda: None
        """Returns the newest token, where there is a provider."""
        self._provider_failures = 0
        provide = options.token_provider
        self._provider = None if provide is None else TokenProvider(provide)

    async def open(self, *, within: float) -> tuple[WebSocket, frames.Welcome]:
        """Connect and wait for the welcome; ``SignallingConnectError`` where that fails.

        ``within`` bounds the upgrade, in seconds; a first connect is bounded by its caller.
        """
        connection = await self._open_socket(
            await self._url(),  # (in no variable here: no frame of a traceback shows it)
            label=self._label,
            origin=self._options.url,
            ca_file=self._options.ca_file,
            within=within,
            close_timeout=self._timings.close,
        )
        self.stage = "waiting for the server's welcome"
        try:
            welcome = await self._await_welcome(connection)
            await checkpoint_if_cancelled()  # by a close that came when the welcome was there
        except BaseException:
            with anyio.move_on_after(self._timings.farewell, shield=True):
                await connection.close(CLOSE_NORMAL, "no welcome")
            connection.abort()
            raise
        return connection, welcome

    async def _url(self) -> str:
        """Return the address with its credential; a fresh token where there is a provider."""
        if self._provider is None:
            self.stage = f"opening {self._options.url}"
            return signalling_url(self._options.url, key=self._options.api_key)
        try:
            self.stage = "waiting for the token_provider"
            within = self._options.token_provider_timeout
            remedy = f"token_provider_timeout={within:g} s; raise that, or let it answer sooner"
            token = await self._provider.token(within, remedy)
        except Exception as error:
            self._provider_failures += 1
            if self._provider_failures >= REPORTED_FAILURES:
                self._sink.emit(TokenProviderError(self._provider_failures, error))
            raise SignallingConnectError(
                f"{self._label}: the token_provider failed: {reason(error)}",
                close_code=CLOSE_ABNORMAL,
                close_reason="token_provider failed",
            ) from error
        self._provider_failures = 0
        self.token = lambda: token
        self.stage = f"opening {self._options.url}"
        return signalling_url(self._options.url, token=token)

    def stop(self) -> None:
        """Give up on a provider that is still being asked."""
        if self._provider is not None:
            self._provider.stop()

    async def _await_welcome(self, connection: WebSocket) -> frames.Welcome:
        welcome: asyncio.Future[frames.Welcome] = asyncio.get_running_loop().create_future()

        def receive(arrived: deque[bytes | None]) -> None:
            while arrived and not welcome.done():
                try:
                    frame = frames.parse_server_frame(arrived.popleft() or b"")
                except frames.FrameError:
                    continue
                if isinstance(frame, frames.Welcome):
                    connection.listen(None)  # what follows is for whoever uses the connection
                    welcome.set_result(frame)

        connection.listen(receive)
        closed = asyncio.create_task(connection.wait_closed())
        try:
            either: set[asyncio.Future[Any]] = {welcome, closed}
            await asyncio.wait(
                either,
                timeout=self._timings.welcome,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            closed.cancel()
        if welcome.done():
            return welcome.result()
        if closed.done() and not closed.cancelled():
            raise self._closed_at_once(connection)
        raise SignallingConnectError(
            f"{self._label}: {self._options.url} accepted the connection but sent no welcome "
            f"within {self._timings.welcome:g} s; is it a messaging service?",
            close_code=CLOSE_ABNORMAL,
            close_reason="no welcome",
        )

    def _closed_at_once(self, connection: WebSocket) -> SignallingConnectError:
        code, reason = connection.close_code, scrub(connection.close_reason)
        remedy = TERMINAL_CLOSES.get(code)
        if code == CLOSE_TOKEN_EXPIRED:
            remedy = "the token has expired: mint a new one"
        elif code == CLOSE_OVER_LIMIT:
            remedy = "the plan's limit of concurrent connections is reached"
        return SignallingConnectError(
            f"{self._label}: {self._options.url} closed the connection at once (code {code}, "
            f"{reason!r})" + (f": {remedy}" if remedy else ""),
            close_code=code,
            close_reason=reason,
        )
