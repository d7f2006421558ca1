"""Reach what is under data channels: messages on their way, parts of messages that wait."""

from __future__ import annotations

import asyncio
from typing import Any

from aiortc import RTCDataChannel, RTCSctpTransport

from metered_sync.engine.webrtc.aiortc_private.capabilities import Capability, can
from metered_sync.wire.data_channels import DEFAULT_CAP

__all__ = ["bound_reassembly", "loop_of", "max_message_size", "unacknowledged"]

OPENING_PROTOCOL = 50
"""The protocol that opens channels, as SCTP marks it (RFC 8832, section 8.1)."""
MAX_PARTS = 512
"""Parts of messages, of all channels of a connection, that wait for others to come."""
MAX_STREAMS = 1024
"""Streams of a connection for which such parts are kept."""


def loop_of(channel: RTCDataChannel) -> asyncio.AbstractEventLoop | None:
    """Return the event loop that a channel belongs to; ``None`` where it does not tell."""
    return getattr(channel.transport, "_loop", None)


def unacknowledged(channel: RTCDataChannel) -> int:
    """Return the bytes of a channel that were sent and not acknowledged.

    (Up to aiortc 1.15 a channel that is closed loses those.)
    """
    queues = (getattr(channel.transport, name, ()) for name in ("_outbound_queue", "_sent_queue"))
    chunks = (chunk for queue in queues for chunk in tuple(queue))
    stream = channel.id
    return sum(
        len(chunk.user_data)
        for chunk in chunks
        if chunk.stream_id == stream and chunk.protocol != OPENING_PROTOCOL
    )


def max_message_size(channel: RTCDataChannel) -> int:
    """Return the largest message that the far side takes, in bytes; 0: any.

    (Up to aiortc 1.15 only the local limit is known; it is the default, too.)
    """
    size = getattr(channel.transport, "_remote_max_message_size", DEFAULT_CAP)
    return size if isinstance(size, int) else DEFAULT_CAP


def bound_reassembly(transport: RTCSctpTransport) -> None:
    """Keep of messages that are not complete what the receive window permits, and no more.

    aiortc (1.14 to 1.16) announces a window of 1 MiB, and keeps whatever comes. What is left out
    here is not acknowledged, so a sender that keeps to the window sends it again.
    """
    if not can(Capability.REASSEMBLY) or "_receive_data_chunk" in vars(transport):
        return
    inner: Any = transport
    receive, streams = inner._receive_data_chunk, inner._inbound_streams
    parts: dict[int, int] = {}
    total = refused = 0

    async def bounded(chunk: Any) -> None:
        nonlocal total, refused
        number = chunk.stream_id
        # The one that all others wait for may take some more: it may complete them.
        is_next = chunk.tsn == (inner._last_received_tsn + 1) % (1 << 32)
        if (
            inner._advertised_rwnd + is_next * DEFAULT_CAP < len(chunk.user_data)
            or max(total, len(inner._sack_misordered)) >= MAX_PARTS * (1 + is_next)
            or (number not in streams and len(streams) >= MAX_STREAMS)
        ):
            refused += 1
            if refused % MAX_PARTS == 1:  # perhaps some parts have been given up meanwhile
                parts.clear()
                parts.update((key, len(one.reassembly)) for key, one in streams.items())
                total = sum(parts.values())
            return
        await receive(chunk)
        left = len(streams[number].reassembly) if number in streams else 0
        total += left - parts.get(number, 0)
        parts[number] = left

    inner._receive_data_chunk = bounded
