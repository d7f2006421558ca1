"""Examine the way to the messaging service: its name, the port, the certificate, the clock."""

from __future__ import annotations

import base64
import errno
import http.client
import socket
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from metered_sync.doctor.outcome import Outcome, Trouble, failed, graded, ok, skipped
from metered_sync.doctor.patient import Patient
from metered_sync.doctor.surroundings import NO_NETWORK, has_network
from metered_sync.engine.network.route import Route
from metered_sync.errors import MeteredTimeoutError
from metered_sync.wire.urls import check_origin, is_loopback

__all__ = ["examine_clock", "examine_dns", "examine_tcp", "examine_tls"]

PATIENCE = 5.0
"""Seconds that each of these may take."""
CLOCK_WARNING, CLOCK_FAILURE = 30.0, 300.0
"""Seconds by which this machine's clock may differ from the server's."""
_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)


def _route(patient: Patient) -> tuple[Route, str, int]:
    """Return the way to the service, and the host and port that this machine connects to."""
    try:
        origin = check_origin(patient.settings.url, secure="wss", name="METERED_URL")
        https = "http" + origin[2:]
        route = Route.choose(https, patient.settings.ca_file, socks="python_socks")
    except ValueError as error:
        raise Trouble(failed(str(error), "mend that variable, or unset it")) from None
    if route.proxy is not None:
        proxy = urlsplit(route.proxy.url)
        return route, proxy.hostname or "", proxy.port or 0
    parts = urlsplit(https)
    return route, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _elsewhere(host: str) -> bool:
    return not is_loopback(host) and not host.startswith("127.")


def examine_dns(patient: Patient) -> Outcome:
    """Resolve the service's name, or its proxy's."""
    route, host, port = _route(patient)
    try:
        found = patient.in_worker(
            "dns", PATIENCE, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
    except MeteredTimeoutError:
        remedy = "check this machine's network, and its name server (DNS)"
        return _no_network(failed(f"no name server answers for {host} in time", remedy))
    except OSError as error:
        what = f"the name {host} does not resolve ({error.strerror or error})"
        remedy = "check this machine's network, and its name server (DNS)"
        if route.proxy is not None or "url" in patient.settings.values:  # a name that was given
            variable = route.proxy.variable if route.proxy is not None else "METERED_URL"
            remedy = f"check {variable} for a slip, and this machine's name server (DNS)"
        return _no_network(failed(what, remedy))
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    what = f"{host} is {', '.join(addresses)}"
    return ok(what if route.proxy is None else f"{what}, {route.proxy}")


def _no_network(outcome: Outcome) -> Outcome:
    return outcome if has_network() else failed(outcome.what, NO_NETWORK)


def examine_tcp(patient: Patient) -> Outcome:
    """Open a TCP connection to the service's port, or its proxy's."""
    route, host, port = _route(patient)
    place = f"{host}:{port}" if route.proxy is None else str(route.proxy)

    def open_connection() -> str:
        with socket.create_connection((host, port), timeout=patient.within(PATIENCE)) as made:
            return str(made.getpeername()[0])

    try:
        address = patient.in_worker("tcp", PATIENCE + 1, open_connection)
    except TimeoutError:
        return failed(
            f"{place} does not answer: something on the way swallows the packets",
            f"ask for outgoing TCP to {host} port {port} in the firewall, or set HTTPS_PROXY",
        )
    except ConnectionRefusedError:
        return failed(
            f"{place} refuses the connection: nothing listens on that port",
            "check the host and port in METERED_URL, and that the server runs"
            if route.proxy is None
            else f"check {route.proxy.variable}, and that the proxy runs",
        )
    except OSError as error:
        remedy = f"check this machine's network and routes to {host}"
        outcome = failed(f"{place} cannot be reached ({error.strerror or error})", remedy)
        return _no_network(outcome) if error.errno in _UNREACHABLE else outcome
    return ok(f"{place} accepts connections" + (f" ({address})" if address != host else ""))


def _https_connection(patient: Patient) -> http.client.HTTPConnection:
    """Return an HTTP connection to the service that is not open yet."""
    route, host, port = _route(patient)
    timeout = patient.within(PATIENCE)
    parts = urlsplit(patient.settings.control_url)
    if parts.scheme != "https":
        return http.client.HTTPConnection(host, port, timeout=timeout)
    made = http.client.HTTPSConnection(
        host, port, timeout=timeout, context=route.authorities.context()
    )
    if route.proxy is not None:
        proxy = urlsplit(route.proxy.url)
        if proxy.scheme != "http":
            raise Trouble(skipped(f"not looked at through {route.proxy}; see welcome"))
        headers = {}
        if proxy.username is not None:
            login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
            headers["Proxy-Authorization"] = f"Basic {base64.b64encode(login).decode()}"
        made.set_tunnel(parts.hostname or "", parts.port or 443, headers)
    return made


def examine_tls(patient: Patient) -> Outcome:
    """Shake hands by TLS, and name who signed the certificate."""
    route, host, _ = _route(patient)
    if not patient.settings.url.startswith("wss"):
        return skipped("the url is ws://, on this machine: there is no TLS")
    try:
        connection = _https_connection(patient)
    except ValueError as error:
        return failed(str(error), "name a file with certificates in PEM form")

    def shake_hands() -> tuple[str, Any]:
        try:
            connection.connect()
            made = connection.sock
            assert isinstance(made, ssl.SSLSocket)
            return made.version() or "TLS", made.getpeercert()
        finally:
            connection.close()

    try:
        version, certificate = patient.in_worker("tls", PATIENCE + 1, shake_hands)
    except TimeoutError:
        return failed(
            f"{host} accepts the connection, but not the TLS handshake: no answer in time",
            "check that METERED_URL names a port that speaks TLS, and what stands in between",
        )
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, ConnectionResetError):
            error = ssl.SSLEOFError()
        reason = route.tls_failure(error)
        if reason is None:
            return failed(
                route.through(f"the TLS handshake with {route.host} failed ({error})"),
                "check METERED_URL, and what stands in between",
            )
        what, _, remedy = route.through(reason).partition(": ")
        if not remedy:
            what, _, remedy = what.partition("; ")
        asks = remedy.endswith("?")
        return failed(what, f"check METERED_URL: {remedy}" if asks or not remedy else remedy)
    return ok(f"{version}, signed by {_signer(certificate)}, until {certificate.get('notAfter')}")


