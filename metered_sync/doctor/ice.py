"""Examine the ICE servers: which there are, whether STUN answers, whether TURN relays."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio

from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.workers import run_in_worker
from metered_sync.doctor.outcome import (
    Outcome,
    Trouble,
    failed,
    graded,
    ok,
    skipped,
    warning,
)
from metered_sync.doctor.patient import Patient
from metered_sync.doctor.servers import Address, addresses, ice_servers
from metered_sync.doctor.surroundings import missing_webrtc
from metered_sync.engine.network.certificates import Authorities

if TYPE_CHECKING:
    from metered_sync.doctor.probes import Relayed

__all__ = ["examine_ice", "examine_stun", "examine_turn"]

PATIENCE = 4.0
"""Seconds that a server may take to answer."""
RELAYING = 6.0
"""Seconds that allocating and relaying may take, at one server."""
LOSS_WARNING, LOSS_FAILURE = 0.02, 0.20
"""Parts of the packets that are lost."""


def examine_ice(patient: Patient) -> Outcome:
    """Count the STUN and TURN servers that clients are given."""
    servers = ice_servers(patient)
    stun = addresses(servers, "stun", "stuns")
    relayed = addresses(servers, "turn", "turns")
    secure = [one for one in relayed if one.kind == "TLS"]
    if not stun and not relayed:
        return skipped("no ICE servers: neither in the welcome nor by METERED_TURN_APP and its key")
    what = f"{len(stun)} STUN, {len(relayed)} TURN, {len(secure)} of them over TLS"
    if not relayed:
        remedy = "add TURN servers: from behind many firewalls, media do not connect without"
        return warning(what, remedy)
    if any(one.server.username is None or one.server.credential is None for one in relayed):
        return warning(f"{what}; some without a credential", "give their username and credential")
    return ok(what)


def examine_stun(patient: Patient) -> Outcome:
    """Ask each STUN server for this machine's public address."""
    servers = addresses(ice_servers(patient), "stun")
    if not servers:
        return skipped("there is no STUN server")
    _need_webrtc()
    return _together(servers, _try_all(patient, "stun", PATIENCE, servers, _try_stun))


def examine_turn(patient: Patient) -> Outcome:
    """Relay packets through each TURN server, by each of its addresses."""
    servers = addresses(ice_servers(patient), "turn", "turns")
    if not servers:
        return skipped("there is no TURN server")
    _need_webrtc()
    authorities = Authorities.choose(patient.settings.ca_file)

    async def try_one(address: Address) -> Outcome:
        return await _try_turn(address, authorities)

    return _together(servers, _try_all(patient, "turn", RELAYING, servers, try_one))


def _need_webrtc() -> None:
    lacking = missing_webrtc()
    if lacking:
        raise Trouble(skipped(f"{lacking} missing: run  pip install 'metered_sync[webrtc]'"))


def _try_all(
    patient: Patient,
    what: str,
    seconds: float,
    servers: list[Address],
    try_one: Callable[[Address], Awaitable[Outcome]],
) -> list[Outcome]:
    """Try all servers at once."""
    each = patient.within(seconds)

    async def try_within(address: Address) -> Outcome:
        try:
            with anyio.fail_after(each):
                return await try_one(address)
        except TimeoutError:
            return _silent(address)
        except OSError as error:
            return _unreachable(address, error)

    async def try_them() -> list[Outcome]:
        return await asyncio.gather(*map(try_within, servers))

    return patient.run(what, each + 2, try_them)


def _together(servers: list[Address], outcomes: list[Outcome]) -> Outcome:
    """Return one outcome for all servers: failed only where none of them works."""
    what = "; ".join(f"{one.url}: {o.what}" for one, o in zip(servers, outcomes, strict=True))
    remedies = "; ".join(dict.fromkeys(o.remedy for o in outcomes if o.remedy))
    statuses = {outcome.status for outcome in outcomes}
    if statuses == {"ok"}:
        return ok(what)
    return failed(what, remedies) if statuses == {"failed"} else warning(what, remedies)


