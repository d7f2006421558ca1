"""Find out who speaks: as members say of themselves, and as their sound is measured here.

A member speaks while two fifths of the last half second of its sound were louder than -30 dB
below full scale. Each member says so of itself in its state; where its sound is received, it is
measured too, and that counts more. The loudest comes first; of those that are about as loud, who
began last.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

import numpy as np

from metered_sync.bridge.clock import monotonic

__all__ = ["SpeechDetector", "Speakers", "sound_level"]

LOUD = -30.0
"""The level from which sound counts as speech, in dB of full scale."""
SPEECH_WINDOW = 0.5
"""Seconds of sound that are looked at."""
SPEECH_SHARE = 0.4
"""The share of them that has to be loud."""
UNMEASURED = -30.0
"""The level at which members are sorted in whose sound is not received."""
LEVEL_STEP = 6.0
"""Decibels by which a speaker has to be louder to come before another: levels change all the
time."""
SORT_INTERVAL = 0.5
"""Seconds between two times of sorting those who go on speaking."""
MEASURED_FOR = 1.0
"""Seconds for which a measurement counts: after that a member's word does."""
SILENT = -127.0
FULL_SCALE = 32768.0


def sound_level(samples: object) -> float:
    """Return the level of samples (int16, as a buffer) in dB of full scale, from -127 to 0."""
    values = np.frombuffer(samples, np.int16)  # type: ignore[call-overload]
    if not values.size:
        return SILENT
    power = float(np.mean(np.square(values, dtype=np.float32)))
    if power <= 0:
        return SILENT
    return max(10 * math.log10(power / FULL_SCALE**2), SILENT)


class SpeechDetector:
    """Tell speech from silence by the levels of one sound, piece by piece."""

    def __init__(self) -> None:
        self.speaking = False
        self.level = SILENT
        """The level of the loud pieces, averaged."""
        self._pieces: deque[tuple[float, float]] = deque()
        """Seconds and level of each of the last half second."""
        self._length = 0.0

    def note(self, level: float, seconds: float) -> bool:
        """Take the level of the next piece; return whether somebody speaks."""
        self._pieces.append((seconds, level))
        self._length += seconds
        while self._pieces and self._length - self._pieces[0][0] >= SPEECH_WINDOW:
            self._length -= self._pieces.popleft()[0]
        loud = [(length, one) for length, one in self._pieces if one > LOUD]
        self.speaking = sum(length for length, _ in loud) >= SPEECH_SHARE * SPEECH_WINDOW
        self.level = max((one for _, one in loud), default=SILENT)
        return self.speaking


class Speakers:
    """The members that speak, the loudest first."""

    def __init__(self, on_change: Callable[[tuple[str, ...]], None]) -> None:
        """Prepare; ``on_change`` is called with the ids of those who speak."""
        self.ids: tuple[str, ...] = ()
        self._on_change = on_change
        self._said: dict[str, float] = {}
        """When a member began to speak, as it says."""
        self._measured: dict[str, tuple[float, SpeechDetector]] = {}
        """When a member's sound was measured last."""
        self._sorted_at = 0.0

    def note_word(self, peer_id: str, speaking: bool) -> None:
        """Take a member's own word."""
        if speaking:
            self._said.setdefault(peer_id, monotonic())
        else:
            self._said.pop(peer_id, None)
        self.update()
        if peer_id in self._measured:  # which may be the last that is measured of it
            asyncio.get_running_loop().call_later(MEASURED_FOR, self.update)

    def note_sound(self, peer_id: str, level: float, seconds: float) -> None:
        """Take the level of a piece of a member's sound."""
        now = monotonic()
        _, detector = self._measured.get(peer_id) or (0.0, SpeechDetector())
        was = detector.speaking
        self._measured[peer_id] = now, detector
        if detector.note(level, seconds) != was or now - self._sorted_at > SORT_INTERVAL:
            self.update()

    def forget(self, peer_id: str) -> None:
        """Forget a member that is gone."""
        self._said.pop(peer_id, None)
        self._measured.pop(peer_id, None)
        self.update()

    def update(self) -> None:
        """Sort the speakers anew; tell where that changes anything."""
        now = self._sorted_at = monotonic()
        measured = {
            peer_id: detector
            for peer_id, (at, detector) in self._measured.items()
            if now - at < MEASURED_FOR
        }
        speaking = [one for one in self._said if one not in measured]
        speaking += [one for one, detector in measured.items() if detector.speaking]
        levels = {one: measured[one].level if one in measured else UNMEASURED for one in speaking}
        new = [one for one in speaking if one not in self.ids]
        order: list[str] = []
        for one in (*new, *(known for known in self.ids if known in levels)):
            quieter = (
                place
                for place, other in enumerate(order)
                if levels[one] >= levels[other] + LEVEL_STEP
            )
            order.insert(next(quieter, len(order)), one)
        ids = tuple(order)
        if ids != self.ids:
            self.ids = ids
            self._on_change(ids)
