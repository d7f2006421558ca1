"""Serve Realtime Messaging: admit connections, read their frames, close them.

Everything here runs on one event loop. A client's frame is processed completely
- acknowledgement, snapshot, deltas to others - before its next one is read, and
frames leave in the order in which they were sent
(docs/protocol/signalling.md#ordering-and-delivery).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from aiohttp import WSMsgType, web

from metered_sync.bridge.clock import monotonic
from metered_sync.local.broker import Broker
from metered_sync.local.connections import SendScheduler, Socket, text_frame
from metered_sync.local.keys import Identity, KeyRing, TurnedAway
from metered_sync.local.meter import UsageMeter
from metered_sync.local.requests import RequestHandler
from metered_sync.local.rest import Refusal, explain, observed
from metered_sync.wire import frames
from metered_sync.wire.limits import (
    CLOSE_GOING_AWAY,
    CLOSE_MESSAGE_RATE,
    CLOSE_OVER_LIMIT,
    CLOSE_TOKEN_EXPIRED,
    CLOSE_TOO_BIG,
    MAX_ATTEMPTS,
    MAX_FRAME,
)
from metered_sync.wire.names import utf8_size
from metered_sync.wire.timings import Timings
from metered_sync.wire.urls import is_loopback

__all__ = ["SignallingServer"]

GOING_AWAY_DELAY_MS = 1000
"""The delay that the server's end asks its clients to keep before they reconnect."""
_MAX_MESSAGE_READ = 1 << 20
"""Bytes of a message at which aiohttp drops the connection. Smaller ones that are too big
are read and then refused, so that their sender sees why."""


def _is_foreign(origin: str | None) -> bool:
    """Return whether a page that is not of this machine asks; programs send no origin."""
    return origin is not None and not is_loopback(_host_of(origin))


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).hostname
    except ValueError:
        return None


