"""Serve a gate on a port of this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from metered_sync import SfuGate
from metered_sync.local import LocalCloud


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def gate_of(cloud: LocalCloud, **options: Any) -> SfuGate:
    """Return a gate to a local cloud's SFU."""
    keys = {cloud.key_id: cloud.key_secret}
    return SfuGate(cloud.sfu_app_id, cloud.sfu_secret, keys, url=cloud.http_url, **options)


@contextmanager
def served_gate(gate: SfuGate) -> Iterator[str]:
    """Serve a gate below a path; yield its address."""

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        assert path.startswith("/my/sfu")
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = "/my/sfu", path[len("/my/sfu") :]
        return gate.wsgi(environ, start_response)

    server = make_server("127.0.0.1", 0, application, _Server, _Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/my/sfu"
    finally:
        server.shutdown()
        thread.join(20)
        server.server_close()
        gate.close()
