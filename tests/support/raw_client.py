"""Talk JSON to the messaging server, without anything of the library in between."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from metered_sync import mint_token
from metered_sync.local import LocalCloud


class Raw:
    """A client that sends and receives JSON."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.welcome = self.receive()

    def receive(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.connection.recv(timeout=20))
        return value

    def send(self, **fields: Any) -> None:
        self.connection.send(json.dumps(fields))

    def ask(self, **fields: Any) -> dict[str, Any]:
        self.send(**fields)
        return self.receive()

    def silent(self) -> bool:
        """Whether nothing was on its way: a ping's answer is the next frame."""
        return self.ask(type="ping", requestId="silent?") == {
            "type": "pong",
            "requestId": "silent?",
        }


OPTIONS: dict[str, Any] = {"close_timeout": 0.5, "proxy": None, "max_queue": None}


@contextmanager
def raw(
    cloud: LocalCloud, peer_id: str | None = None, *, token: str | None = None, **claims: Any
) -> Iterator[Raw]:
    """Connect: with the publishable key, with a token, or with one for this peer."""
    if peer_id is not None:
        token = mint_token(cloud.key_id, cloud.key_secret, peer_id=peer_id, **claims)
    query = f"key={cloud.publishable_key}" if token is None else f"token={token}"
    with connect(f"{cloud.url}/v1?{query}", **OPTIONS) as connection:
        yield Raw(connection)


def closed_with(client: Raw) -> int:
    """Return the close code with which the server ends a connection, 1006 for none."""
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            client.receive()
    return 1006 if caught.value.rcvd is None else caught.value.rcvd.code


@contextmanager
def deaf(cloud: LocalCloud, channel: str) -> Iterator[socket.socket]:
    """Connect and subscribe to a channel, and read nothing but the server's first words."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(5)
        connection.connect(("127.0.0.1", cloud.port))
        connection.sendall(
            f"GET /v1?key={cloud.publishable_key} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        request = json.dumps({"type": "subscribe", "channel": channel}).encode()
        connection.sendall(b"\x81" + bytes((0x80 | len(request),)) + b"\0\0\0\0" + request)
        received = b""
        while b'"presence"' not in received:
            received += connection.recv(4096)
        yield connection
