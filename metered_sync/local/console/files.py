"""Answer with the files that a browser gets: pages, modules, style sheets."""

from __future__ import annotations

from importlib.resources import files

from aiohttp import web

from metered_sync.local.rest import Handler, Refusal

__all__ = ["page", "static"]

_TYPES = {"css": "text/css", "html": "text/html", "js": "text/javascript"}
"""(Windows lets other programs say what ``.js`` is; a browser runs a module of no other type.)"""


def page(name: str) -> Handler:
    """Return a handler that answers with an HTML file of ours."""

    async def show(request: web.Request) -> web.Response:
        return _file(name)

    return show


async def static(request: web.Request) -> web.Response:
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
