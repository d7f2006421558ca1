"""Ask a STUN server for our address, and send packets through a TURN server; on the loop.

A TURN server is asked for two relays; what one sends comes out of the other and is echoed back,
so that no third party is needed. It needs aioice (0.10 to 0.13).
"""

from __future__ import annotations

import asyncio
import ssl
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aioice import stun, turn

from metered_sync.bridge.clock import monotonic
from metered_sync.engine.logs import scrub_loggers
from metered_sync.wire.events import IceServer

__all__ = ["Refused", "Relayed", "Silent", "ask_stun", "relay_packets"]

PACKETS = 50
"""Packets that are relayed."""
INTERVAL = 0.01
"""Seconds between two of them."""
TAIL = 0.5
"""Seconds to wait for the last ones."""
BINDING = 3.0
"""Seconds that the two relays may take to know each other."""
SIZE = 160
"""Bytes of a packet: one of sound."""
scrub_loggers("aioice", quiet=True)


class Silent(Exception):  # noqa: N818 - it is an answer, not a failure
    """A server does not answer."""


class Refused(Exception):  # noqa: N818 - it is an answer, not a failure
    """A server answers with an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def _told() -> Iterator[None]:
    """Turn aioice's errors into these two."""
    try:
        yield
    except stun.TransactionFailed as error:
        code = int(error.response.attributes.get("ERROR-CODE", (0, ""))[0])
        raise Refused(code, str(error)) from None
    except (stun.TransactionError, ConnectionResetError):
        raise Silent from None


class _StunAsker(asyncio.DatagramProtocol):
    """Sends a request and hands its answer over; what aioice's transactions need."""

    def __init__(self) -> None:
        self.transaction: stun.Transaction | None = None
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        try:
            message = stun.parse_message(data)
        except ValueError:
            return
        if self.transaction is not None:
            self.transaction.response_received(message, (addr[0], addr[1]))

    def send_stun(self, message: stun.Message, addr: tuple[str, int]) -> None:
        """Send a request."""
        self._transport.sendto(bytes(message), addr)


async def ask_stun(address: tuple[str, int]) -> tuple[str, int]:
    """Return the address that a STUN server sees us at.

    Raises:
        Silent: It did not answer.
        Refused: It answered with an error.
        OSError: Nothing can be sent there.
    """
    loop = asyncio.get_running_loop()
    wildcard = "::" if ":" in address[0] else "0.0.0.0"
    transport, asker = await loop.create_datagram_endpoint(_StunAsker, local_addr=(wildcard, 0))
    try:
        request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
        asker.transaction = stun.Transaction(request, address, asker)
        with _told():
            answer, _ = await asker.transaction.run()
        seen: tuple[str, int] = answer.attributes["XOR-MAPPED-ADDRESS"]
        return seen
    finally:
        transport.close()


@dataclass(frozen=True)
class Relayed:
    """The traffic between two relays of one server."""

    sent: int
    arrived: int
    """Packets that came out at the other relay."""
    round_trip: float | None
    """Seconds, the median; through both relays and back. ``None`` where nothing came back."""
    refused: str = ""
    """The server's words, where it passes nothing on between its own relays."""

    @property
    def loss(self) -> float:
        """The part of the packets that did not arrive."""
        return 1 - self.arrived / self.sent if self.sent else 1.0


class _End(asyncio.DatagramProtocol):
    """One relay: notes what arrives, and sends it back where it is the far one."""

    def __init__(self, echoes: bool) -> None:
        self._echoes = echoes
        self.transport: Any = None
        self.arrived: dict[int, float] = {}
        self.bound = asyncio.Event()
        self.error: Exception | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def error_received(self, exc: Exception) -> None:
        self.error = exc

    def datagram_received(self, data: bytes, addr: Any) -> None:
        number = int.from_bytes(data[:4], "big")
        if number == 0:
            self.bound.set()
        elif number not in self.arrived:
            self.arrived[number] = monotonic()
            if self._echoes:
                self.transport.sendto(data, addr)


async def relay_packets(
    address: tuple[str, int],
    server: IceServer,
    *,
    transport: str,
    context: ssl.SSLContext | None,
) -> Relayed:
    """Allocate two relays and send packets from one to the other and back.

    Args:
        address: The server's host and port.
        server: Has user name and credential.
        transport: ``"udp"`` or ``"tcp"``: how the server is reached.
        context: For TLS.

    Raises:
        Refused: The credential, for one.
        Silent, OSError, ssl.SSLError: The server was not reached.
    """
    ends = [_End(echoes=False), _End(echoes=True)]
    open_ends: list[Any] = []
    try:
        made = await asyncio.gather(
            *(
                turn.create_turn_endpoint(
                    lambda end=end: end,  # type: ignore[misc]
                    server_addr=address,
                    username=server.username,
                    password=server.credential,
                    ssl=context,
                    transport=transport,
                )
                for end in ends
            ),
            return_exceptions=True,
        )
        open_ends = [one[0] for one in made if not isinstance(one, BaseException)]
        for one in made:
            if isinstance(one, BaseException):
                with _told():
                    raise one
        return await _exchange(ends)
    finally:
        for one in open_ends:
            one.close()


async def _exchange(ends: list[_End]) -> Relayed:
    near, far = ends
    places = [end.transport.get_extra_info("sockname") for end in ends]
    deadline = monotonic() + BINDING
    while not (near.bound.is_set() and far.bound.is_set()):
        near.transport.sendto(bytes(SIZE), places[1])
        far.transport.sendto(bytes(SIZE), places[0])
        await asyncio.sleep(0.1)
        error = near.error or far.error
        if isinstance(error, stun.TransactionFailed):
            return Relayed(0, 0, None, str(error))
        if monotonic() > deadline:
            return Relayed(PACKETS, 0, None)
    sent: dict[int, float] = {}
    for number in range(1, PACKETS + 1):
        sent[number] = monotonic()
        near.transport.sendto(number.to_bytes(4, "big") + bytes(SIZE - 4), places[1])
        await asyncio.sleep(INTERVAL)
    last = monotonic() + TAIL
    while len(near.arrived) < PACKETS and monotonic() < last:
        await asyncio.sleep(INTERVAL)
    times = [there - sent[number] for number, there in near.arrived.items()]
    return Relayed(PACKETS, len(far.arrived), statistics.median(times) if times else None)
