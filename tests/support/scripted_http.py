"""Serve HTTP answers that a test has written, and remember the requests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Asked:
    """A request that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    port: int
    """The client's; the same for requests on one connection."""


@dataclass
class ScriptedHttp:
    """The server: its script, one answer for each request to come, and what it saw."""

    script: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    """Status, headers, body. Status 0 closes the connection without an answer."""
    asked: list[Asked] = field(default_factory=list)
    wait: threading.Event | None = None
    """Answers wait for this."""
    origin: str = ""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: Any) -> None:
        """Clients of these tests leave in the middle of an answer."""


@contextmanager
def serving() -> Iterator[ScriptedHttp]:
    """Serve while the block lasts."""
    scripted = ScriptedHttp()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            port = self.client_address[1]
            headers = dict(self.headers.items())
            scripted.asked.append(Asked(self.command, self.path, headers, body, port))
            if scripted.wait is not None:
                scripted.wait.wait(20)
            status, more, text = scripted.script.pop(0)
            if status == 0:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

        def log_message(self, *args: Any) -> None:
            pass

        def date_time_string(self, timestamp: float | None = None) -> str:
            return "Fri, 20 Nov 2026 12:00:00 GMT"

    httpd = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
    thread.start()
    scripted.origin = f"http://127.0.0.1:{httpd.server_port}"
    try:
        yield scripted
    finally:
        if scripted.wait is not None:
            scripted.wait.set()
        httpd.shutdown()
        httpd.server_close()
        thread.join()
