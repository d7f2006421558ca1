"""Serve messaging frames that a test has written, and record what clients do.

For what the local cloud, which keeps to the protocol, never does; and for looking at
a client's frames as they are on the wire.
"""

from __future__ import annotations

import http
import itertools
import json
import queue
import socket
import ssl as ssl_module
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidState
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as websocket_serve

WELCOME: dict[str, Any] = {
    "type": "welcome",
    "peerId": "me",
    "expiresAt": None,
    "serverTime": 1_900_000_000,
    "maxMessageSize": 65536,
}
PATIENCE = 20.0
"""Seconds that a test waits for what must happen."""


class Scripted:
    """One client's connection to a :class:`ScriptedServer`."""

    def __init__(self, connection: ServerConnection, number: int) -> None:
        self.connection = connection
        self.number = number
        """The first connection is 0."""
        self.opened = time.monotonic()
        request = connection.request
        assert request is not None
        self.path = request.path
        self.headers = request.headers
        self.texts: list[str | bytes] = []
        """Every frame that the client sent, as it came."""
        self._unread: queue.Queue[dict[str, Any]] = queue.Queue()
        self._ended = threading.Event()

    @property
    def frames(self) -> list[dict[str, Any]]:
        """Every frame that the client sent, parsed."""
        return [json.loads(text) for text in tuple(self.texts)]

    def received(self, text: str | bytes) -> dict[str, Any]:
        frame: dict[str, Any] = json.loads(text)
        self.texts.append(text)
        self._unread.put(frame)
        return frame

    def expect(self, kind: str) -> dict[str, Any]:
        """Return the client's next frame of a type, passing over others."""
        deadline = time.monotonic() + PATIENCE
        while True:
            frame = self._unread.get(timeout=max(0.0, deadline - time.monotonic()))
            if frame["type"] == kind:
                return frame

    def send(self, **fields: Any) -> None:
        self.say(json.dumps(fields))

    def say(self, *frames: str | bytes) -> None:
        """Send frames as they are, all in one write; ``OSError`` if the client is gone."""
        connection = self.connection
        with connection.protocol_mutex:
            try:
                for frame in frames:
                    if isinstance(frame, str):
                        connection.protocol.send_text(frame.encode())
                    else:
                        connection.protocol.send_binary(frame)
            except InvalidState as error:
                raise ConnectionError("the client has closed") from error
            connection.socket.sendall(b"".join(connection.protocol.data_to_send()))

    def close(self, code: int, reason: str = "") -> None:
        self.connection.close(code, reason)

    def drop(self) -> None:
        """End the TCP connection without a word."""
        try:
            self.connection.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def ended(self) -> tuple[int, str]:
        """Wait for the end; return the client's close code and reason, 1006 if it sent none."""
        assert self._ended.wait(PATIENCE), "the client's connection did not end"
        close = self.connection.protocol.close_rcvd
        return (1006, "") if close is None else (close.code, close.reason)

    def mark_ended(self) -> None:
        self._ended.set()


def polite(connection: Scripted, frame: dict[str, Any]) -> None:
    """Answer a frame as the service does, nobody else being there."""
    answers: list[dict[str, Any]] = []
    if frame["type"] == "ping":
        answers.append({"type": "pong"})
    else:
        answers.append({"type": "ack", "requestId": frame["requestId"]})
    if frame["type"] == "subscribe":
        answers.append({"type": "presence", "channel": frame["channel"], "joined": [], "left": []})
    connection.say(*(json.dumps(answer) for answer in answers))


def mute(connection: Scripted, frame: dict[str, Any]) -> None:
    """Answer nothing."""


class ScriptedServer:
    """Serves on a free loopback port for as long as a ``with`` block lasts.

    Args:
        answer: Called with each frame that a client sends.
        welcome: The first frame for connection number n; ``None`` sends none.
        status: The HTTP status for upgrade number n; ``None`` accepts it.
        ssl: Serve over TLS with this context.
        headers: Go with the refusal of an upgrade.
    """

    def __init__(
        self,
        answer: Callable[[Scripted, dict[str, Any]], None] = polite,
        *,
        welcome: Callable[[int], dict[str, Any] | None] = lambda number: WELCOME,
        status: Callable[[int], int | None] = lambda number: None,
        ssl: ssl_module.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.answer = answer
        self.welcome = welcome
        self.status = status
        self.ssl = ssl
        self.headers = headers or {}
        self.upgrades: list[str] = []
        """The request target of each upgrade, those that were refused included."""
        self.connections: list[Scripted] = []
        self._fresh: queue.Queue[Scripted] = queue.Queue()
        self._numbers = itertools.count()

    def accept(self) -> Scripted:
        """Wait for the next connection."""
        return self._fresh.get(timeout=PATIENCE)

    def __enter__(self) -> ScriptedServer:
        self._server = websocket_serve(
            self._serve, "127.0.0.1", 0, process_request=self._upgrade, compression=None,
            close_timeout=1, ssl=self.ssl,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}"
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        for connection in self.connections:
            connection.drop()
        for connection in self.connections:
            connection.ended()

    def _upgrade(self, connection: ServerConnection, request: Request) -> Response | None:
        number = len(self.upgrades)
        self.upgrades.append(request.path)
        status = self.status(number)
        if status is None:
            return None
        response = connection.respond(http.HTTPStatus(status), "refused by the script\n")
        for name, value in self.headers.items():
            response.headers[name] = value
        return response

    def _serve(self, connection: ServerConnection) -> None:
        scripted = Scripted(connection, next(self._numbers))
        welcome = self.welcome(scripted.number)
        self.connections.append(scripted)
        try:
            if welcome is not None:
                scripted.send(**welcome)
            self._fresh.put(scripted)
            while True:
                frame = scripted.received(connection.recv())
                self.answer(scripted, frame)  # (which a test may have replaced meanwhile)
        except (ConnectionClosed, OSError):
            pass
        finally:
            scripted.mark_ended()
