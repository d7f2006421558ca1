"""The messaging half of the local cloud: connections, channels, presence, direct messages.

Everything here runs on one event loop. A client's frame is processed completely
- acknowledgement, snapshot, deltas to others - before its next one is read, and
what goes to a client passes through that client's outbox; so the order in which
frames are queued is the order in which they arrive (the protocol's ordering
rules, "ordering and delivery guarantees").
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from metered_sync.events import PresencePeer
from metered_sync.wire import frames
from metered_sync.wire.limits import (
    CLOSE_GOING_AWAY,
    CLOSE_INVALID_TOKEN,
    CLOSE_MESSAGE_RATE,
    CLOSE_TOKEN_EXPIRED,
    MAX_CHANNELS,
    MAX_FRAME,
    MESSAGE_BURST,
    MESSAGE_RATE,
)
from metered_sync.wire.names import channel_problem, is_reserved, peer_id_problem
from metered_sync.wire.timings import Timings
from metered_sync.wire.tokens import Claims, Grant, key_id, parse_claims

__all__ = ["PublishableKey", "SecretKey", "SignallingServer"]

MAX_OUTBOX = 8 << 20
"""Bytes that may wait for a client that does not read; then its connection is cut."""
GOING_AWAY_MS = 1000


@dataclass(frozen=True)
class PublishableKey:
    """A key that is its own credential."""

    id: str = field(repr=False)
    grant: Grant = field(default_factory=Grant)
    allowed_origins: tuple[str, ...] = ()
    """Browser origins that may use it; none named: all."""


@dataclass(frozen=True)
class SecretKey:
    """A key pair that signs tokens."""

    id: str
    secret: str = field(repr=False)
    grant: Grant = field(default_factory=Grant)


@dataclass(frozen=True)
class _Identity:
    """Who connects, and what they may do."""

    peer_id: str
    grant: Grant
    expires_at: float | None = None
    metadata: dict[str, Any] | None = None
    peer_metadata: dict[str, Any] | None = None


class _Socket:
    """One client's connection."""

    def __init__(
        self, request: web.Request, ws: web.WebSocketResponse, identity: _Identity
    ) -> None:
        self.identity = identity
        self.channels: dict[str, bool] = {}
        """Subscribed channels, and whether their senders' metadata is wanted."""
        self._request = request
        self._ws = ws
        self._outbox: deque[str] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._tokens = float(MESSAGE_BURST)
        self._tokens_at = time.monotonic()

    @property
    def peer_id(self) -> str:
        return self.identity.peer_id

    def send(self, text: str) -> None:
        """Queue a frame. A client that does not read is cut off, not waited for."""
        self._outbox.append(text)
        self._bytes += len(text)
        if self._bytes > MAX_OUTBOX:
            self.reset()
        self._wake.set()

    async def write(self) -> None:
        """Send what is queued, until the connection ends."""
        try:
            while True:
                while self._outbox:
                    text = self._outbox.popleft()
                    self._bytes -= len(text)
                    await self._ws.send_str(text)
                self._wake.clear()
                if not self._outbox:
                    await self._wake.wait()
        except (ConnectionError, RuntimeError):
            pass  # the client is gone; the reading side notices and cleans up

    async def flush(self) -> None:
        """Wait until what is queued has been sent."""
        while self._outbox and not self._ws.closed:
            await asyncio.sleep(0.005)

    async def close(self, code: int, reason: str) -> None:
        """Close with a code; what is queued goes first."""
        try:
            await asyncio.wait_for(self.flush(), 1.0)
        except asyncio.TimeoutError:
            pass
        await self._ws.close(code=code, message=reason.encode())

    def reset(self) -> None:
        """Cut the TCP connection."""
        if self._request.transport is not None:
            self._request.transport.abort()

    def within_rate(self) -> bool:
        """Count a frame against the token bucket."""
        now = time.monotonic()
        refill = (now - self._tokens_at) * MESSAGE_RATE
        self._tokens = min(float(MESSAGE_BURST), self._tokens + refill) - 1
        self._tokens_at = now
        return self._tokens >= 0

    def presence(self) -> PresencePeer:
        """How others see this peer."""
        return PresencePeer(self.peer_id, self.identity.peer_metadata)

    def may(self, action: str) -> bool:
        """Whether the connection has a permission."""
        return action in self.identity.grant.actions


