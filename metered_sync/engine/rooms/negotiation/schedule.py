"""Keep the deadlines of one negotiation, and count its attempts.

It has no clock: each method is told the time, in seconds.
"""

from __future__ import annotations

import math

from metered_sync.wire.timings import Timings

__all__ = ["NEVER", "Schedule"]

NEVER = math.inf
"""The moment that does not come."""


class Schedule:
    """The deadlines of one negotiation."""

    def __init__(self, timings: Timings) -> None:
        self.offer_at = NEVER
        """When we offer, whatever the other side does."""
        self.repeat_at = NEVER
        """When a description that had no effect is repeated."""
        self.connect_by = NEVER
        """When a generation that has not connected is given up."""
        self.replace_at = NEVER
        """When the next generation begins."""
        self.failures = 0
        """Attempts since a connection was last up."""
        self.exhausted = False
        """Whether there are to be no more attempts."""
        self._timings = timings
        self._pause = timings.answer

    @property
    def spent(self) -> bool:
        """Whether all attempts were made."""
        return self.failures >= len(self._timings.ladder)

    def begin(self, now: float) -> None:
        """Give a new generation its time to connect."""
        self.offer_at = self.repeat_at = self.replace_at = NEVER
        self.exhausted = False
        self.allow(now)

    def reset(self) -> None:
        """Count attempts anew."""
        self.failures, self.exhausted = 0, False

    def allow(self, now: float) -> None:
        """Give the present generation its time to connect."""
        self.connect_by = now + self._timings.media_connect

    def expect(self, now: float) -> None:
        """Have a description that was sent repeated, if it has no effect in time."""
        self._pause = self._timings.answer
        self.repeat_at = now + self._pause

    def hasten(self, now: float) -> None:
        """Repeat our offer soon, since it may have been missed, and soon again after that.

        (The async client, 1.0.2, drops offers for 2 s after it has given one of its own up.)
        """
        self._pause = self._timings.crossing
        self.repeat_at = min(self.repeat_at, now + self._pause)

    def repeated(self, now: float) -> None:
        """Have the description that was just repeated wait twice as long for the next time."""
        self._pause = min(2 * self._pause, self._timings.answer_max)
        self.repeat_at = now + self._pause

    def retry(self, least: float, now: float) -> None:
        """Have another generation begin, after the next of the growing pauses."""
        ladder = self._timings.ladder
        pause = ladder[min(self.failures, len(ladder) - 1)]
        self.failures += 1
        self.connect_by = self.repeat_at = NEVER
        self.replace_at = now + max(pause, least)

    def give_up(self) -> None:
        """Plan nothing more."""
        self.exhausted = True
        self.connect_by = self.repeat_at = self.replace_at = NEVER
