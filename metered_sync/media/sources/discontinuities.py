"""Make the clock of a file go on where it jumps.

MPEG transport and program streams are cut and joined without new timestamps, and players are to
go on (ISO/IEC 13818-1, 2.7.6); so are pieces of a playlist. Other files, MP4 for one, mean it
when they leave a gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from av.format import Flags

__all__ = ["continuous"]

MAX_STEP = 1.0
"""Seconds by which a packet may be off the others, in a file whose clock may jump."""
MAX_REORDERED = 4
"""Pictures between the decoding of one and its showing, at most."""
MAX_PICTURE_TIME = 10.0
"""Seconds that a packet may say it lasts."""
STEP = 0.04
"""Seconds between two packets, where the file does not say."""


def continuous(container: Any, packets: Iterator[Any]) -> Iterator[Any]:
    """Return packets whose timestamps have no jumps, where the container is one that may have."""
    if not container.format.flags & Flags.ts_discont.value:
        return packets
    return _Clock().follow(packets)


class _Clock:
    """Move the timestamps of a file's packets so that they go on where they jump.

    The clock is one for all streams, whose packets lie at most about a second apart in the file,
    but for pictures that are seldom: FFmpeg gives out one when it has seen the next. So a packet
    that lies before the last one of its stream, or after the newest of all, has jumped. Around
    a jump, packets of both sides may alternate, so the move before the last is tried, too.
    """

    def __init__(self) -> None:
        self._moves = [0.0, 0.0]  # seconds to be added: the one in use, and the one before
        self._last: dict[int, float] = {}  # where the next packet of a stream is expected
        self._newest: float | None = None

    def follow(self, packets: Iterator[Any]) -> Iterator[Any]:
        """Yield the packets, moved."""
        for packet in packets:
            stamp = packet.pts if packet.dts is None else packet.dts
            if stamp is not None and packet.time_base:
                step = float((packet.duration or 0) * packet.time_base)
                step = step if 0 < step <= MAX_PICTURE_TIME else STEP
                move = self._move(packet.stream.index, float(stamp * packet.time_base), step)
                ticks = round(move / packet.time_base)
                shown = stamp if packet.pts is None else packet.pts
                if abs(shown - stamp) * packet.time_base > max(MAX_STEP, MAX_REORDERED * step):
                    shown = stamp  # FFmpeg made one of the two up, from the other side of a jump
                packet.pts = None if packet.pts is None else shown + ticks
                packet.dts = None if packet.dts is None else stamp + ticks
            yield packet

    def _move(self, stream: int, time: float, step: float) -> float:
        """Return by how many seconds a packet is to be moved, which lasts for a step."""
        expected = self._last.get(stream)
        newest = time if self._newest is None else self._newest
        first = newest if expected is None else min(expected, newest)
        last = newest if expected is None else max(expected, newest)
        fits = [m for m in self._moves if first - MAX_STEP <= time + m <= last + MAX_STEP]
        if fits and fits[0] != self._moves[0]:
            self._moves.reverse()
        elif not fits and expected is not None:
            self._moves = [expected - time, self._moves[0]]
        move = self._moves[0]
        self._last[stream] = time + move + step
        self._newest = max(self._newest or 0.0, time + move)
        return move
