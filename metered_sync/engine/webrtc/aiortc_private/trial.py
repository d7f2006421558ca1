"""Give packets to receivers, to see that they hand frames over as is assumed here."""

from __future__ import annotations

from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

from aiortc import RTCRtpCodecParameters, RTCRtpReceiver

from metered_sync.engine.webrtc.aiortc_private.names import (
    DECODER_QUEUE,
    DECODER_THREAD,
    RECEIVER_CODECS,
)
from metered_sync.engine.webrtc.aiortc_private.packet_path import PacketPath, payload

__all__ = ["check_receivers"]


class _PlainBuffer:
    """The simplest buffer there is: packets come in order, a marker ends a picture."""

    def __init__(self, receiver: Any, kind: str) -> None:
        self._path = PacketPath(receiver)
        self._kind = kind
        self._parts: list[Any] = []

    def add(self, packet: Any) -> tuple[bool, None]:
        self._parts.append(packet)
        if packet.marker or self._kind == "audio":
            self._path.hand_over(self._parts[0], b"".join(map(payload, self._parts)))
            self._parts = []
        return False, None


def check_receivers() -> None:
    """Give packets to receivers with their own buffers and with another; raise if they differ."""
    from aiortc.rtp import RtpPacket  # (here, lest a version without it fails to import this)

    # The first picture has two packets. The numbers wrap.
    for kind, name, payloads, times in (
        ("video", "VP8", (b"\x10\x00a", b"\x00b", b"\x10\x01c", b"\x10\x01d"), (0, 0, 1, 2)),
        ("audio", "PCMU", (b"a", b"b", b"c", b"d", b"e", b"f"), range(6)),
    ):
        ends = [later != now for now, later in zip(times, (*times[1:], -1), strict=True)]
        packets = [
            (96, int(end), 0xFFFE + n & 0xFFFF, 3000 * at, 1, data)
            for n, (data, at, end) in enumerate(zip(payloads, times, ends, strict=True))
        ]
        handed_over = []
        for own in (True, False):
            receiver = _receiver(kind, name)
            if not own:
                PacketPath(receiver).buffer = _PlainBuffer(receiver, kind)
            for packet in packets:
                _feed(receiver, RtpPacket(*packet))
            queue = getattr(receiver, DECODER_QUEUE)
            items = [queue.get_nowait() for _ in range(queue.qsize())]
            handed_over.append([(c.name, frame.data, frame.timestamp) for c, frame in items])
        theirs, ours = handed_over
        if not theirs or ours[: len(theirs)] != theirs or len(ours) != sum(ends):
            raise RuntimeError(f"{kind}: {ours}, not {theirs} and the rest")


def _receiver(kind: str, codec: str) -> Any:
    receiver: Any = RTCRtpReceiver(kind, SimpleNamespace(state="new"))  # type: ignore[arg-type]
    getattr(receiver, RECEIVER_CODECS)[96] = RTCRtpCodecParameters(
        mimeType=f"{kind}/{codec}", clockRate=90000, payloadType=96
    )
    if getattr(receiver, DECODER_THREAD) is None:  # it is made when a connection is
        setattr(receiver, DECODER_THREAD, True)
    return receiver


def _feed(receiver: Any, packet: Any) -> None:
    handling: Coroutine[Any, Any, None] = receiver._handle_rtp_packet(packet, 0)
    try:
        handling.send(None)
    except StopIteration:
        return
    handling.close()
    raise RuntimeError("a packet is not handled at once")
