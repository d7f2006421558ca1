"""Lead the packets of streams that are over to nobody.

Packets and the answers to calls take different ways, so some packets of a track that is given up
may come after its end. aiortc gives those of a stream that it does not know to the only receiver of
their payload type, for good: that one would see two streams in one, and end with the BYE that is
for the other.
"""

from __future__ import annotations

from typing import Any

from aiortc import RTCDtlsTransport, RTCRtpReceiver

from metered_sync.engine.webrtc.aiortc_private.capabilities import Capability, can
from metered_sync.engine.webrtc.aiortc_private.names import ROUTER

__all__ = ["readmit_streams", "stop_receiver"]

MAX_STREAMS_OVER = 256
"""Streams (SSRCs) of a transport that are known to be over: those that ended last."""


class _Nobody:
    """Drop what comes for streams that are over: a router drops their packets by itself."""

    async def _handle_rtcp_packet(self, packet: Any) -> None:
        pass


_NOBODY = _Nobody()


def _streams(transport: RTCDtlsTransport) -> dict[int, Any]:
    """Return who receives the streams of a transport, by their SSRCs."""
    table: dict[int, Any] = getattr(transport, ROUTER).ssrc_table
    return table


async def stop_receiver(receiver: RTCRtpReceiver) -> None:
    """Stop a receiver; what still comes of its streams is for nobody from now on."""
    if can(Capability.ROUTING):
        streams = _streams(receiver.transport)
        for ssrc in [ssrc for ssrc, one in streams.items() if one is receiver]:
            del streams[ssrc]  # (to be the last one, in the order of the table)
            streams[ssrc] = _NOBODY
        over = [ssrc for ssrc, one in streams.items() if one is _NOBODY]
        for ssrc in over[:-MAX_STREAMS_OVER]:
            del streams[ssrc]
    await receiver.stop()


def readmit_streams(transport: RTCDtlsTransport) -> None:
    """Let streams that were over begin anew: a description adds some, and does not name them.

    (Those that a description names are registered, whatever they were before.)
    """
    if can(Capability.ROUTING):
        streams = _streams(transport)
        for ssrc in [ssrc for ssrc, one in streams.items() if one is _NOBODY]:
            del streams[ssrc]
