"""Have calls that push pictures wait for the time of the next one."""

from __future__ import annotations

import math

from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.deadline import WAIT_SLICE, Deadline
from metered_sync.engine.sending.feed import TIMER_RESOLUTION, Feed
from metered_sync.errors import MeteredTimeoutError

__all__ = ["Pace"]


class Pace:
    """The pace of one source. The feed's lock guards it, and is held by who calls."""

    def __init__(self, feed: Feed, fps: float) -> None:
        self._feed = feed
        self._interval = 1 / fps
        self._next = -math.inf

    def wait(self, captured: float, deadline: Deadline) -> None:
        """Wait until it is time for the picture after the one of this moment.

        A call that is late keeps the pace, by waiting less; one that is slow waits for nothing.

        Raises:
            MeteredTimeoutError: It was not time yet by the deadline.
        """
        behind = self._next < captured - self._interval
        self._next = (captured if behind else self._next) + self._interval
        due = self._next
        while not self._feed.stopped and (wait := due - monotonic()) > TIMER_RESOLUTION:
            left = deadline.left()
            if left == 0:
                raise MeteredTimeoutError(
                    f"{self._feed.label}: the time of the next picture did not come within "
                    f"{deadline}; this one is shown",
                    sent=True,
                )
            self._feed.moved.wait(min(wait, left, WAIT_SLICE))
