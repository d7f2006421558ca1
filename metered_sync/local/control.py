"""Answer the control plane's five REST calls, for servers that hold a key pair.

Errors are JSON objects with ``error`` (a word for programs) and ``message`` (for people).
Source: docs/protocol/signalling.md#control-plane.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from aiohttp import web

from metered_sync.local.keys import SecretKey
from metered_sync.local.rest import Refusal, answer, read_json
from metered_sync.local.signalling import SignallingServer
from metered_sync.wire.control import (
    MessageRequest,
    Token,
    TokenRequest,
    disconnected_body,
    peers_body,
)
from metered_sync.wire.fields import FieldError
from metered_sync.wire.limits import CLOSE_ADMIN_DISCONNECT
from metered_sync.wire.names import channel_problem, is_reserved, peer_id_problem
from metered_sync.wire.tokens import sign_claims

__all__ = ["ControlApi"]

KeyHandler = Callable[[web.Request, SecretKey, str], Awaitable[web.Response]]


class ControlApi:
    """The five calls, under ``/v1/``."""

    def __init__(self, server: SignallingServer) -> None:
        self._server = server
        # Names are taken greedily: one may contain slashes that are not percent-encoded.
        self._calls: list[tuple[str, re.Pattern[str], KeyHandler]] = [
            ("POST", re.compile("/v1/tokens()"), self._tokens),
            ("GET", re.compile("/v1/channels/(.*)/peers"), self._peers),
            ("POST", re.compile("/v1/channels/(.*)/publish"), self._publish),
            ("DELETE", re.compile("/v1/peers/(.*)"), self._disconnect),
            ("GET", re.compile("/v1/usage()"), self._usage),
        ]

    def routes(self) -> list[web.RouteDef]:
        """Return the HTTP routes; whatever is not one of the calls is answered with 404."""
        return [web.route("*", path, self._dispatch) for path in ("/v1", r"/v1/{rest:[\s\S]*}")]

    async def _dispatch(self, request: web.Request) -> web.Response:
        try:
            for method, pattern, handler in self._calls:
                match = pattern.fullmatch(request.rel_url.raw_path)
                if method == request.method and match is not None:
                    key = self._server.keys.bearer(request.headers.get("Authorization", ""))
                    return await handler(request, key, _decoded(match.group(1)))
            raise Refusal(404, "not_found", "no such endpoint")
        except Refusal as refusal:
            return refusal.response()
        except FieldError as error:
            return Refusal(400, "invalid_request", str(error)).response()

    async def _tokens(self, request: web.Request, key: SecretKey, _: str) -> web.Response:
        wish = TokenRequest.parse(await read_json(request))
        for name in wish.channels or ():
            _check_channel(name)
        for action in wish.permissions or ():
            _permit(key, action)
        for name in wish.channels or ():
            if not key.grant.covers_pattern(name):
                raise _not_authorized()
        now = time.time()
        claims = wish.claims(now)
        token = sign_claims(claims, key.id, key.secret, issued_at=now)
        return answer(Token(token, claims.expires_at).body())

    async def _peers(self, request: web.Request, key: SecretKey, name: str) -> web.Response:
        _check_access(key, name, "presence")
        return answer(peers_body(name, self._server.broker.roster(name)))

    async def _publish(self, request: web.Request, key: SecretKey, name: str) -> web.Response:
        _check_access(key, name, "publish")
        message = MessageRequest.parse(await read_json(request))
        if not self._server.meter.message():
            raise Refusal(429, "over_message_quota", "the plan's messages are used up")
        try:
            self._server.broker.publish(name, message.sender, message.data, message.metadata)
        except ValueError:
            raise FieldError("the data cannot be passed on as JSON") from None
        return answer({"channel": name})

    async def _disconnect(self, request: web.Request, key: SecretKey, name: str) -> web.Response:
        problem = peer_id_problem(name)
        if problem is not None:
            raise FieldError(f"the peer id {problem}")
        sockets = self._server.broker.sockets(name)
        for socket in sockets:
            self._server.shut(socket, CLOSE_ADMIN_DISCONNECT, "disconnected by an administrator")
        return answer(disconnected_body(name, len(sockets)))

    async def _usage(self, request: web.Request, key: SecretKey, _: str) -> web.Response:
        return answer(self._server.meter.usage().body())


def _decoded(name: str) -> str:
    """Return the name that a path's segment encodes."""
    try:
        return unquote(name, errors="strict")
    except UnicodeDecodeError:
        raise FieldError("the name in the path is not UTF-8") from None


def _check_channel(name: str) -> None:
    problem = channel_problem(name)
    if problem is not None:
        raise FieldError(f"the channel {problem}")
    if is_reserved(name):
        raise Refusal(400, "channel_reserved", "the channel has a reserved prefix")


def _check_access(key: SecretKey, name: str, action: str) -> None:
    _check_channel(name)
    _permit(key, action)
    if not key.grant.covers(name):
        raise _not_authorized()


def _permit(key: SecretKey, action: str) -> None:
    if action not in key.grant.actions:
        raise Refusal(403, "action_not_permitted", f"the key lacks the permission {action!r}")


def _not_authorized() -> Refusal:
    return Refusal(403, "channel_not_authorized", "the key's patterns do not cover the channel")
