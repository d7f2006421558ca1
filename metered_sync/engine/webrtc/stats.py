"""Count the packets and bytes that are sent and received.

aiortc (1.14 to 1.16) keeps one entry of inbound statistics per receiver, which a
retransmission stream overwrites, and counts no bytes in it. So packets are counted
here, on their way into the receiver. What it tells about senders is right.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Collection
from typing import Any

from aiortc import RTCRtpReceiver, RTCRtpSender

from metered_sync.bridge.clock import monotonic
from metered_sync.engine.webrtc.aiortc_private.receiving import timestamp_origin, watch_packets

__all__ = ["BitrateMeter", "Received", "Sent"]

BITRATE_WINDOW = 2.0
"""Seconds over which a bit rate is taken."""
COUNTS = ("bytes_sent", "packets_sent", "packets_lost", "frames_sent")
MAX_ARRIVALS = 256
"""Timestamps whose arrival is remembered: what a jitter buffer may hold, and a decoder."""
SAMPLE_INTERVAL = 0.25
"""Seconds between the samples that a bit rate is taken from."""


class BitrateMeter:
    """A count of bytes, and the rate at which it rises."""

    def __init__(self) -> None:
        self.total = 0
        self._samples: deque[tuple[float, int]] = deque([(monotonic(), 0)])

    def add(self, size: int, now: float) -> None:
        """Count some more bytes, which came or went just now."""
        self.total += size
        if now - self._samples[-1][0] >= SAMPLE_INTERVAL:
            self._samples.append((now, self.total))
            while now - self._samples[1][0] > BITRATE_WINDOW:
                self._samples.popleft()

    def rate(self) -> float:
        """Return the bits per second of the last two seconds; 0 where nothing came."""
        now = monotonic()
        since, before = next(
            (
                (t, n)
                for t, n in tuple(self._samples)
                if now - t <= BITRATE_WINDOW + SAMPLE_INTERVAL
            ),
            (now - BITRATE_WINDOW, self.total),
        )
        return (self.total - before) * 8 / max(now - since, SAMPLE_INTERVAL)


class Received:
    """Counts of one track's receivers, over all connections it had."""

    def __init__(self) -> None:
        self.meter = BitrateMeter()
        self.packets = 0
        self.lost_before = 0
        """Packets lost on connections that are gone."""
        self.missed = 0
        """Packets that were missing when a later one came; most are repaired."""
        self._first: int | None = None
        self._highest = 0
        self._media = 0
        """Packets of the media's own stream on this connection."""
        self._receiver: RTCRtpReceiver | None = None
        self._arrivals: dict[int, float] = {}
        """The moments at which the first packet of each of the latest timestamps came."""

    def watch(self, receiver: RTCRtpReceiver, retransmissions: Collection[int]) -> None:
        """Count a receiver's packets; those of ``retransmissions`` payload types apart."""
        self.lost_before, self._first = self.lost, None
        self._media = 0
        self._receiver = receiver
        self._arrivals.clear()
        watch_packets(receiver, functools.partial(self._count, retransmissions=retransmissions))

    def _count(self, packet: Any, retransmissions: Collection[int]) -> None:
        now = monotonic()
        self.packets += 1
        self.meter.add(len(packet.payload) + packet.padding_size, now)
        if packet.payload_type in retransmissions:
            return
        if packet.timestamp not in self._arrivals:
            self._arrivals[packet.timestamp] = now
            if len(self._arrivals) > MAX_ARRIVALS:
                del self._arrivals[next(iter(self._arrivals))]
        sequence = packet.sequence_number
        if self._first is None:
            self._first = self._highest = sequence
        else:
            # RFC 3550, appendix A.1, without its probation: SRTP has authenticated the packet.
            step = (sequence - self._highest) & 0xFFFF
            if step < 0x8000:
                self._highest += step
                self.missed += max(step - 1, 0)
        self._media += 1

    def arrived(self, pts: int) -> float | None:
        """Return the moment at which a frame's first packet came (``time.monotonic()``), if known.

        Args:
            pts: The frame's timestamp, as aiortc (1.14 to 1.16) gives it: it counts from the
                first one.
        """
        origin = timestamp_origin(self._receiver)
        return None if origin is None else self._arrivals.get((origin + pts) & 0xFFFFFFFF)

    @property
    def lost(self) -> int:
        """Packets that never came, retransmissions included."""
        if self._first is None:
            return self.lost_before
        return self.lost_before + max(self._highest - self._first + 1 - self._media, 0)

    def stats(self) -> dict[str, Any]:
        """Return the counts; any thread."""
        return {
            "bytes_received": self.meter.total,
            "packets_received": self.packets,
            "packets_lost": self.lost,
            "packets_missed": self.missed,
            "bitrate": self.meter.rate(),
        }


class Sent:
    """Counts of one track's senders, over all connections it had."""

    def __init__(self) -> None:
        self.meter = BitrateMeter()
        self._before = dict.fromkeys(COUNTS, 0)

    async def sample(self, sender: RTCRtpSender | None, frames: int = 0) -> dict[str, Any]:
        """Return the counts, those of the present sender and its frames included."""
        now = {**await _sender_stats(sender), "frames_sent": frames}
        counts = {name: count + now.get(name, 0) for name, count in self._before.items()}
        self.meter.add(counts["bytes_sent"] - self.meter.total, monotonic())
        return {**counts, "round_trip_time": now.get("round_trip_time")}

    async def stats(self, sender: RTCRtpSender | None, frames: int = 0) -> dict[str, Any]:
        """Return the counts and the bit rate."""
        return {**await self.sample(sender, frames), "bitrate": self.meter.rate()}

    async def keep(self, sender: RTCRtpSender, frames: int = 0) -> None:
        """Remember the counts of a sender that is about to go."""
        counts = await self.sample(sender, frames)
        self._before = {name: counts[name] for name in COUNTS}


async def _sender_stats(sender: RTCRtpSender | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if sender is not None:
        for entry in (await sender.getStats()).values():
            if entry.type == "outbound-rtp":
                found |= {"bytes_sent": entry.bytesSent, "packets_sent": entry.packetsSent}
            elif entry.type == "remote-inbound-rtp":
                found |= {
                    "packets_lost": entry.packetsLost,
                    "round_trip_time": entry.roundTripTime and max(entry.roundTripTime, 0.0),
                }
    return found
