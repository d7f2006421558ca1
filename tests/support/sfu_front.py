"""A front for a local SFU: its calls pass through, and its media take a path of a test's."""

from __future__ import annotations

import contextlib
import re
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError

from tests.support.coturn import BadPath, bad_path

_PORT = re.compile(rb"( 127\.0\.0\.1 )(\d+)( typ host)")


class SfuFront:
    """A URL to use in the place of the SFU's, and the paths that lead to its media."""

    def __init__(self, url: str, stack: contextlib.ExitStack) -> None:
        self._behind = url
        self._paths: dict[bytes, BadPath] = {}
        self._stack = stack
        self._lock = threading.Lock()
        front = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_args: object) -> None:
                pass

            def handle_one_request(self) -> None:
                self.do_GET = self.do_POST = self.do_PUT = self.do_DELETE = self.pass_on
                super().handle_one_request()

            def pass_on(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                status, body = front.ask(self, self.rfile.read(length) if length else None)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        stack.callback(thread.join)
        stack.callback(self._server.server_close)
        stack.callback(self._server.shutdown)

    def ask(self, handler: BaseHTTPRequestHandler, body: bytes | None) -> tuple[int, bytes]:
        """Pass a request on; return its answer, with ports of ours in the place of the SFU's."""
        names = ("Authorization", "Content-Type")
        headers = {name: value for name in names if (value := handler.headers.get(name))}
        request = urllib.request.Request(
            self._behind + handler.path, body, headers, method=handler.command
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, _PORT.sub(self._lead, answer.read())
        except HTTPError as error:
            with error:
                return error.code, error.read()

    def _lead(self, found: re.Match[bytes]) -> bytes:
        with self._lock:
            if found[2] not in self._paths:
                self._paths[found[2]] = self._stack.enter_context(bad_path(int(found[2])))
            path = self._paths[found[2]]
        return b"%s%d%s" % (found[1], path.port, found[3])

    def delay(self, seconds: float) -> None:
        """Have what is sent from now on come so much later; calls take no longer."""
        for path in self._paths.values():
            path.delay = seconds

    def cut(self, *ways: str) -> None:
        """Have all paths lose what goes "forth" or "back", for those who use them now."""
        for path in self._paths.values():
            path.cut(*ways)


@contextlib.contextmanager
def sfu_front(url: str) -> Iterator[SfuFront]:
    """Stand before the SFU at a URL."""
    with contextlib.ExitStack() as stack:
        yield SfuFront(url, stack)
