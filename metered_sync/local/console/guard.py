"""Admit requests to the console's pages, and tell browsers what those pages may load.

Other programs on the machine do not know the token. Pages of other sites, which a browser on the
machine shows, are kept out three times: by the token, by ``Origin`` (a page's requests carry its
own), and by ``Host`` (a name of theirs that leads to this machine, "DNS rebinding", is not ours).
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web

from metered_sync.local.rest import Refusal
from metered_sync.wire.urls import is_loopback

__all__ = ["Guard", "PageHandler", "headers"]

PageHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_FRAMED_BY = "'self' http://localhost:* http://127.0.0.1:* https://localhost:* https://127.0.0.1:*"
"""Pages that may show one of ours in a frame: a notebook server's on this machine."""
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """The token of one cloud's console, and the checks that stand before its handlers.

    Args:
        remedy: What to do where the token is missing or wrong.
    """

    def __init__(self, remedy: str) -> None:
        self._remedy = remedy
        self.token = secrets.token_urlsafe(24)
        """Part of the console's address; made anew for each cloud."""

    def __repr__(self) -> str:
        return "<Guard of a console>"

    def guarded(self, handler: PageHandler, *, public: bool = False) -> PageHandler:
        """Return a handler that refuses requests from elsewhere, and those without the token.

        Args:
            handler: Answers the others. A :class:`Refusal` that it raises becomes an answer.
            public: Whether it takes no token: for files that are the same for everybody.
        """

        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                _check_address(request)
                if not public:
                    self._check_token(request)
                response = await handler(request)
            except Refusal as refusal:
                response = _refused(request, refusal)
            if not response.prepared:  # those that stream have asked for the headers before
                response.headers.popall("Access-Control-Allow-Origin", None)  # as the SFU's API
                response.headers.update(headers(request))
            return response

        return guarded

    def _check_token(self, request: web.Request) -> None:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = request.query.get("token", "")  # as the address has it
        if not hmac.compare_digest(given.encode("utf-8", "surrogatepass"), self.token.encode()):
            raise Refusal(
                401,
                "unauthorized",
                f"the token of this address is missing or wrong: {self._remedy}",
            )


def _refused(request: web.Request, refusal: Refusal) -> web.Response:
    """Answer as the service words errors; in plain words where a browser would show it."""
    if "text/html" not in request.headers.get("Accept", ""):
        return refusal.response()
    text = f"This page cannot be shown: {refusal}.\n"
    return web.Response(status=refusal.status, text=text)


def headers(request: web.Request) -> dict[str, str]:
    """Return the headers of each answer, to a request that was admitted or to one that was not."""
    # "ws:" for older browsers, to which 'self' is the page's own scheme alone.
    host = request.host if _is_ours(request) else ""
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "media-src": "'self' blob:",
        "connect-src": f"'self' ws://{host}" if host else "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": _FRAMED_BY,
    }
    content = "; ".join(f"{name} {value}" for name, value in policy.items())
    return {**_HEADERS, "Content-Security-Policy": content}


def _check_address(request: web.Request) -> None:
    if not _is_ours(request):
        raise Refusal(403, "forbidden", "this Host is not the local cloud's")
    for origin in request.headers.getall("Origin", ()):
        if origin != f"http://{request.host}":
            raise Refusal(403, "forbidden", "a page of another origin may not ask this")


def _is_ours(request: web.Request) -> bool:
    """Return whether ``Host`` names this machine, and the port that was connected to."""
    if len(request.headers.getall("Host", ())) != 1 or request.transport is None:
        return False
    try:
        named = urlsplit(f"//{request.host}")
        host, port = named.hostname, named.port or 80
    except ValueError:
        return False
    address = request.transport.get_extra_info("sockname")
    plain = named.netloc == request.host and "@" not in request.host
    return plain and is_loopback(host) and port == address[1]
