"""Serve the console's pages, the stream of patches, and what pages ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from aiohttp.typedefs import Middleware

from metered_sync.bridge.clock import monotonic
from metered_sync.local.console.actions import inject, kick
from metered_sync.local.console.files import page, static
from metered_sync.local.console.guard import Guard, headers
from metered_sync.local.console.join import JoinPage
from metered_sync.local.console.journal import Journal
from metered_sync.local.console.media import TrackMeters
from metered_sync.local.console.patches import PatchMaker
from metered_sync.local.console.rooms import RoomSignals
from metered_sync.local.console.state import CloudState
from metered_sync.local.rest import Handler, Refusal, answer, read_json
from metered_sync.local.servers import Servers
from metered_sync.wire.fields import FieldError, Fields
from metered_sync.wire.names import check_one_channel

__all__ = ["Console"]

BASE = "/console/"
"""The path under which everything of the console's is."""
INTERVAL = 0.1
"""Seconds between two patches, at least."""
SIGN_OF_LIFE = 15.0
"""Seconds without a patch after which a stream gets a comment."""
MAX_PAGES = 16
"""Pages that may be open at once."""


class Console:
    """The pages of one local cloud.

    All methods but the constructor belong to the loop of the cloud's servers.

    Args:
        servers: What the pages show.
        keys: The cloud's keys and secrets, by the names of its attributes.
        join: The page in which a browser joins a room.
    """

    def __init__(self, servers: Servers, keys: Mapping[str, str], join: JoinPage) -> None:
        self._servers = servers
        self._keys = keys
        self._guard = Guard(
            "open the address that cloud.console_url has, or that `metered-sync serve` prints"
        )
        self._join = join
        self._journal = Journal()
        self._signals = RoomSignals()
        self._meters = TrackMeters()
        self._state = CloudState(servers, self._journal, self._signals, self._meters, keys)
        self._open = 0
        self._closing = False
        servers.signalling.scheduler.watcher = self._journal
        servers.signalling.requests.on_message = self._signals.note

    def __repr__(self) -> str:
        return f"<Console, {self._open} pages open>"

    def path(self) -> str:
        """Return the path of the console, with the token that opens it."""
        return f"{BASE}?{urlencode({'token': self._guard.token})}"

    def join_path(self, **query: str) -> str:
        """Return the path of the page in which a browser joins a room, with its token."""
        return f"{BASE}join?{urlencode({'token': self._join.guard.token, **query})}"

    def middleware(self) -> Middleware:
        """Return what takes down the calls of the cloud's APIs."""
        return self._journal.middleware(BASE)

    def routes(self) -> list[web.RouteDef]:
        """Return the HTTP routes, all of them under ``/console/``."""
        guarded = self._guard.guarded
        return [
            web.get(BASE, guarded(page("console.html"))),
            web.get(BASE + "static/{name}", guarded(static, public=True)),
            web.get(BASE + "events", guarded(self._events)),
            web.get(BASE + "keys", guarded(self._tell_keys)),
            web.post(BASE + "kick", guarded(self._action(kick))),
            web.post(BASE + "fault", guarded(self._action(inject))),
            web.post(BASE + "clear", guarded(self._action(self._clear))),
            web.post(BASE + "join-path", guarded(self._action(self._join_room))),
            *self._servers.sfu.routes_below(BASE.rstrip("/"), guarded),
            *self._join.routes(BASE),
        ]

    def reset(self) -> None:
        """Forget what was seen."""
        self._journal.clear()
        self._signals.clear()

    async def close(self) -> None:
        """End the streams of open pages, within a moment."""
        self._closing = True
        self._join.close()

    # --- server to page ---

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Stream patches, as server-sent events, while the page is open."""
        if self._open >= MAX_PAGES:
            raise Refusal(503, "too_many_pages", f"{MAX_PAGES} pages are open already")
        patches = PatchMaker(
            self._journal,
            self._state.sections,
            request.query.get("words", ""),
            only_refused=request.query.get("refused") == "1",
        )
        stream = web.StreamResponse(headers=headers(request))
        stream.content_type = "text/event-stream"
        self._open += 1
        self._journal.watching = True
        try:
            await stream.prepare(request)
            sent = monotonic()
            while not self._closing and request.transport is not None:
                patch = patches.next()
                if patch is None and monotonic() - sent > SIGN_OF_LIFE:
                    patch = b":\n\n"
                if patch is not None:
                    sent = monotonic()
                    await stream.write(patch)
                await asyncio.sleep(INTERVAL)
        except ConnectionError:
            pass  # the page was closed
        finally:
            self._open -= 1
            if not self._open:
                self._journal.watching = False
                self._meters.stop()
        return stream

    # --- page to server ---

    def _action(self, act: Callable[[Servers, Any], Any]) -> Handler:
        """Return a handler that does what a page asks for, with the body's JSON."""

        async def handler(request: web.Request) -> web.Response:
            try:
                done = act(self._servers, await read_json(request))
                return answer(await done if isinstance(done, Awaitable) else done)
            except FieldError as error:
                raise Refusal(400, "invalid_request", str(error)) from None

        return handler

    def _clear(self, _servers: Servers, _body: Any) -> dict[str, Any]:
        self._journal.clear()
        return {}

    def _join_room(self, _servers: Servers, body: Any) -> dict[str, Any]:
        """Return the path of the page that joins a room."""
        fields = Fields(body)
        try:
            channel = check_one_channel(fields.filled("channel"), "join")
        except ValueError as error:
            raise FieldError(str(error)) from None
        media = "sfu" if fields.get("media") == "sfu" else "mesh"
        return {"path": self.join_path(channel=channel, media=media)}

    async def _tell_keys(self, request: web.Request) -> web.Response:
        """Answer with addresses and keys, to be copied."""
        addresses = {"url": f"ws://{request.host}", "http_url": f"http://{request.host}"}
        return answer({**addresses, **self._keys})
