"""Choose STUN and TURN servers, and the paths that a peer connection may use; watch the path."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from itertools import chain, zip_longest
from urllib.parse import urlsplit

from aiortc import RTCDtlsTransport, RTCPeerConnection
from aiortc.rtcicetransport import RTCIceTransport, parse_stun_turn_uri

from metered_sync.bridge.clock import monotonic
from metered_sync.engine.webrtc.aiortc_private import paths
from metered_sync.errors import NegotiationFailedError
from metered_sync.wire.events import IceServer
from metered_sync.wire.timings import Timings
from metered_sync.wire.urls import is_loopback

__all__ = [
    "choose_servers",
    "loopback_address",
    "path",
    "path_died",
    "relay_only",
    "transports",
]

logger = logging.getLogger("metered_sync")
_ORDER = (("turn", "udp"), ("turns", "tcp"), ("turn", "tcp"))
"""TURN schemes and transports: the fastest first, then those that pass most firewalls."""


def choose_servers(servers: Iterable[IceServer], attempt: int) -> tuple[IceServer, ...]:
    """Return one STUN and one TURN server, others with each attempt.

    aiortc (1.14 to 1.16) uses the first of each that it is given, and no other; a list of
    the service has the same server under several ports and transports. What it could not
    read is left out.
    """
    stun: list[IceServer] = []
    turn: dict[tuple[str, str], list[IceServer]] = {kind: [] for kind in _ORDER}
    for server in servers:
        for url in server.urls:
            one = IceServer((url,), server.username, server.credential)
            try:
                parsed = parse_stun_turn_uri(url)
            except ValueError:
                logger.debug("an ICE server's URL cannot be read: it is left out")
                continue
            if parsed["scheme"] == "stun":
                stun.append(IceServer((url,)))
            elif (kind := (parsed["scheme"], parsed.get("transport"))) in turn:
                turn[kind].append(one)
    relays = [one for one in chain(*zip_longest(*turn.values())) if one is not None]
    return tuple(choice[attempt % len(choice)] for choice in (stun, relays) if choice)


def loopback_address(url: str) -> str | None:
    """Return the only address to gather candidates on, if a service is on this machine.

    For then so is everybody who uses it. ``None``: on all that there are.
    """
    host = urlsplit(url).hostname
    if not is_loopback(host):
        return None
    return "::1" if host == "::1" else "127.0.0.1"


def transports(pc: RTCPeerConnection) -> list[RTCIceTransport]:
    """Return the ICE transports of a peer connection, each once."""
    return [dtls.transport for dtls in dtls_transports(pc)]


def dtls_transports(pc: RTCPeerConnection) -> list[RTCDtlsTransport]:
    """Return the DTLS transports of a peer connection, each once."""
    found = [transceiver.receiver.transport for transceiver in pc.getTransceivers()]
    if pc.sctp is not None:
        found.append(pc.sctp.transport)
    return list(dict.fromkeys(found))


def path(transport: RTCIceTransport) -> dict[str, str] | None:
    """Return the kinds of the candidates in use, once they have been chosen."""
    pair = paths.nominated_pair(transport)
    if pair is None:
        return None
    return {"local": pair.local_candidate.type, "remote": pair.remote_candidate.type}


LOOKS = 4
"""How often a path is looked at within the time for which it may be silent."""


async def path_died(pc: RTCPeerConnection, timings: Timings) -> bool:
    """Wait until the path of a connection that is up has died; false if the connection ends first.

    It is dead if nothing has come for ``Timings.path_silence``, and nothing comes for
    ``Timings.path_probe`` after that, though probes ask for it. A path that is merely quiet
    answers a probe. It is dead as well if it does not take what is sent: if for as long as both
    no probe is answered, though other packets come. Time in which this process has stood still
    does not count: what came meanwhile may not have been read yet.
    """
    (dtls, *_) = dtls_transports(pc)
    pause, most = timings.path_silence / LOOKS, timings.path_silence + timings.path_probe
    received, silence, looked = -1, 0.0, monotonic()
    sent, unanswered = paths.packets_sent(dtls), 0.0
    probes: set[asyncio.Task[None]] = set()
    try:
        while pc.connectionState == "connected":
            await asyncio.sleep(pause)
            before, looked = looked, monotonic()
            passed = min(looked - before, 2 * pause)
            answered = any(map(_is_answered, probes))
            count, received = received, paths.packets_received(dtls)
            silence = 0.0 if answered or count != received else silence + passed
            count, sent = sent, paths.packets_sent(dtls)
            sends = count != sent or unanswered > 0  # since the latest answer
            unanswered = unanswered + passed if sends and not answered else 0.0
            if max(silence, unanswered) >= most:
                return True
            if silence >= timings.path_silence or unanswered >= timings.path_silence / 2:
                probes.add(asyncio.create_task(paths.probe(dtls.transport)))
            else:
                _cancel(probes)
        return False
    finally:
        _cancel(probes)


def _cancel(probes: set[asyncio.Task[None]]) -> None:
    for probe in probes:
        probe.cancel()
    probes.clear()


def _is_answered(probe: asyncio.Task[None]) -> bool:
    return probe.done() and not probe.cancelled() and probe.exception() is None


def relay_only(pc: RTCPeerConnection, label: str) -> None:
    """Let a peer connection that has not gathered yet use relayed candidates alone.

    Raises:
        NegotiationFailedError: It cannot be kept.
    """
    for transport in transports(pc):
        if not paths.can_relay_only():
            raise NegotiationFailedError(
                f"{label}: this version of aioice cannot leave direct paths out, so relay_only "
                "cannot be kept",
                stage="ICE",
            )
        if not paths.use_relays_only(transport):
            raise NegotiationFailedError(
                f"{label}: relay_only needs a TURN server, and none is known: pass ice_servers "
                "with one",
                stage="ICE",
            )
