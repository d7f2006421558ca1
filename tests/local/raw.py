"""A client of the messaging server that hides nothing: JSON in, JSON out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import websockets
from websockets.sync.client import ClientConnection, connect

from metered_sync import mint_token
from metered_sync.local import LocalCloud


class Raw:
    """A client that sends and receives JSON."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.welcome = self.receive()

    def receive(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.connection.recv(timeout=5))
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


OPTIONS: dict[str, Any] = {"close_timeout": 0.5}
if int(websockets.__version__.split(".")[0]) >= 15:
    OPTIONS["proxy"] = None


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
