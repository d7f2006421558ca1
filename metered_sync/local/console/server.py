"""Serve the console's pages and files."""

from __future__ import annotations

from importlib.resources import files
from urllib.parse import urlencode

from aiohttp import web

from metered_sync.local.console.guard import Guard
from metered_sync.local.rest import Handler, Refusal
from metered_sync.local.servers import Servers

__all__ = ["Console"]

BASE = "/console/"
"""The path under which everything of the console's is."""
_TYPES = {"css": "text/css", "html": "text/html", "js": "text/javascript"}
"""(Windows lets other programs say what ``.js`` is; a browser runs a module of no other type.)"""


class Console:
    """The pages of one local cloud.

    All methods belong to the loop of the cloud's servers.

    Args:
        servers: What the pages show.
    """

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._guard = Guard()

    def path(self, page: str = "", **query: str) -> str:
        """Return the path of a page, with the token that opens it."""
        return f"{BASE}{page}?{urlencode({'token': self._guard.token, **query})}"

    def routes(self) -> list[web.RouteDef]:
        """Return the HTTP routes, all of them under ``/console/``."""
        guarded = self._guard.guarded
        return [
            web.get(BASE, guarded(page("console.html"))),
            web.get(BASE + "static/{name}", guarded(_static, public=True)),
        ]

    def reset(self) -> None:
        """Forget what was seen."""

    async def close(self) -> None:
        """End what the pages wait for."""


def page(name: str) -> Handler:
    """Return a handler that answers with an HTML file of ours."""

    async def show(request: web.Request) -> web.Response:
        return _file(name)

    return show


async def _static(request: web.Request) -> web.Response:
    """Answer with a style sheet or a module."""
    name = request.match_info["name"]
    if name.endswith(".html"):  # those need the token
        raise Refusal(404, "not_found", "this page has another address")
    return _file(name)


def _file(name: str) -> web.Response:
    for file in (files(__name__.rpartition(".")[0]) / "static").iterdir():  # names of ours only
        kind = _TYPES.get(name.rpartition(".")[2])
        if file.name == name and kind is not None:
            return web.Response(body=file.read_bytes(), content_type=kind, charset="utf-8")
    raise Refusal(404, "not_found", "no such file")
