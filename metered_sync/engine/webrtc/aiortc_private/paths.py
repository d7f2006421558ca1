"""Reach into ICE and DTLS: gathering, the path in use, probes, relays."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import Callable
from typing import Any

import aioice.ice
import aioice.stun
from aiortc import RTCDtlsTransport, RTCIceTransport

from metered_sync.engine.webrtc.aiortc_private.capabilities import Capability, can
from metered_sync.engine.webrtc.aiortc_private.names import (
    GATHERER_STATE,
    ICE_START,
    RECEIVED_PACKETS,
    SENT_PACKETS,
)

__all__ = [
    "bound_gathering",
    "can_probe",
    "can_relay_only",
    "change_host_addresses",
    "end_checks",
    "end_gathering",
    "enlarge_receive_buffer",
    "nominated_pair",
    "packets_received",
    "packets_sent",
    "probe",
    "trust_relay",
    "use_relays_only",
]


RECEIVE_BUFFER = 1 << 21
"""Bytes of packets that wait for this process, as far as the system permits. What Linux gives by
itself, 208 KiB, holds some ninety packets of video: fewer than a key frame may have."""


GATHER_LIMIT = 10.0
"""Seconds that gathering may go on for in a transport that is closed: aioice's own bound is 5."""


def _connection(transport: RTCIceTransport) -> Any:
    return getattr(transport.iceGatherer, "_connection", None)


def nominated_pair(transport: RTCIceTransport) -> Any:
    """Return the pair of candidates in use; ``None`` before there is one."""
    pairs = getattr(_connection(transport), "_nominated", None) or {}
    return next(iter(pairs.values()), None)


def enlarge_receive_buffer(transport: RTCIceTransport) -> None:
    """Have more of what comes in one burst wait for this process, on the path in use."""
    protocol = getattr(nominated_pair(transport), "protocol", None)
    path = getattr(protocol, "transport", None)
    end = None if path is None else path.get_extra_info("socket")
    if end is not None and end.type == socket.SOCK_DGRAM:  # (TCP finds its own size)
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)


def can_probe() -> bool:
    """Say whether :func:`probe` and the counts of packets tell something."""
    return can(Capability.PROBES)


def packets_received(transport: RTCDtlsTransport) -> int:
    """Return how many packets have come so far: media, reports, data, all but STUN."""
    return int(getattr(transport, RECEIVED_PACKETS))


def packets_sent(transport: RTCDtlsTransport) -> int:
    """Return how many packets have been sent so far: media, reports, data, all but STUN."""
    return int(getattr(transport, SENT_PACKETS))


async def probe(transport: RTCIceTransport) -> None:
    """Ask the other end of the path in use for an answer (STUN); return once there is one.

    It is what aioice does for consent, which asks once every five seconds, and gives up after
    six answers that did not come within half a second.
    """
    connection, pair = _connection(transport), nominated_pair(transport)
    while True:
        try:
            await pair.protocol.request(
                connection.build_request(pair, nominate=False),
                pair.remote_addr,
                integrity_key=connection.remote_password.encode(),
                retransmissions=2,
            )
            return
        except aioice.stun.TransactionFailed:  # an answer as well
            return
        except aioice.stun.TransactionTimeout:
            continue


async def end_gathering(transport: RTCIceTransport) -> None:
    """Close what a transport opens that was closed while it gathered candidates, or before it did.

    Its connection goes on to gather, and keeps the sockets of all that comes.
    """
    gatherer, connection = transport.iceGatherer, _connection(transport)
    if gatherer.state == "new" and hasattr(gatherer, GATHERER_STATE):
        setattr(gatherer, GATHERER_STATE, "completed")  # it never begins
    elif gatherer.state == "gathering" and connection is not None:
        gathered = asyncio.Event()
        gatherer.on("statechange", gathered.set)
        with contextlib.suppress(asyncio.TimeoutError):  # it has been broken off
            await asyncio.wait_for(gathered.wait(), GATHER_LIMIT)
        await connection.close()


async def end_checks(transport: RTCIceTransport) -> None:
    """Close a transport again that was closed while it was connecting.

    Its connection may succeed all the same, and goes on to ask for consent; or it waits for
    candidates for ever (aioice 0.10).
    """
    started: asyncio.Event | None = getattr(transport, ICE_START, None)
    connection = _connection(transport)
    if started is not None and connection is not None:
        connection._check_list_done = True
        await started.wait()
        await connection.close()


def can_relay_only() -> bool:
    """Say whether direct paths can be left out. (aiortc offers that from 1.16 on.)"""
    return can(Capability.RELAYS)


def use_relays_only(transport: RTCIceTransport) -> bool:
    """Leave direct paths out before gathering; say whether there is a TURN server for it."""
    connection = _connection(transport)
    connection._transport_policy = aioice.ice.TransportPolicy.RELAY
    return connection.turn_server is not None


def trust_relay(transport: RTCIceTransport, context: Callable[[], ssl.SSLContext]) -> None:
    """Have a context made for the TURN server that is reached over TLS, if there is one."""
    connection = _connection(transport)
    if getattr(connection, "turn_ssl", False) is True:
        connection.turn_ssl = context()  # (aioice hands it to asyncio, which takes either)


def bound_gathering(transport: RTCIceTransport, seconds: float) -> None:
    """Let a STUN or TURN server that does not answer cost at most ``seconds``.

    aioice has a bound of its own, 5 s, as the default of a parameter that nobody passes.
    """
    if can(Capability.GATHERING):
        connection = _connection(transport)
        find = type(connection).get_component_candidates
        connection.get_component_candidates = functools.partial(find, connection, timeout=seconds)


def change_host_addresses(change: Callable[[Callable[[], list[str]], bool], list[str]]) -> None:
    """Have a function choose the addresses on which candidates are gathered.

    It stands in for aioice's, for all of this process. It is called with a function that
    returns aioice's choice, and with whether IPv4 is used.
    """
    original = getattr(aioice.ice, "get_host_addresses", None)
    if original is not None:
        find: Callable[[bool, bool], list[str]] = original

        def get_host_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
            return change(lambda: find(use_ipv4, use_ipv6), use_ipv4)

        aioice.ice.get_host_addresses = get_host_addresses
