"""Chunks of SCTP that no honest side sends: parts of messages that wait for others for ever."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from aiortc.rtcsctptransport import Chunk, serialize_packet

__all__ = ["SCTP", "send_chunk"]


def data(tsn: int, body: bytes, *, stream: int = 1, seq: int = 0, flags: int = 0) -> bytes:
    size = 16 + len(body)
    head = struct.pack("!BBHLHHL", 0, flags, size, tsn & 0xFFFFFFFF, stream, seq, 53)
    return head + body + bytes(-size % 4)


FIRST, LAST, UNORDERED = 2, 1, 4
SCTP: dict[str, Callable[[int, int], bytes]] = {
    "a message without an end": lambda n, tsn: data(
        tsn + n, bytes(1100), flags=FIRST if n == 0 else 0
    ),
    "in small pieces": lambda n, tsn: b"".join(
        data(tsn + n * 40 + k, b"x", flags=FIRST if n == k == 0 else 0) for k in range(40)
    ),
    "with a gap": lambda n, tsn: data(tsn + 1 + n, bytes(1100), flags=FIRST | LAST),
    "with many gaps": lambda n, tsn: b"".join(
        data(tsn + 1 + 2 * (n * 40 + k), b"x", flags=FIRST | LAST) for k in range(40)
    ),
    "streams": lambda n, tsn: b"".join(
        data(tsn + n * 40 + k, b"x", stream=(n * 40 + k) % 65535, seq=9, flags=FIRST | LAST)
        for k in range(40)
    ),
    "unordered": lambda n, tsn: data(
        tsn + 1 + 2 * n, bytes(1100), stream=n % 65535, flags=FIRST | UNORDERED
    ),
    "far ahead, then without an end": lambda n, tsn: data(
        tsn + (1 << 20 if n == 0 else n - 1), bytes(1100), flags=FIRST if n == 1 else 0
    ),
}


class _Raw(Chunk):
    def __init__(self, body: bytes) -> None:
        self.body = body

    def __bytes__(self) -> bytes:
        return self.body


async def send_chunk(sctp: Any, body: bytes) -> None:
    """Send bytes as the chunks of one packet of an association."""
    ports = sctp._local_port, sctp._remote_port
    packet = serialize_packet(*ports, sctp._remote_verification_tag, _Raw(body))  # type: ignore[arg-type]
    await sctp.transport._send_data(packet)