async def _resolve(address: Address) -> tuple[str, int]:
    # (On a worker of ours: where no name server answers, asyncio's would hold up the exit.)
    entries = await run_in_worker(socket.getaddrinfo, address.host, address.port)
    return str(entries[0][4][0]), address.port


async def _try_stun(address: Address) -> Outcome:
    from metered_sync.doctor import probes

    place, began = await _resolve(address), monotonic()
    try:
        seen = await probes.ask_stun(place)
    except probes.Silent:
        return _silent(address)
    except probes.Refused as error:
        return failed(f"refuses ({error.code})", f"check that {address.url} is a STUN server")
    return ok(f"{(monotonic() - began) * 1000:.0f} ms, we are seen at {seen[0]}")


async def _try_turn(address: Address, authorities: Authorities) -> Outcome:
    from metered_sync.doctor import probes

    place = await _resolve(address)
    context = None
    if address.kind == "TLS":
        context = await run_in_worker(authorities.context)
        place = address.host, address.port  # the certificate is for the name
    try:
        traffic = await probes.relay_packets(
            place, address.server, transport=address.transport, context=context
        )
    except probes.Silent:
        return _silent(address)
    except probes.Refused as error:
        return _refused(address, error.code, str(error))
    except ssl.SSLError as error:
        text = authorities.failure(error, address.host) or f"the TLS handshake failed ({error})"
        what, _, remedy = text.partition(": ")
        return failed(what, remedy or f"check the certificate of {address.host}")
    return _graded(address, traffic)


def _graded(address: Address, traffic: Relayed) -> Outcome:
    """Return the outcome by what was lost on the way through the relays."""
    if traffic.refused:
        return ok("allocates a relay (it passes nothing on between its own, so no packets)")
    if traffic.round_trip is None:
        return failed(
            "allocates a relay, but no packet comes through",
            f"check the relay ports (UDP) of {address.host} in its firewall",
        )
    what = f"{traffic.round_trip * 1000:.0f} ms through two relays, {traffic.loss:.0%} lost"
    remedy = "the way there loses packets: try TURN over TCP or TLS, or another network"
    return graded(traffic.loss, LOSS_WARNING, LOSS_FAILURE, what, remedy)


def _refused(address: Address, code: int, text: str) -> Outcome:
    """Return what a TURN server's error code means (RFC 8656, section 18)."""
    if code == 401:
        return failed(
            "refuses the credential (401)",
            "get a fresh one: the user name or password is wrong, or has expired",
        )
    if code in (486, 508):
        return failed(f"has no relay left ({code})", "try again later, or see the TURN plan")
    if code == 403:
        return failed("forbids relaying (403)", f"see the settings of {address.host}")
    return failed(f"refuses ({code})", f"check that {address.url} is a TURN server")


def _silent(address: Address) -> Outcome:
    """Return the outcome of a server that does not answer."""
    if address.transport == "udp":
        return failed("does not answer: UDP may be blocked", _firewall(address))
    what = "does not answer: something on the way swallows the packets"
    return failed(what, _firewall(address))


def _firewall(address: Address) -> str:
    place = f"{address.transport.upper()} to {address.host} port {address.port}"
    other = ", or rely on TURN over TCP or TLS" if address.transport == "udp" else ""
    return f"ask for outgoing {place} in the firewall{other}"


def _unreachable(address: Address, error: OSError) -> Outcome:
    """Return the outcome of a server that cannot be reached."""
    if isinstance(error, socket.gaierror):
        remedy = "check the list of ICE servers, and this machine's name server (DNS)"
        return failed(f"the name {address.host} does not resolve", remedy)
    if isinstance(error, ConnectionRefusedError):
        return failed(
            "refuses the connection: nothing listens on that port",
            f"check that a server runs at {address.host} port {address.port}",
        )
    reason = error.strerror or str(error) or type(error).__name__
    if address.transport == "udp":
        return failed(f"cannot be reached ({reason}): UDP may be blocked", _firewall(address))
    return failed(f"cannot be reached ({reason})", f"check the network's way to {address.host}")
