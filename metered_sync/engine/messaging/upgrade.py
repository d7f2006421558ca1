"""Open the socket of a connection - proxy, TLS, upgrade - and say why that has failed."""

from __future__ import annotations

import math
import socket
import ssl
from typing import Any
from urllib.parse import urljoin, urlsplit

from websockets.asyncio.client import connect as websocket_connect
from websockets.exceptions import InvalidMessage, InvalidProxyStatus, ProxyError

from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.workers import run_in_worker
from metered_sync.engine.logs import scrubbed_logger
from metered_sync.engine.messaging.websocket import UpgradeRefusedError, WebSocket
from metered_sync.engine.network.retry_after import retry_after
from metered_sync.engine.network.route import Route
from metered_sync.errors import SignallingConnectError
from metered_sync.wire.limits import CLOSE_ABNORMAL, MAX_INBOUND_FRAME
from metered_sync.wire.secrets import scrub, scrubbed_cause

__all__ = ["open_socket"]

_REMEDIES = {
    401: "check the key or token, and the key's allowed origins",
    404: "check the url: it does not lead to a messaging service",
    429: "too many connection attempts; wait a minute",
}
"""Remedies by the HTTP status of a refused upgrade."""
MAX_EXCERPT = 200
"""Bytes of a refusal's body that an error shows."""


async def open_socket(
    url: str, *, label: str, origin: str, ca_file: str | None, within: float, close_timeout: float
) -> WebSocket:
    """Connect and ask for the upgrade.

    Args:
        url: The address, with the credential.
        label: The client's name, for errors.
        origin: The service's origin, for errors.
        ca_file: The certificates that are trusted; ``None``: the environment's.
        within: Seconds that it may take; ``math.inf`` where the caller sees to that.
        close_timeout: Seconds that the close may take, later.

    Raises:
        SignallingConnectError: It has failed; the text says why, without secrets.
    """
    route: Route | None = None
    options: dict[str, Any] = {}
    started = monotonic()
    try:
        if urlsplit(origin).scheme == "wss":
            route, options = await run_in_worker(_find, origin, ca_file)
        else:
            route, options = _find(origin, ca_file)  # to this machine: it reads nothing
        connection: Any = await websocket_connect(
            url,
            compression=None,
            open_timeout=None if within == math.inf else within - (monotonic() - started),
            close_timeout=close_timeout,
            ping_interval=None,  # the watchdog counts text frames, as the server expects
            max_size=MAX_INBOUND_FRAME,
            logger=scrubbed_logger("metered_sync.websocket"),
            **options,
        )
    except UpgradeRefusedError as refusal:
        failure = _refused(label, origin, refusal)
    except Exception as error:  # the system's, the library's, a codec's, a proxy's
        failure = _failed(label, origin, route, error)
        failure.__cause__ = scrubbed_cause(error)
    else:
        assert isinstance(connection, WebSocket)
        return connection
    url, options = "", {}  # no frame of the traceback shows them
    raise failure  # here, where what was caught, with the address, does not become its context


def _find(origin: str, ca_file: str | None) -> tuple[Route, dict[str, Any]]:
    """Return the way there, and what ``connect()`` takes for it; reads files, where it is TLS."""
    route = Route.choose(origin, ca_file, socks="python_socks")
    options: dict[str, Any] = {"create_connection": WebSocket, "proxy": None}
    if urlsplit(origin).scheme == "wss":
        options["ssl"] = route.authorities.context()
    if route.proxy is not None:
        options["proxy"] = route.proxy.url
        if route.proxy.url.startswith("https:"):
            options["proxy_ssl"] = options["ssl"]
    return route, options


def _refused(label: str, origin: str, refusal: UpgradeRefusedError) -> SignallingConnectError:
    """Return the error that tells of another answer to the upgrade than 101."""
    status, headers = refusal.status, refusal.headers
    body = scrub(refusal.body[:MAX_EXCERPT].decode("utf-8", "replace")).strip()
    wait = retry_after(headers.get("retry-after"), headers.get("date"))
    remedy = _REMEDIES.get(status, "check the url and the service's status")
    if 300 <= status < 400:
        target = urlsplit(urljoin(origin, headers.get("location", "")))
        remedy = (
            f"it leads to {target.hostname}, and is not followed, for the key would go there too; "
            "is the url right?"
        )
    return SignallingConnectError(
        f"{label}: {origin} refused the connection (HTTP {status})"
        + (f" {body}" if body else "")
        + f": {remedy}"
        + (f"; the service asks to wait {wait:g} s" if wait else ""),
        close_code=status,
        close_reason="handshake rejected",
        retry_after=wait,
    )


def _failed(
    label: str, origin: str, route: Route | None, error: Exception
) -> SignallingConnectError:
    """Return the error that tells why there was no answer to the upgrade."""
    text = scrub(str(error)) or type(error).__name__
    if isinstance(error, ProxyError) and error.__cause__ is not None:  # what SOCKS says
        text += f": {scrub(str(error.__cause__))}"
    if origin.startswith("wss:") and isinstance(error, ConnectionResetError):
        error = ssl.SSLEOFError()  # (asyncio's name for it)
    tls = None if route is None else route.tls_failure(error)
    if route is None:
        reason = text  # (its own words: a variable, or a file, cannot be used)
    elif tls is not None:
        reason = route.through(tls)
    elif isinstance(error, InvalidProxyStatus) and route.proxy is not None:
        reason = route.proxy.refusal(error.response.status_code, route.host)
    elif isinstance(error, InvalidMessage):
        reason = route.through("what answers there does not speak WebSocket; is the url right?")
    elif isinstance(error, socket.gaierror):
        reason = route.through(
            f"{(error.strerror or text).lower()}; check the url and this machine's network"
        )
    else:
        reason = f"{route.through(text)}; check the url and that the server runs"
    return SignallingConnectError(
        f"{label}: cannot connect to {origin}: {reason}",
        close_code=CLOSE_ABNORMAL,
        close_reason=type(error).__name__,
    )
