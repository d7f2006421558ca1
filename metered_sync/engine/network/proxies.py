"""Choose the proxy that leads to a service, and tell of its refusals: for messaging and REST alike.

The environment's variables are read as curl and ``requests`` read them: ``https_proxy``, else
``all_proxy``, but for the hosts in ``no_proxy``; each in lower case, else in upper case. (All
services are reached over TLS, so ``http_proxy`` says nothing about them.) Without any of these,
the settings of macOS and Windows hold.

A password may have been written as it is, without percent-encoding, and an address without a
scheme. Libraries take that apart in different ways, and show the password in what they raise: so
an address is taken apart here, once, and they are given one that has one reading.
"""

from __future__ import annotations

import importlib.util
import os
import re
import urllib.request
from dataclasses import dataclass, field
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit

from metered_sync.wire.urls import is_loopback

__all__ = ["Proxy", "proxy_for"]

_PORTS = {
    "http": 80,
    "https": 443,
    "socks4": 1080,
    "socks4a": 1080,
    "socks5": 1080,
    "socks5h": 1080,
}
"""The schemes of proxies, and the port of each that gives none."""
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.IGNORECASE | re.DOTALL)
_PLACE = re.compile(r"(\[[0-9a-f:.]+\]|[^\s/?#:@\[\]\\]+)(?::([0-9]{1,5}))?/?", re.IGNORECASE)


@dataclass(frozen=True)
class Proxy:
    """The proxy that a variable names."""

    url: str = field(repr=False)
    """Its address in the one form that all libraries read alike; may hold a password."""
    place: str
    """Its host and port."""
    variable: str
    """The variable that names it."""
    named: bool = False
    """Whether the variable holds a user's name."""

    def __str__(self) -> str:
        return f"the proxy {self.place} ({self.variable})"

    def refusal(self, status: int, host: str) -> str:
        """Say what the proxy's answer to CONNECT means, and what to do about it."""
        if status == 407 and self.named:
            words = f"does not accept the user name and password in {self.variable}"
        elif status == 407:
            words = (
                f"wants a user name and a password: {self.variable}="
                f"http://user:password@{self.place}"
            )
        elif status in (502, 503, 504):
            words = f"cannot reach {host}; if that needs no proxy, name it in NO_PROXY"
        elif status in (401, 403, 405):
            words = f"does not lead to {host}; ask whoever runs it, or name the host in NO_PROXY"
        else:
            words = f"did not connect to {host}"
        return f"{self} {words} (HTTP {status} from the proxy)"


def proxy_for(origin: str, *, socks: str) -> Proxy | None:
    """Return the proxy that leads to an origin; ``None`` where the way is direct.

    Args:
        origin: A service's origin, by ``https`` or ``wss``.
        socks: The module by which the caller reaches SOCKS proxies.

    Raises:
        ValueError: A variable has no address of a proxy, or one by SOCKS, and the module is not
            there. The text does not show the address.
    """
    parts = urlsplit(origin)
    if is_loopback(parts.hostname):
        return None  # an environment's proxy cannot reach our loopback
    if _named() is None:
        return None
    from requests.utils import should_bypass_proxies  # (it takes a while, and most need it not)

    if should_bypass_proxies(f"https://{parts.netloc}", no_proxy=None):
        return None
    proxy = _parse(*_named() or ("", ""))  # (in no variable here: no frame of a traceback shows it)
    if proxy.url.startswith("socks") and importlib.util.find_spec(socks) is None:
        raise ValueError(
            f"{proxy.variable} names a SOCKS proxy, which needs more: "
            "pip install 'metered_sync[socks]'"
        )
    return proxy


def _named() -> tuple[str, str] | None:
    """Return the address that counts, and the variable that has it."""
    proxies = urllib.request.getproxies()
    for kind in ("https", "all"):
        if proxies.get(kind):
            names = (f"{kind}_proxy", f"{kind}_proxy".upper())
            found = (name for name in names if os.environ.get(name))
            return proxies[kind], next(found, "the system's settings")
    return None


def _parse(text: str, variable: str) -> Proxy:
    """Take the address of a proxy apart; ``ValueError``, without it, where it is none.

    The user's name ends at the first colon, and the password at the last ``@``.
    """
    match = _SCHEME.fullmatch(text.strip())
    scheme, rest = (match[1].lower(), match[2]) if match else ("http", text.strip().lstrip("/"))
    login, at, end = rest.rpartition("@")
    place = _PLACE.fullmatch(end)
    port = int((place and place[2]) or _PORTS.get(scheme, 0))
    if place is None or scheme not in _PORTS or not 0 < port < 65536:
        del text, match, rest, login, end, place  # no frame of the traceback shows them
        raise ValueError(
            f"{variable} has no address of a proxy: write http://host:port, or "
            "http://user:password@host:port, or socks5h://host:port"
        )
    where = f"{place[1]}:{port}"
    user, _, password = login.partition(":")
    named = f"{_encoded(user)}:{_encoded(password)}@" if at else ""
    return Proxy(f"{scheme}://{named}{where}", where, variable, bool(at))


def _encoded(text: str) -> str:
    """Return a user's name or password percent-encoded, whether it was or not."""
    return quote_from_bytes(unquote_to_bytes(text), safe="")
