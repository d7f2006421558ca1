"""Keep the statistics and the gaps of one stream that the SFU receives.

Sources: RFC 3550, appendix A (statistics); RFC 4585 (NACK).
"""

from __future__ import annotations

from collections.abc import Iterator

from metered_sync.local.sfu.rtcp import ReceptionReport

__all__ = ["Reception"]

_MAX_GAP = 256
"""Sequence numbers that a loss may span; a larger jump is a new beginning."""


class Reception:
    """The reception of one SSRC of a publisher. Times are seconds of the loop's clock."""

    def __init__(self, ssrc: int, clock_rate: int) -> None:
        self.ssrc = ssrc
        self.last_heard = 0.0
        self._clock_rate = clock_rate
        self._highest: int | None = None
        self._first = 0
        self._received = 0
        self._transit = 0.0
        self._jitter = 0.0
        self._reported = (0, 0)
        self._sender_report = (0, 0.0)
        self._missing: dict[int, float] = {}

    def add(self, seq: int, timestamp: int, now: float) -> bool:
        """Count a packet; return whether there is a new gap before it."""
        self.last_heard = now
        self._received += 1
        transit = now * self._clock_rate - timestamp
        if self._highest is None:
            self._first = self._highest = seq
            self._transit = transit
            return False
        # A timestamp that wraps shows as one huge difference: leave it out.
        difference = abs(transit - self._transit)
        self._transit = transit
        if difference < self._clock_rate * 10:
            self._jitter += (difference - self._jitter) / 16
        advance = (seq - self._highest) & 0xFFFF
        if advance >= 0x8000:
            self._missing.pop(seq, None)
            return False
        highest = self._highest
        self._highest = highest + advance
        if advance <= 1:
            return False
        if advance > _MAX_GAP:
            self._missing.clear()
            return False
        for number in range(highest + 1, highest + advance):
            self._missing[number & 0xFFFF] = now
        return True

    def missing(self, now: float, give_up: float) -> Iterator[int]:
        """Yield the missing packets worth asking for, oldest first; forget those overdue."""
        for seq, since in list(self._missing.items()):
            if now - since > give_up:
                del self._missing[seq]
            else:
                yield seq

    def on_sender_report(self, ntp: int, now: float) -> None:
        """Note a sender report, for the round-trip time that the publisher computes."""
        self._sender_report = (ntp >> 16 & 0xFFFFFFFF, now)

    def counts(self) -> tuple[int, int]:
        """Return how many packets were expected, and how many came, since the beginning."""
        if self._highest is None:
            return 0, 0
        return self._highest - self._first + 1, self._received

    def report(self, now: float) -> ReceptionReport | None:
        """Return the report since the last call; `None` before the first packet."""
        if self._highest is None:
            return None
        expected = self._highest - self._first + 1
        expected_before, received_before = self._reported
        self._reported = (expected, self._received)
        span = expected - expected_before
        lost = span - (self._received - received_before)
        ntp, at = self._sender_report
        return ReceptionReport(
            ssrc=self.ssrc,
            fraction_lost=min(255, (lost << 8) // span) if span > 0 and lost > 0 else 0,
            lost=expected - self._received,
            highest_seq=self._highest,
            jitter=int(self._jitter),
            last_sender_report=ntp,
            delay=int((now - at) * 65536) if ntp else 0,
        )
