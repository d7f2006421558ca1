"""Read and write the RTCP messages that an SFU needs.

Sources: RFC 3550 (sender and receiver reports, BYE), RFC 4585 (NACK, PLI), RFC 5104 (FIR),
draft-alvestrand-rmcat-remb-03 (REMB).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

__all__ = [
    "MAX_REPORTS",
    "Feedback",
    "RtcpMessage",
    "ReceptionReport",
    "bye",
    "fir_targets",
    "feedback",
    "is_fir",
    "is_nack",
    "is_pli",
    "nack",
    "nacked",
    "parse_compound",
    "pli",
    "receiver_report",
    "remb",
    "sender_info",
    "sender_report",
]

_SENDER_REPORT = 200
_RECEIVER_REPORT = 201
_SOURCE_DESCRIPTION = 202
_BYE = 203
_TRANSPORT_FEEDBACK = 205
_PAYLOAD_FEEDBACK = 206
_NACK = 1
_PLI = 1
_FIR = 4
_APPLICATION = 15
_CNAME = 1

MAX_REPORTS = 31
"""Reception reports that one receiver report can carry."""
_MAX_LOST = 0x7FFFFF

_HEAD = struct.Struct("!BBH")
_SENDER_INFO = struct.Struct("!IQIII")
_PAIR = struct.Struct("!HH")
_REPORT_BLOCK = struct.Struct("!IIIIII")


@dataclass(frozen=True)
class RtcpMessage:
    """One message of a compound packet."""

    kind: int
    """The RTCP packet type."""
    count: int
    """Report count or feedback message type, the five bits of the first byte."""
    body: bytes
    """What follows the four bytes of header."""


@dataclass(frozen=True)
class Feedback:
    """A feedback message (RFC 4585): the SSRC of its stream, and its details."""

    media_ssrc: int
    details: bytes


@dataclass(frozen=True)
class ReceptionReport:
    """A receiver's report about one stream (RFC 3550, section 6.4.1)."""

    ssrc: int
    fraction_lost: int
    """Since the last report, in 1/256."""
    lost: int
    highest_seq: int
    """Extended with the number of wraps."""
    jitter: int
    """In timestamp units."""
    last_sender_report: int
    """The middle 32 bits of its NTP time; 0 if there was none."""
    delay: int
    """Since then, in 1/65536 s."""


# --- read ------------------------------------------------------------------------------


def parse_compound(data: bytes) -> Iterator[RtcpMessage]:
    """Yield the messages of a packet; stop at the first that is cut off."""
    position = 0
    while position + _HEAD.size <= len(data):
        first, kind, words = _HEAD.unpack_from(data, position)
        end = position + 4 + 4 * words
        if first >> 6 != 2 or end > len(data):
            return
        yield RtcpMessage(kind, first & 0x1F, data[position + 4 : end])
        position = end


def sender_info(message: RtcpMessage) -> tuple[int, int] | None:
    """Return SSRC and NTP time of a sender report; `None` for anything else."""
    if message.kind != _SENDER_REPORT or len(message.body) < _SENDER_INFO.size:
        return None
    ssrc, ntp = struct.unpack_from("!IQ", message.body)
    return ssrc, ntp


def feedback(message: RtcpMessage) -> Feedback | None:
    """Return the stream and the details of a feedback message; `None` for anything else."""
    if message.kind not in (_TRANSPORT_FEEDBACK, _PAYLOAD_FEEDBACK) or len(message.body) < 8:
        return None
    (media_ssrc,) = struct.unpack_from("!I", message.body, 4)
    return Feedback(media_ssrc, message.body[8:])


def is_nack(message: RtcpMessage) -> bool:
    """Return whether this is a generic NACK."""
    return message.kind == _TRANSPORT_FEEDBACK and message.count == _NACK


def is_pli(message: RtcpMessage) -> bool:
    """Return whether this is a picture loss indication."""
    return message.kind == _PAYLOAD_FEEDBACK and message.count == _PLI


