"""A bad SFU: an HTTP server that passes calls on to a real one, or answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

__all__ = ["Seen", "ScriptedSfu"]

Answer = tuple[int, Any]
Spoil = Callable[[int, Any], Answer]


@dataclass
class Seen:
    """A request that arrived."""

    method: str
    call: str
    """``"session/new"``, ``"track/publish"``, …"""
    body: Any
    authorization: str | None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: Any) -> None:
        """Clients of these tests leave in the middle of an answer."""


class ScriptedSfu:
    """The server; ``with`` runs it.

    Args:
        behind: The origin of a real SFU that gets what is not scripted.
    """

    def __init__(self, behind: str | None = None) -> None:
        self.answers: dict[str, Answer | Callable[[Any], Answer]] = {}
        """Status and body by call, in place of the real SFU's, or what makes them of a request's
        body; ``bytes`` go out as they are."""
        self.spoil: dict[str, Spoil] = {}
        """What makes the real SFU's status and body into others, by call."""
        self.before: dict[str, Callable[[], object]] = {}
        """What is done, once, before a call is passed on."""
        self.hold: set[str] = set()
        """Calls that get no answer."""
        self.cut: set[str] = set()
        """Calls whose connection is cut instead."""
        self.seen: list[Seen] = []
        self._behind = behind
        self._released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._handle(self)

            do_POST = do_PUT = do_GET  # noqa: N815

            def log_message(self, *args: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> ScriptedSfu:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def calls(self, name: str) -> int:
        """Return how often a call was made."""
        return sum(seen.call == name for seen in self.seen)

    def _handle(self, request: BaseHTTPRequestHandler) -> None:
        raw = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        name = _name(request.path)
        body = json.loads(raw) if raw else None
        auth = request.headers.get("Authorization")
        self.seen.append(Seen(request.command, name, body, auth))
        if name in self.hold:
            self._released.wait(30)
        if name in self.hold or name in self.cut:
            request.close_connection = True
            return
        self.before.pop(name, str)()
        if name in self.answers:
            given = self.answers[name]
            status, answer = given(body) if callable(given) else given
        else:
            assert self._behind is not None, f"{name} is not scripted"
            with requests.Session() as session:
                session.trust_env = False
                reply = session.request(
                    request.command,
                    self._behind + request.path,
                    data=raw or None,
                    headers={"Authorization": auth or "", "Content-Type": "application/json"},
                    timeout=30,
                )
            status, answer = reply.status_code, reply.json()
            if name in self.spoil:
                status, answer = self.spoil[name](status, answer)
        out = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(out)))
        request.end_headers()
        request.wfile.write(out)


def _name(path: str) -> str:
    """Return a path's call: without the app, and without the session's id."""
    parts = path.split("/")[4:]
    if parts[0] == "session" and parts[1] != "new":
        parts = parts[2:]
    return "/".join(parts)