class SignallingServer:
    """The messaging service of one app.

    All methods belong to the asyncio loop on which :meth:`start` ran.

    Args:
        keys: Who may connect.
        meter: What is counted, and the plan's limits.
        timings: Intervals; tests shrink them.
        limits: Whether the limits of message rate and of channels per connection hold.
        ice_servers: Makes the list of ICE servers that goes into each welcome whose token
            does not bring one; ``None`` where there is none.
    """

    def __init__(
        self,
        keys: KeyRing,
        meter: UsageMeter,
        *,
        timings: Timings,
        limits: bool = True,
        ice_servers: Callable[[], list[dict[str, Any]]] | None = None,
    ) -> None:
        self.keys = keys
        self.scheduler = SendScheduler()
        self.broker = Broker(self.scheduler)
        self.meter = meter
        self.requests = RequestHandler(self.scheduler, self.broker, meter, limits=limits)
        self._timings = timings
        self._limits = limits
        self._ice_servers = ice_servers
        self._refuse_until = 0.0
        self._pinging: asyncio.Task[None] | None = None

    def routes(self) -> list[web.RouteDef]:
        """Return the HTTP routes."""
        return [web.get("/v1", self._upgrade)]

    def start(self) -> None:
        """Begin to ping the clients."""
        self._pinging = asyncio.create_task(self._ping_all())

    async def close(self) -> None:
        """Tell every client that the server goes away, and close its connection (1001)."""
        if self._pinging is not None:
            self._pinging.cancel()
        self.scheduler.close()
        await self.go_away(GOING_AWAY_DELAY_MS, "server shutdown")

    async def _ping_all(self) -> None:
        """Ping all clients again and again; cut off those that stayed silent in between."""
        while True:
            await asyncio.sleep(self._timings.server_ping)
            for socket in self.broker.sockets():
                socket.ping()

    # --- connecting ---

    async def _upgrade(self, request: web.Request) -> web.StreamResponse:
        """Upgrade and serve a connection, or refuse it."""
        try:
            response = await self._admit(request)
        except Refusal as refusal:
            response = refusal.response()
        response.force_close()  # there will be no second request from a WebSocket client
        return response

    async def _admit(self, request: web.Request) -> web.StreamResponse:
        """Authenticate, upgrade, serve. What cannot be parsed is refused before the upgrade."""
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise Refusal(426, "upgrade_required", "this address speaks WebSocket")
        if monotonic() < self._refuse_until:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=503)  # to nobody
        key, token = request.query.get("key"), request.query.get("token")
        origin = request.headers.get("Origin")
        apart = (key is None and token is None) or _is_foreign(origin)
        if not self.meter.attempt(request.remote, apart=apart):
            explain(f"{MAX_ATTEMPTS} attempts to connect within a minute (limits=False lifts that)")
            return web.Response(status=429)
        turned_away: TurnedAway | None = None
        try:
            identity = self.keys.identify(key, token, origin)
        except TurnedAway as error:
            turned_away = error
        ws = web.WebSocketResponse(
            timeout=self._timings.close,
            autoping=False,
            max_msg_size=_MAX_MESSAGE_READ,
            compress=False,
        )
        try:
            await ws.prepare(request)
        except web.HTTPBadRequest:
            problem = "this is no WebSocket handshake (RFC 6455, 4.2.1)"
            raise Refusal(400, "bad_request", problem) from None
        except ConnectionError:  # it went away meanwhile
            return web.Response(status=503)  # to nobody
        if turned_away is None and self.meter.full:
            turned_away = TurnedAway(CLOSE_OVER_LIMIT, "over the plan's limit", self.meter.reason())
        if turned_away is not None:
            explain(turned_away.why)
            await ws.close(code=turned_away.code, message=str(turned_away).encode())
        elif request.transport is not None:  # not closed in the meantime
            await self._serve(ws, Socket(identity, ws, request.transport, self.scheduler))
        return ws

    async def _serve(self, ws: web.WebSocketResponse, socket: Socket) -> None:
        identity = socket.identity
        expiry: asyncio.TimerHandle | None = None
        if identity.expires_at is not None:
            delay = identity.expires_at - time.time() - self._timings.expiry_margin
            expiry = asyncio.get_running_loop().call_later(
                max(0.0, delay), self.shut, socket, CLOSE_TOKEN_EXPIRED, "token expired"
            )
        self.broker.add(socket)
        self.meter.connected()
        socket.send(text_frame(self._welcome(identity)))
        try:
            try:
                await self._read(ws, socket)
            except asyncio.CancelledError:
                if socket.goodbye is None:
                    raise
            if socket.goodbye is not None:
                await socket.close(self._timings.close)
        except ConnectionError:
            pass  # gone while it was answered
        finally:
            if expiry is not None:
                expiry.cancel()
            self._forget(socket)
            socket.ended.set()
            call = observed.get()
            if call is not None:
                call.peer, call.goodbye = socket.peer_id, socket.goodbye

    async def _read(self, ws: web.WebSocketResponse, socket: Socket) -> None:
        """Carry out what a client asks for, until the connection ends or is to be closed."""
        while socket.goodbye is None:
            message = await ws.receive()
            socket.heard = True
            if message.type is WSMsgType.TEXT or message.type is WSMsgType.BINARY:
                if self._limits and not socket.within_rate():
                    self.shut(socket, CLOSE_MESSAGE_RATE, "over message rate")
                elif len(message.data) > MAX_FRAME // 4 and _size(message.data) > MAX_FRAME:
                    self.shut(socket, CLOSE_TOO_BIG, "message too big")
                else:
                    self.requests.handle(socket, message.data)
            elif message.type is WSMsgType.PING:
                await ws.pong(message.data)
            elif message.type is not WSMsgType.PONG:
                return  # closed

    def _welcome(self, identity: Identity) -> str:
        metadata = identity.metadata
        if self._ice_servers is not None and "iceServers" not in (metadata or {}):
            metadata = {**(metadata or {}), "iceServers": self._ice_servers()}
        return frames.build_welcome(
            frames.Welcome(
                identity.peer_id, identity.expires_at, int(time.time()), MAX_FRAME, metadata
            )
        )

    def _forget(self, socket: Socket) -> None:
        if self.broker.remove(socket):
            self.meter.disconnected()

    # --- closing ---

    def shut(self, socket: Socket, code: int, reason: str) -> None:
        """Take a connection out of service at once, and close it in the background."""
        self._forget(socket)
        socket.shut(code, reason)

    async def close_connections(
        self, code: int, peer_id: str | None = None, reason: str = "closed on request"
    ) -> None:
        """Close the connection of every client, or of one peer's, with a code."""
        sockets = self.broker.sockets(peer_id)
        for socket in sockets:
            self.shut(socket, code, reason)
        for socket in sockets:
            await socket.ended.wait()

    # --- for tests ---

    async def reset(self) -> None:
        """End all faults, close all connections (1001), and count from nothing again."""
        self.scheduler.close()
        self.refuse_connections(0)
        await self.close_connections(CLOSE_GOING_AWAY, reason="the local cloud was reset")
        self.meter.reset()

    def drop_connections(self, peer_id: str | None = None) -> None:
        """Cut the TCP connection of every client, or of one peer's."""
        for socket in self.broker.sockets(peer_id):
            socket.reset()

    def refusing(self) -> bool:
        """Return whether nobody is admitted at present, as :meth:`refuse_connections` said."""
        return monotonic() < self._refuse_until

    def refuse_connections(self, seconds: float) -> None:
        """Admit nobody for so long from now."""
        self._refuse_until = monotonic() + seconds

    async def go_away(self, retry_after_ms: int, reason: str = "going away") -> None:
        """Announce to every client that its connection will be closed, and close it (1001)."""
        frame = text_frame(frames.build_going_away(retry_after_ms))
        for socket in self.broker.sockets():
            socket.send(frame)
        await self.close_connections(CLOSE_GOING_AWAY, reason=reason)


def _size(data: str | bytes) -> int:
    return utf8_size(data) if isinstance(data, str) else len(data)
