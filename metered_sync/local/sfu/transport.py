"""Carry the media of all clients over the SFU's one UDP socket.

The SFU is an ICE-lite agent (RFC 8445, section 2.5): it gathers nothing and ignores the
client's candidates, but answers the checks that reach its socket. Which client a datagram
belongs to shows in the check's user name, and from then on in the address it came from.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import socket
from collections.abc import Callable
from typing import cast

import pylibsrtp

from metered_sync.local.sfu import stun
from metered_sync.local.sfu.dtls import Dtls, DtlsIdentity
from metered_sync.wire.sdp import Fingerprint

__all__ = ["Address", "ClientTransport", "UdpPort"]

Address = tuple[str, int]
"""Host and port; IPv6 has two more items, which are kept as they came."""

logger = logging.getLogger("metered_sync")
_random = random.Random()
_MAX_ADDRESSES = 8
"""Addresses of one client that are remembered: its interfaces, or a NAT that moves."""
_RECEIVE_BUFFER = 1 << 22
"""Bytes. A key frame of each of several publishers arrives in one burst."""


class UdpPort(asyncio.DatagramProtocol):
    """The socket, with the tables that lead from a datagram to its client's transport."""

    def __init__(self) -> None:
        self.loss = 0.0
        """Fraction of media packets that is dropped on purpose, in and out."""
        self.address: Address = ("", 0)
        self._transport: asyncio.DatagramTransport | None = None
        self._full = False
        self._by_ufrag: dict[str, ClientTransport] = {}
        self._by_address: dict[Address, ClientTransport] = {}

    async def open(self, host: str) -> None:
        """Bind to a free port of *host*."""
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, local_addr=(host, 0))

    def close(self) -> None:
        """Close the socket; what is sent afterwards goes nowhere."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        self._by_ufrag.clear()
        self._by_address.clear()

    # --- asyncio.DatagramProtocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)
        self.address = transport.get_extra_info("sockname")[:2]
        handle = transport.get_extra_info("socket")
        if handle is not None:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False

    def error_received(self, exc: Exception) -> None:
        pass  # A client's port is closed; the silence that follows ends its session.

    def datagram_received(self, data: bytes, addr: Address) -> None:
        # RFC 7983: the first byte tells the protocol.
        first = data[0] if data else 255
        if 128 <= first < 192:
            transport = self._by_address.get(addr)
            if transport is not None and not self.is_lost():
                transport.on_media(data)
        elif 20 <= first < 64:
            transport = self._by_address.get(addr)
            if transport is not None:
                transport.on_dtls(data)
        elif first < 4:
            self._on_stun(data, addr)

    def _on_stun(self, data: bytes, addr: Address) -> None:
        check = stun.parse_check(data)
        if check is not None:
            transport = self._by_ufrag.get(check.username.partition(":")[0])
            if transport is not None:
                transport.on_check(check, addr)

    # --- for the clients' transports ---

    def is_lost(self) -> bool:
        """Decide by lot whether this media packet is dropped on purpose."""
        return self.loss > 0 and _random.random() < self.loss

    def send(self, data: bytes, address: Address) -> None:
        """Send a datagram, or drop it when the system cannot take more."""
        if self._transport is not None and not self._full:
            self._transport.sendto(data, address)

    def register(self, ufrag: str, transport: ClientTransport) -> None:
        """Let checks for this user name reach *transport*."""
        self._by_ufrag[ufrag] = transport

    def register_address(self, address: Address, transport: ClientTransport) -> None:
        """Let what comes from this address reach *transport*: a check from there was authentic."""
        self._by_address[address] = transport

    def forget(
        self, transport: ClientTransport, ufrags: list[str], addresses: list[Address]
    ) -> None:
        """Remove these entries of *transport*, unless another took them over."""
        for ufrag in ufrags:
            self._by_ufrag.pop(ufrag, None)
        for address in addresses:
            if self._by_address.get(address) is transport:
                del self._by_address[address]


class ClientTransport:
    """The transport of one client: ICE-lite, DTLS and SRTP on top of the one socket.

    Args:
        port: The socket.
        identity: The certificate to show.
        on_rtp: Called with each unprotected RTP packet.
        on_rtcp: Called with each unprotected RTCP packet.
        on_change: Called when :attr:`state` has changed.
    """

    def __init__(
        self,
        port: UdpPort,
        identity: DtlsIdentity,
        *,
        on_rtp: Callable[[bytes], None],
        on_rtcp: Callable[[bytes], None],
        on_change: Callable[[], None],
    ) -> None:
        self.state = "new"
        """``"new"``, ``"connecting"``, ``"connected"``, ``"failed"`` or ``"closed"``."""
        self.fingerprints: tuple[Fingerprint, ...] = ()
        """What the client's certificate must match; set before its DTLS can begin."""
        self._port = port
        self._identity = identity
        self._on_rtp = on_rtp
        self._on_rtcp = on_rtcp
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self.last_heard = self._loop.time()
        """When the client last sent an authentic check (seconds of the loop's clock)."""
        self._passwords: dict[str, str] = {}
        self._address: Address | None = None
        self._addresses: list[Address] = []
        self._dtls: Dtls | None = None
        self._may_shake_again = False
        self._rx: pylibsrtp.Session | None = None
        self._tx: pylibsrtp.Session | None = None
        self.ufrag = ""
        self._new_credentials()

    @property
    def password(self) -> str:
        """Return the ICE password that goes with :attr:`ufrag`."""
        return self._passwords[self.ufrag]

    def restart(self) -> None:
        """Take new ICE credentials because the client has; the old ones serve until then.

        A client whose transport was closed with its last media section begins DTLS anew
        as well, so that is allowed now.
        """
        self._may_shake_again = True
        if self.state == "closed":
            self.state = "new"
        if len(self._passwords) > 1:
            oldest = next(iter(self._passwords))
            del self._passwords[oldest]
            self._port.forget(self, [oldest], [])
        self._new_credentials()

    def close(self) -> None:
        """Say good-bye to the client and leave the socket's tables."""
        if self._dtls is not None:
            self._dtls.close()
        self._port.forget(self, list(self._passwords), self._addresses)
        self._rx = self._tx = None
        self._address = None
        self.state = "closed"

    def _new_credentials(self) -> None:
        self.ufrag = secrets.token_hex(4)
        self._passwords[self.ufrag] = secrets.token_hex(16)
        self._port.register(self.ufrag, self)

    # --- in ---

    def on_check(self, check: stun.Check, address: Address) -> None:
        """Answer a connectivity check, if it is authentic."""
        password = self._passwords.get(check.username.partition(":")[0])
        if password is None or not stun.is_authentic(check, password):
            return
        if check.controlled:
            self._port.send(stun.failure(check, stun.ROLE_CONFLICT, password), address)
            return
        self.last_heard = self._loop.time()
        if address not in self._addresses:
            self._addresses.append(address)
            if len(self._addresses) > _MAX_ADDRESSES:
                self._port.forget(self, [], [self._addresses.pop(0)])
        self._port.register_address(address, self)
        if check.nominated or self._address is None:
            self._address = address
        self._port.send(stun.success(check, address, password), address)
        if self.state == "new":
            self._enter("connecting")

    def on_dtls(self, data: bytes) -> None:
        """Take a DTLS datagram from an address that has been checked."""
        if self._dtls is None or (self._may_shake_again and _is_client_hello(data)):
            self._may_shake_again = False
            self._dtls = Dtls(self._identity, self.fingerprints, self._send, self._on_dtls_change)
        dtls = self._dtls
        before = dtls.state
        dtls.feed(data)
        if dtls.state != before:
            self._on_dtls_change(dtls)

    def _on_dtls_change(self, dtls: Dtls) -> None:
        if dtls is not self._dtls:  # one that was given up for another
            return
        is_up = dtls.state == "connected"
        self._rx, self._tx = (dtls.rx, dtls.tx) if is_up else (None, None)
        if dtls.problem:
            logger.warning("SFU: the DTLS handshake of a client failed: %s", dtls.problem)
        self._enter(dtls.state)

    def on_media(self, data: bytes) -> None:
        """Take an SRTP or SRTCP packet; drop what is forged or repeated."""
        rx = self._rx
        if rx is None or len(data) < 2:
            return
        try:
            if 192 <= data[1] < 224:  # RFC 5761, section 4
                plain, deliver = rx.unprotect_rtcp(data), self._on_rtcp
            else:
                plain, deliver = rx.unprotect(data), self._on_rtp
        except (pylibsrtp.Error, ValueError):
            return
        deliver(plain)

    # --- out ---

    def send_rtp(self, packet: bytes) -> None:
        """Protect and send an RTP packet; drop it while the transport is not up."""
        tx, address = self._tx, self._address
        if tx is None or address is None or self._port.is_lost():
            return
        try:
            data = tx.protect(packet)
        except (pylibsrtp.Error, ValueError):
            return  # Longer than libsrtp's buffer here, or no key left.
        self._port.send(data, address)

    def send_rtcp(self, packet: bytes) -> None:
        """Protect and send an RTCP packet; drop it while the transport is not up."""
        tx, address = self._tx, self._address
        if tx is None or address is None or self._port.is_lost():
            return
        try:
            data = tx.protect_rtcp(packet)
        except (pylibsrtp.Error, ValueError):
            return
        self._port.send(data, address)

    def _send(self, data: bytes) -> None:
        if self._address is not None:
            self._port.send(data, self._address)

    def _enter(self, state: str) -> None:
        self.state = state
        self._on_change()


def _is_client_hello(data: bytes) -> bool:
    """Return whether a DTLS datagram begins a handshake: epoch 0, message type 1."""
    return len(data) > 13 and data[0] == 22 and data[3:5] == b"\0\0" and data[13] == 1
