"""Check origins, and make the URL that a connection is made to.

A client takes an origin only, and adds the path itself. Plain ``ws://`` and
``http://`` carry keys in the clear and are accepted for loopback hosts alone
(the published clients' rule).
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

from metered_sync.wire.secrets import scrub

__all__ = ["as_scheme", "check_gate_url", "check_origin", "is_loopback", "signalling_url"]

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_loopback(host: str | None) -> bool:
    """Return whether a host is this machine by name or address."""
    return host in _LOOPBACK


def as_scheme(url: str, scheme: str) -> str:
    """Return the address of a service that is reached by both ``ws`` and ``http``, for one of them.

    Args:
        url: The address by either scheme, plain or over TLS; anything else stays as it is.
        scheme: ``"ws"`` or ``"http"``.
    """
    other = {"ws": "http", "http": "ws"}[scheme]
    if url.startswith((f"{other}:", f"{other}s:")):
        return scheme + url.removeprefix(other)
    return url


def check_origin(url: object, *, secure: str, name: str = "url") -> str:
    """Return ``url`` as an origin without a trailing slash.

    Args:
        url: What the user gave.
        secure: The scheme to insist on, ``"wss"`` or ``"https"``.
        name: What to call it in the error.

    Raises:
        ValueError: It is not an origin, or would carry keys in the clear.
    """
    plain = secure[:-1]
    wanted = f"{name} must be an origin like {secure}://host or {plain}://127.0.0.1:port"
    if not isinstance(url, str):
        raise TypeError(f"{wanted}, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{wanted}: {scrub(str(error))}") from None
    if not host or parts.scheme not in (secure, plain):
        raise ValueError(f"{wanted}; {_seen(url)}")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{wanted}, without path, query or user; {_seen(url)}")
    if parts.scheme == plain and not is_loopback(host):
        raise ValueError(
            f"{name}: {plain}:// would send keys in the clear to {host}; use {secure}://"
        )
    return f"{parts.scheme}://{parts.netloc}"


def _seen(url: str) -> str:
    """Return what an error shows of an address: the rest may be a secret, of whatever form."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*://)(?:[^/?#]*@)?([^/?#@]*)(.*)", url, re.DOTALL)
    if found is None:
        return "got a text that does not begin with scheme://"
    return f"got {scrub(found[1] + found[2] + ('…' if found[3] else ''))!r}"


def check_gate_url(url: object, name: str = "url") -> tuple[str, str]:
    """Return a gate's origin, and its path without a slash at the end.

    Raises:
        ValueError: It is no such address, or would carry tokens in the clear.
    """
    if not isinstance(url, str):
        raise TypeError(f"{name} must be a gate's address, not {type(url).__name__}")
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise ValueError(f"{name} must be a gate's address without a query; {_seen(url)}")
    origin = check_origin(f"{parts.scheme}://{parts.netloc}", secure="https", name=name)
    return origin, parts.path.rstrip("/")


def signalling_url(origin: str, *, key: str | None = None, token: str | None = None) -> str:
    """Return the address that a client connects to. It contains a secret."""
    query = (
        f"key={quote(key, safe='')}" if key is not None else f"token={quote(token or '', safe='')}"
    )
    return f"{origin}/v1?{query}"
