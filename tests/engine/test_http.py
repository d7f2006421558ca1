from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from metered_sync.engine import http as http_module
from metered_sync.engine.deadline import Deadline
from metered_sync.engine.http import Answer, Http, HttpError


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: list[tuple[int, dict[str, str], bytes]]
    seen: list[tuple[str, str, str | None, bytes]]
    wait: threading.Event | None = None

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append((self.command, self.path, self.headers.get("Authorization"), body))
        if self.wait is not None:
            self.wait.wait(10)
        status, headers, answer = self.script.pop(0)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_PUT = do_GET  # noqa: N815

    def log_message(self, *args: Any) -> None:
        pass


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, *args: Any) -> None:
        """Clients of these tests leave in the middle of an answer."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Handler]]:
    """A scripted server; its handler's class holds what it saw."""
    monkeypatch.setattr(http_module, "FIRST_DELAY", 0.01)
    handler = type("Scripted", (Handler,), {"script": [], "seen": [], "wait": None})
    httpd = _QuietServer(("127.0.0.1", 0), handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    handler.origin = f"http://127.0.0.1:{httpd.server_port}"  # type: ignore[attr-defined]
    yield handler
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def fetch(server: Any, method: str, path: str, timeout: float = 5, **options: Any) -> Answer:
    http = Http(server.origin, "secret")
    try:
        return asyncio.run(http.fetch(method, path, deadline=Deadline(timeout), **options))
    finally:
        http.close()


def test_a_request_and_its_answer(server: Any) -> None:
    server.script = [(200, {}, b'{"a": [1]}'), (204, {}, b""), (404, {}, b"no such thing")]
    assert fetch(server, "POST", "/p?q=1", json={"x": "é"}) == Answer(200, {"a": [1]})
    assert fetch(server, "PUT", "/q") == Answer(204, None)
    answer = fetch(server, "GET", "/r")
    assert (answer.status, answer.body, answer.ok) == (404, "no such thing", False)
    assert server.seen[0] == ("POST", "/p?q=1", "Bearer secret", b'{"x": "\\u00e9"}')


def test_safe_requests_are_repeated_and_others_are_not(server: Any) -> None:
    server.script = [(503, {}, b""), (429, {"Retry-After": "0.05"}, b""), (200, {}, b"1")]
    assert fetch(server, "GET", "/", safe=True).body == 1
    assert len(server.seen) == 3
    server.script = [(503, {}, b"{}")]
    assert fetch(server, "POST", "/").status == 503
    server.script = [(500, {}, b"")] * http_module.ATTEMPTS
    assert fetch(server, "GET", "/", safe=True).status == 500
    server.script = [(404, {}, b"")]
    assert fetch(server, "GET", "/", safe=True).status == 404


def test_redirects_are_not_followed_with_the_secret(server: Any) -> None:
    server.script = [(302, {"Location": "http://127.0.0.1:9/"}, b"")]
    assert fetch(server, "GET", "/").status == 302


def test_a_netrc_file_does_not_replace_the_secret(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    http = Http(server.origin, "secret")
    http._session.trust_env = True  # as it is for a host that is not loopback
    server.script = [(200, {}, b"1")]
    asyncio.run(http.fetch("GET", "/", deadline=Deadline(5)))
    http.close()
    assert server.seen[0][2] == "Bearer secret"


def test_an_abandoned_request_does_not_hold_anybody(server: Any) -> None:
    server.wait = threading.Event()
    server.script = [(200, {}, b"late")]
    http = Http(server.origin, "secret")

    async def main() -> None:
        await asyncio.wait_for(http.fetch("GET", "/", deadline=Deadline(60)), 0.2)

    started = time.monotonic()
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(main())
    assert time.monotonic() - started < 1.5
    server.wait.set()
    http.close()


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        ("http://127.0.0.1:9", "connection refused"),
        ("http://no-such-host.invalid", "name"),
    ],
)
def test_why_no_answer_came(origin: str, words: str) -> None:
    http = Http(origin, "secret")
    with pytest.raises(HttpError, match=words) as caught:
        asyncio.run(http.fetch("GET", "/", deadline=Deadline(20)))
    http.close()
    assert caught.value.__cause__ is None


def test_a_server_that_does_not_answer_in_time(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_module, "AFTER", 0.1)
    server.wait = threading.Event()
    with pytest.raises(HttpError, match="too long"):
        fetch(server, "GET", "/", timeout=0.2)
    server.script = [(200, {}, b"")]
    server.wait.set()
