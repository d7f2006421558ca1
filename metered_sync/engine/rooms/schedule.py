"""When a connection to a peer does what, besides what it is told to do."""

from __future__ import annotations

import asyncio
import math

from metered_sync.wire.timings import Timings

__all__ = ["NEVER", "Agenda", "now"]

NEVER = math.inf


def now() -> float:
    """Return the running loop's time."""
    return asyncio.get_running_loop().time()


class Agenda:
    """The deadlines of one connection, in the loop's time."""

    def __init__(self, timings: Timings) -> None:
        self.offer_at = NEVER
        """When we offer, whatever the other side does."""
        self.repeat_at = NEVER
        """When a description that had no effect is repeated."""
        self.watch_at = NEVER
        """When a generation that is not connected is given up."""
        self.rebuild_at = NEVER
        """When the next generation begins."""
        self.failures = 0
        """Attempts since a connection was last up."""
        self.exhausted = False
        """Whether there are to be no more."""
        self._timings = timings
        self._pause = timings.answer

    @property
    def spent(self) -> bool:
        """Whether all attempts were made."""
        return self.failures >= len(self._timings.ladder)

    def begin(self) -> None:
        """A new generation begins."""
        self.offer_at = self.repeat_at = self.rebuild_at = NEVER
        self.watch()

    def reset(self) -> None:
        """Count attempts anew."""
        self.failures, self.exhausted = 0, False

    def watch(self) -> None:
        """Give the present generation its time to connect."""
        self.watch_at = now() + self._timings.media_connect

    def expect(self) -> None:
        """A description was sent, which should have an effect."""
        self._pause = self._timings.answer
        self.repeat_at = now() + self._pause

    def hasten(self) -> None:
        """Our offer may have been missed, now or when it is repeated next.

        (The async client, 1.0.2, drops offers for 2 s after it has given one of its own up.)
        """
        self._pause = self._timings.crossing
        self.repeat_at = min(self.repeat_at, now() + self._pause)

    def repeated(self) -> None:
        """The description was repeated."""
        self._pause = min(2 * self._pause, self._timings.answer_max)
        self.repeat_at = now() + self._pause

    def retry(self, least: float) -> None:
        """Have another generation begin, after the next of the growing pauses."""
        ladder = self._timings.ladder
        pause = ladder[min(self.failures, len(ladder) - 1)]
        self.failures += 1
        self.watch_at = self.repeat_at = NEVER
        self.rebuild_at = now() + max(pause, least)

    def give_up(self) -> None:
        """Do nothing any more by itself."""
        self.exhausted = True
        self.watch_at = self.repeat_at = self.rebuild_at = NEVER
