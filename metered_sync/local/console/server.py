"""Serve the console's pages."""

from __future__ import annotations

from urllib.parse import urlencode

from aiohttp import web

from metered_sync.local.console.files import page, static
from metered_sync.local.console.guard import Guard
from metered_sync.local.console.join import JoinPage
from metered_sync.local.servers import Servers

__all__ = ["Console"]

BASE = "/console/"
"""The path under which everything of the console's is."""


class Console:
    """The pages of one local cloud.

    All methods belong to the loop of the cloud's servers.

    Args:
        servers: What the pages show.
        join: The page in which a browser joins a room.
    """

    def __init__(self, servers: Servers, join: JoinPage) -> None:
        self._servers = servers
        self._guard = Guard(
            "open the address that cloud.console_url has, or that `metered-sync serve` prints"
        )
        self._join = join

    def path(self) -> str:
        """Return the path of the console, with the token that opens it."""
        return f"{BASE}?{urlencode({'token': self._guard.token})}"

    def join_path(self, **query: str) -> str:
        """Return the path of the page in which a browser joins a room, with its token."""
        return f"{BASE}join?{urlencode({'token': self._join.guard.token, **query})}"

    def routes(self) -> list[web.RouteDef]:
        """Return the HTTP routes, all of them under ``/console/``."""
        guarded = self._guard.guarded
        return [
            web.get(BASE, guarded(page("console.html"))),
            web.get(BASE + "static/{name}", guarded(static, public=True)),
            *self._join.routes(BASE),
        ]

    def reset(self) -> None:
        """Forget what was seen."""

    async def close(self) -> None:
        """End what the pages wait for."""
        self._join.close()
