"""Serve a gate as a WSGI application."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

__all__ = ["MAX_READ", "wsgi_application"]

Handle = Callable[[str, str, Mapping[str, str], bytes], tuple[int, dict[str, str], bytes]]
MAX_READ = 1 << 18
"""Bytes of a request's body that are read; one more tells that it is too long."""


def wsgi_application(
    handle: Handle,
) -> Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]:
    """Return the application; paths are those below where it is mounted (``SCRIPT_NAME``)."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        headers = {
            name[5:].replace("_", "-").title(): value
            for name, value in environ.items()
            if name.startswith("HTTP_") and isinstance(value, str)
        }
        try:
            length = int(environ.get("CONTENT_LENGTH") or 0)
        except ValueError:
            length = 0
        body = environ["wsgi.input"].read(min(max(length, 0), MAX_READ + 1)) if length else b""
        # (WSGI hands paths over as the bytes of UTF-8, each as one character.)
        path = environ.get("PATH_INFO", "").encode("latin-1", "replace").decode("utf-8", "replace")
        status, answered, content = handle(environ["REQUEST_METHOD"], path, headers, body)
        listed = [*answered.items(), ("Content-Length", str(len(content)))]
        start_response(f"{status} {HTTPStatus(status).phrase}", listed)
        return [content]

    return application
