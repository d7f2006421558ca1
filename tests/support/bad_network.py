"""A network that loses, doubles and reorders what aiortc receives in this process."""

from __future__ import annotations

import collections
import contextlib
import random
from collections.abc import Iterator
from typing import Any
from unittest import mock

from aioice import Connection


class BadNetwork:
    """What came, before anything was done to it."""

    def __init__(self, seed: int, fraction: float) -> None:
        self.fraction = fraction
        """How many packets each thing happens to."""
        self.faults = 0
        self._random = random.Random(seed)
        self._sent: dict[bytes, dict[int, None]] = collections.defaultdict(dict)
        """Times of pictures in the order in which they came, by SSRC."""
        self._arriving: list[list[Any]] = []

    def happens(self) -> bool:
        """Whether something is to go wrong now."""
        result = self._random.random() < self.fraction
        self.faults += result
        return result

    def take(self, data: bytes) -> list[bytes]:
        """Take a datagram; return what arrives now."""
        if not 128 <= data[0] < 192:  # neither RTP nor RTCP (RFC 7983)
            return [data]
        is_media = not 192 <= data[1] < 224  # (RFC 5761)
        if is_media and not data[0] & 0x20:  # only padding is padded
            self._sent[data[8:12]][int.from_bytes(data[4:8], "big")] = None
        if not self.happens():
            delay = 3 if is_media and self.happens() else 0
            copies = 2 if self.happens() else 1
            self._arriving += [[delay + copy, data] for copy in range(copies)]
        arrived = [data for left, data in self._arriving if left <= 0]
        self._arriving = [[left - 1, data] for left, data in self._arriving if left > 0]
        return arrived

    def check(self, pts: list[int]) -> None:
        """Check that these are all pictures from one on, in order (times in 1/90000 s)."""
        sent = [*max(self._sent.values(), key=len)]  # (those of others were sent again)
        times = [one - pts[0] for one in pts]
        for start in range(len(sent) - len(pts) + 1):
            since = [(one - sent[start]) & 0xFFFFFFFF for one in sent[start : start + len(pts)]]
            if since == times:
                return
        raise AssertionError(f"received {times}; sent {[(s - sent[0]) & 0xFFFFFFFF for s in sent]}")


@contextlib.contextmanager
def bad_network(seed: int = 1, fraction: float = 0.03) -> Iterator[BadNetwork]:
    """Have aiortc lose that fraction of the packets it receives, double and delay as many.

    Of connections made meanwhile; reports, requests and what is sent again included.
    """
    network = BadNetwork(seed, fraction)
    receive = Connection.recv
    arrived: dict[Any, collections.deque[bytes]] = collections.defaultdict(collections.deque)

    async def take(connection: Connection) -> bytes:
        while not arrived[connection]:
            arrived[connection] += network.take(await receive(connection))
        return arrived[connection].popleft()

    with mock.patch.object(Connection, "recv", take):
        yield network
