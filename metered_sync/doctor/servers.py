"""Find the ICE servers that clients are told to use, and take their addresses apart."""

from __future__ import annotations

from dataclasses import dataclass

from metered_sync.doctor.outcome import Trouble, failed, words
from metered_sync.doctor.patient import Patient
from metered_sync.errors import MeteredTimeoutError, TurnError
from metered_sync.turn import TurnApi
from metered_sync.wire.events import IceServer
from metered_sync.wire.turn import check_ice_servers

__all__ = ["Address", "addresses", "ice_servers", "relays"]

PATIENCE = 4.0
"""Seconds that the TURN service may take to answer."""
MAX_TRIED = 12
"""Addresses of a kind that are tried, all at once."""


@dataclass(frozen=True)
class Address:
    """One address of an ICE server."""

    url: str
    scheme: str
    host: str
    port: int
    transport: str
    server: IceServer

    @property
    def kind(self) -> str:
        """How it is reached, in words."""
        return "TLS" if self.scheme in ("turns", "stuns") else self.transport.upper()


def addresses(servers: tuple[IceServer, ...], *schemes: str) -> list[Address]:
    found = []
    for server in servers:
        for url in server.urls:
            scheme, _, rest = url.partition(":")
            place, _, query = rest.partition("?transport=")
            host, _, port = place.rpartition(":")
            if not host or place.endswith("]"):
                host, port = place, "5349" if scheme in ("turns", "stuns") else "3478"
            if scheme in schemes and port.isdigit():
                tls = scheme in ("turns", "stuns")
                transport = "tcp" if tls else query or "udp"
                host = host.strip("[]")
                found.append(Address(url, scheme, host, int(port), transport, server))
    return found[:MAX_TRIED]


def ice_servers(patient: Patient) -> tuple[IceServer, ...]:
    """Return the ICE servers in use: those given, the TURN app's, or the welcome's.

    Ends the stage where the TURN app refuses.
    """
    if patient.servers is not None:
        return patient.servers
    settings = patient.settings
    if settings.ice_servers is not None:
        patient.servers = check_ice_servers(settings.ice_servers)
        return patient.servers
    patient.try_to_connect()
    told = None if patient.welcome is None else patient.welcome.ice_servers
    app, api_key = settings.get("turn_app"), settings.get("turn_api_key")
    if not told and app and api_key and settings.problem("turn") is None and not settings.local:
        told = _of_app(patient, app, api_key)
    patient.servers = tuple(told or ())
    return patient.servers


def _of_app(patient: Patient, app: str, api_key: str) -> tuple[IceServer, ...]:
    settings = patient.settings
    try:
        with TurnApi(
            app, api_key=api_key, url=settings.get("turn_url"), ca_file=settings.ca_file
        ) as api:
            return api.ice_servers(timeout=patient.within(PATIENCE))
    except ValueError as error:
        raise Trouble(failed(words(error), "set METERED_TURN_APP to the app's name")) from None
    except MeteredTimeoutError:
        remedy = "check the network, and METERED_TURN_APP"
        raise Trouble(failed("the TURN service does not answer in time", remedy)) from None
    except TurnError as error:
        if error.status in (401, 403, 404):
            raise Trouble(
                failed(
                    f"the TURN service refuses the key of the app {app} (HTTP {error.status})",
                    "check METERED_TURN_APP and METERED_TURN_API_KEY: the key must be of that app",
                )
            ) from None
        remedy = "check METERED_TURN_APP, and the network"
        raise Trouble(failed(words(error), remedy)) from None


def relays(patient: Patient) -> bool:
    """Return whether there are TURN servers to try."""
    return bool(addresses(patient.servers or (), "turn", "turns"))