def _signer(certificate: dict[str, Any]) -> str:
    names = {key: value for part in certificate.get("issuer", ()) for key, value in part}
    parts = (names.get("organizationName"), names.get("commonName"))
    return ", ".join(part for part in parts if part) or "an authority without a name"


def examine_clock(patient: Patient) -> Outcome:
    """Compare this machine's clock with the server's: the welcome's time, else an answer's date."""
    patient.try_to_connect()
    if patient.welcome is not None:
        difference = patient.arrived - patient.welcome.server_time
        source = "the welcome"
    else:
        difference, source = _http_date(patient), "an HTTP answer's date"
    if 0 <= difference < 1:  # the server tells whole seconds
        difference = 0.0
    wrong = f"{abs(difference):.0f} s {'ahead of' if difference > 0 else 'behind'} the server's"
    return graded(
        abs(difference),
        CLOCK_WARNING,
        CLOCK_FAILURE,
        f"this machine's clock is {wrong} ({source})",
        "set the clock (NTP): tokens that are signed here expire too early or too late",
        f"this machine's clock agrees with the server's to {max(abs(difference), 1):.0f} s",
    )


def _http_date(patient: Patient) -> float:
    """Return how far this clock is ahead of the one that dates the service's HTTP answers."""

    def ask() -> tuple[str | None, float]:
        connection = _https_connection(patient)
        try:
            connection.request("GET", "/")
            return connection.getresponse().getheader("Date"), time.time()
        finally:
            connection.close()

    try:
        date, now = patient.in_worker("clock", PATIENCE + 1, ask)
        if date is not None:
            return now - parsedate_to_datetime(date).timestamp()
    except (OSError, ValueError, http.client.HTTPException):
        pass
    raise Trouble(skipped("not known: the server has told no time"))
