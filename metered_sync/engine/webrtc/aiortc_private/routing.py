"""Bound the streams that a receiver knows; lead the packets of those that are over to nobody.

Packets and the answers to calls take different ways, so some packets of a track that is given up
may come after its end. aiortc gives those of a stream that it does not know to the only receiver of
their payload type, for good: that one would see two streams in one, and end with the BYE that is
for the other.

And it remembers all of them, in six places: a member could begin a stream (SSRC) with each packet.
"""

from __future__ import annotations

from typing import Any

from aiortc import RTCDtlsTransport, RTCRtpReceiver

from metered_sync.engine.webrtc.aiortc_private.capabilities import Capability, can
from metered_sync.engine.webrtc.aiortc_private.names import (
    ACTIVE_SSRC,
    BITRATE_ESTIMATOR,
    LAST_REPORT_TIMES,
    LAST_REPORTS,
    REMOTE_STREAMS,
    ROUTER,
)

__all__ = ["bound_streams", "readmit_streams", "stop_receiver"]

STREAM_TABLES = (REMOTE_STREAMS, ACTIVE_SSRC, LAST_REPORTS, LAST_REPORT_TIMES)
MAX_STREAMS_OVER = 256
"""Streams (SSRCs) of a transport that are known to be over: those that ended last."""


MAX_STREAMS = 16
"""Streams of a receiver that are known: those that began last. (A report has room for 31.)"""
MAX_ROUTED = 4096
"""Streams of a transport, that is of a connection, that are known: those that began last."""


class _Newest(dict[int, Any]):
    """The items that came last, so many of them."""

    def __init__(self, most: int, items: dict[int, Any]) -> None:
        super().__init__(items)
        self._most = most

    def __setitem__(self, key: int, value: Any) -> None:
        if key not in self:
            while len(self) >= self._most:
                del self[next(iter(self))]
        dict.__setitem__(self, key, value)  # (quicker than super(): it is done for each packet)


def bound_streams(receiver: RTCRtpReceiver) -> None:
    """Have a receiver that is about to begin, and its transport, forget the oldest of many streams.

    One that is forgotten and goes on is taken for a new one, and goes to the same receiver.
    """
    if not can(Capability.SOURCES):
        return
    estimator = getattr(receiver, BITRATE_ESTIMATOR)  # (there is one for pictures)
    for owner, name, most in (
        *((receiver, name, MAX_STREAMS) for name in STREAM_TABLES),
        *([(estimator, "ssrcs", MAX_STREAMS)] if hasattr(estimator, "ssrcs") else ()),
        (getattr(receiver.transport, ROUTER), "ssrc_table", MAX_ROUTED),
    ):
        table = getattr(owner, name)
        if not isinstance(table, _Newest):
            setattr(owner, name, _Newest(most, table))


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
