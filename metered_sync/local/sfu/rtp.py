"""Parse the headers of RTP packets, and build header extensions; payloads stay untouched.

Sources: RFC 3550 (RTP), RFC 8285 (header extensions).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

__all__ = ["RTP_HEADER", "Packet", "element", "extension_block", "parse_packet"]

RTP_HEADER = struct.Struct("!BBHII")
"""Flags and CSRC count, marker and payload type, sequence number, timestamp, SSRC."""
_EXTENSION_HEADER = struct.Struct("!HH")
_ONE_BYTE_FORM = 0xBEDE
_TWO_BYTE_FORM = 0x1000
_MAX_ONE_BYTE_ID = 14
_MAX_ONE_BYTE_SIZE = 16


class Packet:
    """A parsed packet, kept for retransmission.

    Padding stays part of the payload and its flag part of ``flags``, so a packet of
    nothing but padding goes through like any other.
    """

    __slots__ = (
        "csrcs",
        "elements",
        "flags",
        "marker",
        "payload",
        "payload_type",
        "seq",
        "ssrc",
        "timestamp",
    )

    def __init__(
        self,
        flags: int,
        marker: int,
        payload_type: int,
        seq: int,
        timestamp: int,
        ssrc: int,
        csrcs: bytes,
        elements: list[tuple[int, bytes]],
        payload: bytes,
    ) -> None:
        self.flags = flags
        """The first byte without the extension flag."""
        self.marker = marker
        """0x80 or 0, ready to be added to a payload type."""
        self.payload_type = payload_type
        self.seq = seq
        self.timestamp = timestamp
        self.ssrc = ssrc
        self.csrcs = csrcs
        self.elements = elements
        """Header extension elements, as ``(id, value)``."""
        self.payload = payload

    @property
    def is_padding(self) -> bool:
        """Return whether the packet has nothing but padding, as browsers send to probe the path."""
        payload = self.payload
        return not payload or (self.flags & 0x20 != 0 and payload[-1] >= len(payload))


def parse_packet(data: bytes) -> Packet | None:
    """Parse an unprotected RTP packet; `None` if it is cut off."""
    if len(data) < RTP_HEADER.size:
        return None
    flags, second, seq, timestamp, ssrc = RTP_HEADER.unpack_from(data)
    start = RTP_HEADER.size + 4 * (flags & 0x0F)
    csrcs = data[RTP_HEADER.size : start] if start > RTP_HEADER.size else b""
    elements: list[tuple[int, bytes]] = []
    if flags & 0x10:
        if len(data) < start + 4:
            return None
        form, words = _EXTENSION_HEADER.unpack_from(data, start)
        end = start + 4 + 4 * words
        if len(data) < end:
            return None
        elements = _elements(data, start + 4, end, form)
        start = end
    if len(data) < start:
        return None
    return Packet(
        flags & 0xEF,
        second & 0x80,
        second & 0x7F,
        seq,
        timestamp,
        ssrc,
        csrcs,
        elements,
        data[start:],
    )


def _elements(data: bytes, position: int, end: int, form: int) -> list[tuple[int, bytes]]:
    result: list[tuple[int, bytes]] = []
    one_byte = form == _ONE_BYTE_FORM
    if not one_byte and form & 0xFFF0 != _TWO_BYTE_FORM:
        return result
    while position < end:
        first = data[position]
        position += 1
        if first == 0:
            continue  # Padding between elements.
        if one_byte:
            number, size = first >> 4, (first & 0x0F) + 1
            if number == 15:
                break  # Reserved: stop here (RFC 8285, section 4.2).
        else:
            if position == end:
                break
            number, size = first, data[position]
            position += 1
        if position + size > end:
            break
        result.append((number, data[position : position + size]))
        position += size
    return result


def element(number: int, value: bytes) -> bytes:
    """Return one element in the one-byte form; empty if the form cannot hold it."""
    if not 0 < number <= _MAX_ONE_BYTE_ID or not 0 < len(value) <= _MAX_ONE_BYTE_SIZE:
        return b""
    return bytes((number << 4 | len(value) - 1,)) + value


def extension_block(elements: Iterable[bytes]) -> bytes:
    """Return the header extension of these :func:`element` values; empty for none."""
    body = b"".join(elements)
    if not body:
        return b""
    words = (len(body) + 3) // 4
    return _EXTENSION_HEADER.pack(_ONE_BYTE_FORM, words) + body + bytes(4 * words - len(body))
