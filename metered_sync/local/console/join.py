"""Let a browser into a room: its page, the room's tokens for it, and the way to the SFU.

The page holds no key. It shows the token of its address, and gets a token of the messaging service
for one channel; with that it connects to messaging, and calls the SFU through a gate.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from aiohttp import web

from metered_sync.bridge.workers import run_in_worker
from metered_sync.gate import MAX_READ, SfuGate
from metered_sync.local.console.files import page
from metered_sync.local.console.guard import Guard
from metered_sync.local.rest import Refusal, answer, read_body, read_json
from metered_sync.wire.names import check_one_channel, name_problem

__all__ = ["JoinPage", "check_name"]

TTL = 4 * 3600.0
"""Seconds that a token lasts, and the sessions with the SFU that were made with it."""
MAX_NAME = 256
"""Bytes of a member's name."""

Mint = Callable[..., str]


class JoinPage:
    """The routes of the page, below the console's.

    Args:
        mint: ``mint_token`` with the cloud's key pair.
        make_gate: Makes the gate to the cloud's SFU, which is at the origin it is called with.
    """

    def __init__(self, mint: Mint, make_gate: Callable[[str], SfuGate]) -> None:
        self.guard = Guard("ask for a new one by cloud.join_url(…)")
        """The page has a token of its own: it lets into rooms, and shows nothing of the console."""
        self._mint = mint
        self._make_gate = make_gate
        self._gate: SfuGate | None = None

    def routes(self, base: str) -> list[web.RouteDef]:
        """Return the HTTP routes, all of them under ``join``."""
        guarded = self.guard.guarded
        return [
            web.get(f"{base}join", guarded(page("join.html"))),
            web.post(f"{base}join/token", guarded(self._token)),
            # (The gate takes the room's token, and nothing goes without.)
            web.route("*", base + "join/sfu{path:/.*}", guarded(self._sfu, public=True)),
        ]

    def close(self) -> None:
        """Close idle connections to the SFU."""
        if self._gate is not None:
            self._gate.close()

    async def _token(self, request: web.Request) -> web.Response:
        """Mint a token for a channel, and for a peer id that is this page's alone."""
        asked = await read_json(request)
        if not isinstance(asked, dict):
            raise Refusal(400, "invalid_request", "the body is no object")
        secret = asked.get("page")
        if not isinstance(secret, str) or not 16 <= len(secret) <= 100 or not secret.isascii():
            raise Refusal(400, "invalid_request", "page: 16 to 100 characters that nobody guesses")
        try:
            channel = check_one_channel(asked.get("channel"), "join")
            name = check_name(asked.get("name"), "join")
        except (TypeError, ValueError) as error:
            raise Refusal(400, "invalid_request", str(error)) from None
        # The same id for the same page, also when it renews its token; and for no other page.
        peer_id = "browser-" + hashlib.sha256(secret.encode()).hexdigest()[:12]
        token = self._mint(
            peer_id=peer_id,
            channels=[channel.replace("\\", "\\\\")],
            ttl=TTL,
            peer_metadata=None if name is None else {"name": name},
        )
        return answer({"token": token, "expires_at": int(time.time() + TTL)})

    async def _sfu(self, request: web.Request) -> web.Response:
        """Pass a call on to the SFU, through the gate."""
        if self._gate is None:
            self._gate = self._make_gate(_own_origin(request))
        path, headers = request.match_info["path"], dict(request.headers)
        body = await read_body(request, MAX_READ)
        status, headers, content = await run_in_worker(
            self._gate.handle, request.method, path, headers, body
        )
        return web.Response(status=status, headers=headers, body=content)


def check_name(name: object, what: str) -> str | None:
    """Return a member's name, or ``None``; ``TypeError`` or ``ValueError`` for all else."""
    problem = None if name is None else name_problem(name, MAX_NAME)
    if problem is not None:
        kind = ValueError if isinstance(name, str) else TypeError
        raise kind(f"{what}: the name {problem}")
    return None if name is None else str(name)


def _own_origin(request: web.Request) -> str:
    assert request.transport is not None
    host, port = request.transport.get_extra_info("sockname")[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
