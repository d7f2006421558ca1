"""Make a peer connection, gather its candidates, wait until it connects, close it."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import weakref
from collections.abc import Callable, Iterable

import anyio
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection
from aiortc.rtcconfiguration import RTCBundlePolicy

from metered_sync.engine.logs import scrub_loggers
from metered_sync.engine.network.certificates import Authorities
from metered_sync.engine.webrtc import ice
from metered_sync.engine.webrtc.aiortc_private import paths
from metered_sync.engine.webrtc.aiortc_private.capabilities import capabilities
from metered_sync.engine.webrtc.aiortc_private.starting import WatchedPeerConnection
from metered_sync.engine.webrtc.steady_clock import use_steady_clock
from metered_sync.errors import NegotiationFailedError
from metered_sync.wire.events import IceServer

__all__ = [
    "bound_gathering",
    "close_quietly",
    "gather_on",
    "peer_connection",
    "trust_relays",
    "wait_connected",
]

logger = logging.getLogger("metered_sync")
scrub_loggers("aiortc", "aioice", quiet=True)

gather_on: contextvars.ContextVar[str | None] = contextvars.ContextVar("gather_on", default=None)
"""The only address to gather candidates on, in the current task: a loopback one, or ``None``."""


def _choose_addresses(find: Callable[[], list[str]], use_ipv4: bool) -> list[str]:
    """Use loopback addresses where there are no others, or where we ask for them.

    aioice (0.10 to 0.13) leaves 127.0.0.1 and ::1 out, so that a machine in flight mode
    has no candidate at all. Other users of aioice in this process see a difference only where
    they would have had no address.
    """
    address = gather_on.get()
    if address is not None:
        return [address]
    return find() or (["127.0.0.1"] if use_ipv4 else [])


paths.change_host_addresses(_choose_addresses)
use_steady_clock()


def peer_connection(ice_servers: Iterable[IceServer]) -> WatchedPeerConnection:
    """Return a peer connection with one transport for everything."""
    capabilities()  # tells once what this version lacks
    servers = [
        RTCIceServer(urls=list(s.urls), username=s.username, credential=s.credential)
        for s in ice_servers
    ]
    # An empty list, not None: None means a public STUN server to aiortc.
    configuration = RTCConfiguration(servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
    pc = WatchedPeerConnection(configuration)
    pc.on("connectionstatechange", functools.partial(_on_state, weakref.ref(pc)))
    return pc


def _on_state(peer_connection: weakref.ref[RTCPeerConnection]) -> None:
    pc = peer_connection()
    if pc is not None and pc.connectionState == "connected":
        for transport in ice.transports(pc):
            paths.enlarge_receive_buffer(transport)


def bound_gathering(pc: RTCPeerConnection, seconds: float) -> None:
    """Let a STUN or TURN server that does not answer cost at most ``seconds``.

    The candidates known by then go into the offer.
    """
    for transport in ice.transports(pc):
        paths.bound_gathering(transport, seconds)


def trust_relays(pc: RTCPeerConnection, ca_file: str | None, label: str) -> None:
    """Trust the same certificates of TURN servers, reached over TLS, as of all other services.

    Raises:
        NegotiationFailedError: The file with them cannot be used.
    """
    authorities = Authorities.choose(ca_file)
    if authorities.path is None:
        return
    try:
        for transport in ice.transports(pc):
            paths.trust_relay(transport, authorities.context)
    except ValueError as error:
        raise NegotiationFailedError(f"{label}: {error}", stage="ICE") from None


async def wait_connected(pc: RTCPeerConnection, stage: Callable[[str], None]) -> None:
    """Wait until ICE and DTLS are up.

    ``stage`` is told how far it has come. Raises :class:`NegotiationFailedError`.
    """
    changed = asyncio.Event()

    def note() -> None:
        changed.set()

    for event in ("connectionstatechange", "iceconnectionstatechange"):
        pc.on(event, note)
    try:
        while pc.connectionState != "connected":
            ice = pc.iceConnectionState == "completed"
            stage("DTLS" if ice else "ICE")
            if pc.connectionState in ("failed", "closed"):
                what = (
                    "the DTLS handshake failed"
                    if ice
                    else "no network path was found (ICE): a firewall may block UDP"
                )
                raise NegotiationFailedError(
                    f"the media connection could not be made: {what}",
                    stage="DTLS" if ice else "ICE",
                )
            await changed.wait()
            changed.clear()
    finally:
        for event in ("connectionstatechange", "iceconnectionstatechange"):
            pc.remove_listener(event, note)


CLOSE_LIMIT = 60.0
"""Seconds that closing may go on for: a TURN server that does not answer is asked for half a
minute."""

_closing: dict[WatchedPeerConnection, asyncio.Task[None]] = {}
"""What closes them: all who close one wait for the same, and none that gives up breaks it off."""


async def close_quietly(pc: WatchedPeerConnection, within: float, *, quiet: bool = False) -> None:
    """Close a peer connection; log what goes wrong.

    What takes longer than ``within`` seconds goes on in the background: aiortc would leave threads,
    tasks and sockets where it was broken off.

    Args:
        pc: The peer connection.
        within: Seconds to wait for it.
        quiet: The other side is not told: it finds out.
    """
    closing = _closing.get(pc)
    if closing is None:
        closing = _closing[pc] = asyncio.get_running_loop().create_task(_close(pc, quiet))
        closing.add_done_callback(lambda _: _closing.pop(pc))
    with anyio.CancelScope(shield=True):
        await asyncio.wait((closing,), timeout=within)


async def _stop(pc: WatchedPeerConnection) -> None:
    """Stop what a connection that is closed has started all the same."""
    for transceiver in pc.getTransceivers():
        await transceiver.stop()
    if pc.sctp is not None:
        await pc.sctp.stop()
    for transport in {*ice.dtls_transports(pc), *pc.transports}:
        await transport.stop()
        await transport.transport.stop()


async def _close(pc: WatchedPeerConnection, quiet: bool) -> None:
    try:
        with anyio.move_on_after(CLOSE_LIMIT):
            if quiet:
                for transport in ice.transports(pc):
                    await transport.stop()
            await pc.close()
            for transport in ice.transports(pc):
                await paths.end_gathering(transport)
                await paths.end_checks(transport)
            await pc.started()
            await _stop(pc)
    except Exception:
        logger.debug("closing a peer connection failed", exc_info=True)