class _RefusedError(Exception):
    """A request that gets an error frame."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class SignallingServer:
    """Realtime Messaging for one app."""

    def __init__(
        self,
        publishable: Iterable[PublishableKey],
        secret: Iterable[SecretKey],
        *,
        timings: Timings,
        limits: bool = True,
    ) -> None:
        self._publishable = {key.id: key for key in publishable}
        self._secret = {key.id: key for key in secret}
        self._timings = timings
        self._limits = limits
        self._sockets: set[_Socket] = set()
        self._peers: dict[str, list[_Socket]] = {}
        self._channels: dict[str, dict[str, list[_Socket]]] = {}
        """For each channel the subscribed sockets by peer id."""

    def routes(self) -> list[web.RouteDef]:
        """Return the HTTP routes."""
        return [web.get("/v1", self._upgrade)]

    async def close(self) -> None:
        """Tell every client that the server goes away, and close its connection (1001)."""
        sockets = tuple(self._sockets)
        for socket in sockets:
            socket.send(frames.build_going_away(GOING_AWAY_MS))
        await asyncio.gather(
            *(socket.close(CLOSE_GOING_AWAY, "server shutdown") for socket in sockets)
        )

    # --- connecting ---

    async def _upgrade(self, request: web.Request) -> web.StreamResponse:
        """Authenticate, upgrade, serve. What cannot be parsed is refused before the upgrade."""
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return _error(426, "upgrade_required", "this address speaks WebSocket")
        key, token = request.query.get("key"), request.query.get("token")
        identity: _Identity | None = None
        close = (CLOSE_INVALID_TOKEN, "invalid token")
        if token is not None:
            try:
                secret_key = self._secret.get(key_id(token))
            except ValueError as error:
                return _error(401, "invalid_token", str(error))
            if secret_key is not None:
                try:
                    claims = parse_claims(token, secret_key.secret)
                except ValueError:
                    pass  # a bad signature or claim: closed after the upgrade
                else:
                    if claims.expires_at <= time.time():
                        close = (CLOSE_TOKEN_EXPIRED, "token expired")
                    else:
                        identity = _of_claims(claims, secret_key.grant)
        elif key is not None:
            publishable = self._publishable.get(key)
            if publishable is not None:
                origin = request.headers.get("Origin")
                allowed = publishable.allowed_origins
                if origin is not None and allowed and origin not in allowed:
                    return _error(401, "origin_not_allowed", "the key is not for this origin")
                identity = _Identity(str(uuid.uuid4()), publishable.grant)
        else:
            return _error(401, "unauthorized", "neither key nor token")
        # aiohttp refuses messages of max_msg_size bytes and more.
        ws = web.WebSocketResponse(
            heartbeat=None if identity is None else self._timings.server_ping,
            timeout=self._timings.close,
            max_msg_size=MAX_FRAME + 1,
            compress=False,
        )
        await ws.prepare(request)
        if identity is None:
            await ws.close(code=close[0], message=close[1].encode())
        else:
            await self._serve(ws, _Socket(request, ws, identity))
        return ws

    async def _serve(self, ws: web.WebSocketResponse, socket: _Socket) -> None:
        identity = socket.identity
        writer = asyncio.create_task(socket.write())
        expiry: asyncio.TimerHandle | None = None
        expired: set[asyncio.Task[None]] = set()  # the loop keeps no strong references to tasks
        if identity.expires_at is not None:
            delay = identity.expires_at - time.time() - self._timings.expiry_margin

            def expire() -> None:
                expired.add(asyncio.create_task(socket.close(CLOSE_TOKEN_EXPIRED, "token expired")))

            expiry = asyncio.get_running_loop().call_later(max(0.0, delay), expire)
        self._sockets.add(socket)
        self._peers.setdefault(socket.peer_id, []).append(socket)
        welcome = frames.Welcome(
            socket.peer_id, identity.expires_at, int(time.time()), MAX_FRAME, identity.metadata
        )
        socket.send(frames.build_welcome(welcome))
        try:
            async for message in ws:
                if self._limits and not socket.within_rate():
                    await socket.close(CLOSE_MESSAGE_RATE, "over message rate")
                    break
                if message.type is WSMsgType.TEXT:
                    self._handle(socket, message.data)
                elif message.type is WSMsgType.BINARY:
                    self._handle(socket, b"")
        finally:
            if expiry is not None:
                expiry.cancel()
            self._drop(socket)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    def _drop(self, socket: _Socket) -> None:
        """Forget a connection that has ended, and tell the others."""
        self._sockets.discard(socket)
        _remove(self._peers, socket.peer_id, socket)
        for name in tuple(socket.channels):
            self._leave(socket, name)

    # --- requests ---

    def _handle(self, socket: _Socket, text: str | bytes) -> None:
        try:
            frame = frames.parse_client_frame(text)
        except frames.FrameError as error:
            socket.send(frames.build_error(error.code, str(error), error.request_id))
            return
        try:
            if frame.type == "ping":
                socket.send(frames.build_pong(frame.request_id))
                return
            handler = {
                "subscribe": self._subscribe,
                "unsubscribe": self._unsubscribe,
                "publish": self._publish,
                "send": self._send,
            }[frame.type]
            handler(socket, frame)
        except _RefusedError as refused:
            socket.send(frames.build_error(refused.code, str(refused), frame.request_id))
        except ValueError:
            # Lone surrogates (escaped) and 1e999 can be read, but not be passed on.
            problem = "the data cannot be passed on as JSON"
            socket.send(frames.build_error("malformed_message", problem, frame.request_id))

    def _channel(self, socket: _Socket, frame: frames.ClientFrame, action: str | None) -> str:
        """Check the channel that a request names, in the protocol's order."""
        problem = (
            "is missing" if frame.channel is frames.MISSING else channel_problem(frame.channel)
        )
        if problem is not None:
            raise _RefusedError("invalid_channel", f"the channel {problem}")
        name: str = frame.channel
        if is_reserved(name):
            raise _RefusedError("channel_reserved", "the channel has a reserved prefix")
        if action is not None:
            _permit(socket, action)
            if not socket.identity.grant.covers(name):
                raise _RefusedError("channel_not_authorized", "no pattern covers the channel")
        return name

    def _subscribe(self, socket: _Socket, frame: frames.ClientFrame) -> None:
        name = self._channel(socket, frame, "subscribe")
        new = name not in socket.channels
        if new and self._limits and len(socket.channels) >= MAX_CHANNELS:
            raise _RefusedError(
                "channel_limit_exceeded", f"{MAX_CHANNELS} channels are subscribed already"
            )
        socket.channels[name] = frame.include_sender_metadata
        members = self._channels.setdefault(name, {})
        arrived = socket.peer_id not in members
        if new:
            members.setdefault(socket.peer_id, []).append(socket)
        _acknowledge(socket, frame)
        others = tuple(
            sockets[0].presence()
            for peer_id, sockets in members.items()
            if peer_id != socket.peer_id
        )
        if socket.may("presence"):
            socket.send(frames.build_presence(name, others))
        if arrived:
            self._announce(name, socket, joined=True)

    def _unsubscribe(self, socket: _Socket, frame: frames.ClientFrame) -> None:
        name = self._channel(socket, frame, None)
        _acknowledge(socket, frame)
        if name in socket.channels:
            self._leave(socket, name)

    def _leave(self, socket: _Socket, name: str) -> None:
        del socket.channels[name]
        members = self._channels[name]
        _remove(members, socket.peer_id, socket)
        if socket.peer_id not in members:
            self._announce(name, socket, joined=False)
        if not members:
            del self._channels[name]

    def _announce(self, name: str, socket: _Socket, *, joined: bool) -> None:
        """Tell the other peers of a channel who came or went."""
        peers = (socket.presence(),)
        text = frames.build_presence(name, peers if joined else (), () if joined else peers)
        for peer_id, sockets in self._channels[name].items():
            if peer_id != socket.peer_id:
                for other in sockets:
                    if other.may("presence"):
                        other.send(text)

    def _publish(self, socket: _Socket, frame: frames.ClientFrame) -> None:
        name = self._channel(socket, frame, "publish")
        data = _data(frame)
        plain = frames.build_message(name, socket.peer_id, data)
        metadata = socket.identity.peer_metadata
        full = plain
        if metadata is not None:
            full = frames.build_message(name, socket.peer_id, data, metadata)
        for sockets in self._channels.get(name, {}).values():
            for other in sockets:
                if other is not socket:
                    other.send(full if other.channels[name] else plain)
        _acknowledge(socket, frame)

    def _send(self, socket: _Socket, frame: frames.ClientFrame) -> None:
        problem = "is missing" if frame.to is frames.MISSING else peer_id_problem(frame.to)
        if problem is not None:
            raise _RefusedError("invalid_peer_id", f'"to" {problem}')
        _permit(socket, "send")
        data = _data(frame)
        sockets = self._peers.get(frame.to)
        if not sockets:
            raise _RefusedError("peer_not_found", "the peer is not connected")
        text = frames.build_direct(socket.peer_id, data, socket.identity.peer_metadata)
        for other in sockets:
            other.send(text)
        _acknowledge(socket, frame)

    # --- faults, for tests ---

    def drop_connections(self, peer_id: str | None = None) -> None:
        """Cut the TCP connection of every client, or of one peer's."""
        for socket in tuple(self._sockets):
            if peer_id is None or socket.peer_id == peer_id:
                socket.reset()

    async def close_connections(self, code: int, peer_id: str | None = None) -> None:
        """Close the connection of every client, or of one peer's, with a code."""
        await asyncio.gather(
            *(
                socket.close(code, "closed on request")
                for socket in tuple(self._sockets)
                if peer_id is None or socket.peer_id == peer_id
            )
        )


def _of_claims(claims: Claims, grant: Grant) -> _Identity:
    return _Identity(
        claims.peer_id,
        grant.narrowed(claims),
        claims.expires_at,
        claims.metadata,
        claims.peer_metadata,
    )


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error": code, "message": message}, status=status)


def _acknowledge(socket: _Socket, frame: frames.ClientFrame) -> None:
    if frame.request_id is not None:
        socket.send(frames.build_ack(frame.request_id))


def _permit(socket: _Socket, action: str) -> None:
    if not socket.may(action):
        raise _RefusedError(
            "action_not_permitted", f"the key or token lacks the permission {action!r}"
        )


def _data(frame: frames.ClientFrame) -> Any:
    if frame.data is frames.MISSING:
        raise _RefusedError("missing_data", f'a {frame.type} needs "data"; null is a value')
    return frame.data


def _remove(groups: dict[str, list[_Socket]], peer_id: str, socket: _Socket) -> None:
    sockets = groups.get(peer_id, [])
    if socket in sockets:
        sockets.remove(socket)
    if not sockets:
        groups.pop(peer_id, None)
