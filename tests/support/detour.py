"""A way for media between two ends that leads through sockets of a test, which may go dark."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import Any, cast

_PORT = re.compile(r"( 127\.0\.0\.1 )(\d+)( typ host)")


class Detour:
    """Stands for each end towards the other: by a socket for each port in its descriptions."""

    def __init__(self) -> None:
        self.checks = 0
        """How many STUN requests have come through."""
        self._fronts: dict[int, _Front] = {}
        """By the ports that they stand for."""

    async def lead(self, side: str, text: str) -> str:
        """Return a description of an end with ports of ours in the place of its own."""
        loop = asyncio.get_running_loop()
        for port in {int(found[2]) for found in _PORT.finditer(text)}:
            if port not in self._fronts:
                front = _Front(self, side, port)
                await loop.create_datagram_endpoint(
                    lambda front=front: front, local_addr=("127.0.0.1", 0)
                )
                self._fronts[port] = front
        return _PORT.sub(lambda m: f"{m[1]}{self._fronts[int(m[2])].port}{m[3]}", text)

    def darken(self, *senders: str) -> None:
        """Lose all that these ends send over the ways that there are now; later ones work."""
        for front in self._fronts.values():
            front.dark = any(sender != front.side for sender in senders)

    def lighten(self) -> None:
        """Have all ways work again."""
        for front in self._fronts.values():
            front.dark = False

    def take(self, front: _Front, data: bytes, sender: int) -> None:
        """Send a datagram on, from the socket that stands for its sender."""
        back = self._fronts.get(sender)
        if back is not None and not front.dark:
            self.checks += data[:2] == b"\x00\x01"
            back.transport.sendto(data, ("127.0.0.1", front.stands_for))

    def close(self) -> None:
        """Close all sockets."""
        for front in self._fronts.values():
            front.transport.close()


class _Front(asyncio.DatagramProtocol):
    """The socket that stands for one port of an end; the other end sends to it."""

    transport: asyncio.DatagramTransport

    def __init__(self, detour: Detour, side: str, stands_for: int) -> None:
        self.side = side
        self.stands_for = stands_for
        self.dark = False
        self._detour = detour

    @property
    def port(self) -> int:
        port: int = self.transport.get_extra_info("sockname")[1]
        return port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._detour.take(self, data, addr[1])


@contextlib.asynccontextmanager
async def detour() -> AsyncIterator[Detour]:
    """Make a way, and close its sockets in the end."""
    way = Detour()
    try:
        yield way
    finally:
        way.close()