def is_fir(message: RtcpMessage) -> bool:
    """Return whether this is a full intra request."""
    return message.kind == _PAYLOAD_FEEDBACK and message.count == _FIR


def nacked(details: bytes) -> Iterator[int]:
    """Yield the sequence numbers that a NACK asks for."""
    for position in range(0, len(details) - 3, 4):
        first, mask = _PAIR.unpack_from(details, position)
        yield first
        for bit in range(16):
            if mask >> bit & 1:
                yield (first + bit + 1) & 0xFFFF


def fir_targets(details: bytes) -> Iterator[int]:
    """Yield the SSRCs that a FIR asks for: they are in its details (RFC 5104, 4.3.1.2)."""
    for position in range(0, len(details) - 7, 8):
        yield int.from_bytes(details[position : position + 4], "big")


# --- write -----------------------------------------------------------------------------


def sender_report(message: RtcpMessage, ssrc: int, cname: bytes) -> bytes:
    """Return a sender report with another SSRC, without reception reports, with a CNAME."""
    info = struct.pack("!I", ssrc) + message.body[4 : _SENDER_INFO.size]
    chunk = struct.pack("!IBB", ssrc, _CNAME, len(cname)) + cname
    chunk += bytes(4 - len(chunk) % 4)  # At least one zero ends the list of items.
    return _message(_SENDER_REPORT, 0, info) + _message(_SOURCE_DESCRIPTION, 1, chunk)


def receiver_report(ssrc: int, reports: Sequence[ReceptionReport]) -> bytes:
    """Return a receiver report with at most :data:`MAX_REPORTS` reports."""
    body = struct.pack("!I", ssrc)
    for report in reports:
        lost = max(-_MAX_LOST - 1, min(report.lost, _MAX_LOST)) & 0xFFFFFF
        body += _REPORT_BLOCK.pack(
            report.ssrc,
            report.fraction_lost << 24 | lost,
            report.highest_seq & 0xFFFFFFFF,
            report.jitter & 0xFFFFFFFF,
            report.last_sender_report,
            report.delay & 0xFFFFFFFF,
        )
    return _message(_RECEIVER_REPORT, len(reports), body)


def bye(ssrc: int) -> bytes:
    """Return the end of a stream, led by the empty report that a compound needs."""
    source = struct.pack("!I", ssrc)
    return receiver_report(ssrc, ()) + _message(_BYE, 1, source)


def nack(ssrc: int, media_ssrc: int, missing: Iterable[int]) -> bytes:
    """Return a request for these sequence numbers, which are in sending order."""
    pairs: list[tuple[int, int]] = []
    for seq in missing:
        distance = (seq - pairs[-1][0]) & 0xFFFF if pairs else 0
        if 0 < distance <= 16:
            pairs[-1] = (pairs[-1][0], pairs[-1][1] | 1 << distance - 1)
        elif not pairs or distance:
            pairs.append((seq, 0))
    body = struct.pack("!II", ssrc, media_ssrc) + b"".join(_PAIR.pack(*pair) for pair in pairs)
    return _message(_TRANSPORT_FEEDBACK, _NACK, body)


def pli(ssrc: int, media_ssrc: int) -> bytes:
    """Return a request for a key frame."""
    return _message(_PAYLOAD_FEEDBACK, _PLI, struct.pack("!II", ssrc, media_ssrc))


def remb(ssrc: int, bits_per_second: int, media_ssrcs: Sequence[int]) -> bytes:
    """Return the bitrate that these streams together may use."""
    exponent = max(0, bits_per_second.bit_length() - 18)
    mantissa = bits_per_second >> exponent
    body = struct.pack("!II4s", ssrc, 0, b"REMB")
    body += struct.pack("!I", len(media_ssrcs) << 24 | exponent << 18 | mantissa)
    body += struct.pack(f"!{len(media_ssrcs)}I", *media_ssrcs)
    return _message(_PAYLOAD_FEEDBACK, _APPLICATION, body)


def _message(kind: int, count: int, body: bytes) -> bytes:
    return _HEAD.pack(0x80 | count, kind, len(body) // 4) + body
