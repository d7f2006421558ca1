"""Run all servers of the local cloud behind one HTTP port, on an engine's event loop."""

from __future__ import annotations

from typing import Protocol

import anyio
from aiohttp import web
from aiohttp.typedefs import Middleware

from metered_sync.bridge.link import Link
from metered_sync.bridge.loop import Engine
from metered_sync.errors import MeteredError
from metered_sync.local.control import ControlApi
from metered_sync.local.rest import server_logger
from metered_sync.local.sfu import Sfu
from metered_sync.local.signalling import SignallingServer
from metered_sync.local.turn import TurnService

__all__ = ["Pages", "Servers"]

MAX_REQUEST_LINE = 1 << 17
"""Bytes of a request line. One with a token at all its caps has about half of that."""
BACKLOG = 1024
"""Connections that may wait to be accepted: a thousand clients may come at once."""


class Pages(Protocol):
    """Pages for people, which are served beside the APIs."""

    def middleware(self) -> Middleware: ...

    def routes(self) -> list[web.RouteDef]: ...

    def reset(self) -> None: ...

    async def close(self) -> None: ...


class Servers(Link):
    """The messaging service, the REST services and the SFU, which start and stop together.

    All methods belong to the engine's loop, and the engine ends with the servers.

    Args:
        engine: An engine of their own.
        signalling: The messaging service, whose connections the control plane acts on.
        turn: The TURN service's REST calls.
        sfu: The SFU.
        host: The address to listen on.
        port: The TCP port; 0 takes a free one.
    """

    label = "LocalCloud"

    def __init__(
        self,
        engine: Engine,
        signalling: SignallingServer,
        turn: TurnService,
        sfu: Sfu,
        host: str,
        port: int,
    ) -> None:
        self.signalling = signalling
        self.turn = turn
        self.sfu = sfu
        self.port = port
        """The TCP port; once they serve, the one that was taken."""
        self.pages: Pages | None = None
        """The console; to be set before they start."""
        self._host = host
        self._engine = engine
        self._runner: web.AppRunner | None = None

    async def open(self) -> None:
        """Start to serve; ``MeteredError`` where the port is taken."""
        self._engine.links.add(self)
        pages = self.pages
        app = web.Application(middlewares=() if pages is None else (pages.middleware(),))
        for part in (self.signalling, ControlApi(self.signalling), self.turn, self.sfu):
            app.add_routes(part.routes())
        if pages is not None:
            app.add_routes(pages.routes())
        # No access log: request lines carry keys and tokens. No decompression: no client of
        # these APIs compresses, and aiohttp answers a body that is badly compressed with 500.
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=server_logger(),
            shutdown_timeout=1.0,
            auto_decompress=False,
            max_line_size=MAX_REQUEST_LINE,
        )
        await self._runner.setup()
        try:
            await self.sfu.start()
            self.signalling.start()
            await web.TCPSite(self._runner, self._host, self.port, backlog=BACKLOG).start()
        except OSError as error:
            await self.aclose()
            raise MeteredError(
                f"LocalCloud cannot listen on {self._host} port {self.port}: {error.strerror}; "
                "choose another port, or 0 for a free one"
            ) from error
        self.port = self._runner.addresses[0][1]

    async def reset(self) -> None:
        """End all faults, connections and sessions, and forget what was counted and made."""
        self.sfu.reset()
        self.turn.reset()
        await self.signalling.reset()
        if self.pages is not None:
            self.pages.reset()

    async def aclose(self) -> None:
        """Tell the clients, close all connections, and end the engine."""
        self._engine.links.discard(self)
        runner, self._runner = self._runner, None
        try:
            if self.pages is not None:
                await self.pages.close()
            await self.signalling.close()
            await self.sfu.close()
        finally:
            try:
                if runner is not None:
                    with anyio.CancelScope(shield=True):
                        await runner.cleanup()
            finally:
                self._engine.stop()

    def abort(self, error: BaseException) -> None:
        """Do nothing: clients notice by themselves that the loop is gone."""
