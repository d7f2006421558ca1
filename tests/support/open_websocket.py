"""A WebSocket that is open without a socket: what it writes is kept, what it reads is given."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import OPEN, SERVER, Protocol
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from metered_sync.engine.messaging.websocket import Receiver, WebSocket
from metered_sync.wire.limits import MAX_INBOUND_FRAME


class Transport(asyncio.Transport):
    """Takes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.writes = 0
        self.closing = False
        self.half_closed = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: Any) -> None:
        self.written += bytes(data)
        self.writes += 1

    def is_closing(self) -> bool:
        return self.closing

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.half_closed = True

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True


def all_into(messages: list[bytes | None]) -> Receiver:
    """Return a receiver that takes all messages that have arrived."""

    def receive(arrived: deque[bytes | None]) -> None:
        while arrived:
            messages.append(arrived.popleft())

    return receive


def upgrading() -> tuple[ClientProtocol, bytes]:
    """Return a client that has asked for the upgrade, and the server's answer."""
    client = ClientProtocol(parse_uri("ws://localhost/"), max_size=MAX_INBOUND_FRAME)
    client.send_request(client.connect())
    return client, answer_to(b"".join(client.data_to_send()))


def answer_to(upgrade: bytes) -> bytes:
    """Return a server's answer to a request for the upgrade."""
    server = ServerProtocol()
    server.receive_data(upgrade)
    (request,) = server.events_received()
    assert isinstance(request, Request)
    server.send_response(server.accept(request))
    return b"".join(server.data_to_send())


def upgraded(close_timeout: float = 60.0) -> tuple[WebSocket, Transport]:
    """Return a connection after the upgrade; inside a running loop."""
    protocol, answer = upgrading()
    connection, transport = WebSocket(protocol, close_timeout=close_timeout), Transport()
    connection.connection_made(transport)
    connection.data_received(answer)
    assert protocol.state is OPEN
    return connection, transport


def frames_in(written: bytes) -> list[Frame]:
    """Return the frames that a client has written."""
    server = Protocol(SERVER)
    server.receive_data(written)
    return [event for event in server.events_received() if isinstance(event, Frame)]


def json_in(written: bytes) -> list[dict[str, Any]]:
    """Return the JSON that a client has written, one value a frame."""
    return [json.loads(bytes(frame.data)) for frame in frames_in(written)]
