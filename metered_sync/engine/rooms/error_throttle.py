"""Tell of the errors that a member causes at a bounded rate: it may cause them at will."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from metered_sync.wire.events import Event

__all__ = ["ErrorThrottle"]

ERROR_BURST = 10
"""Errors of a member that are told of at once."""
ERROR_INTERVAL = 1.0
"""Seconds after which one more is; of those that come meanwhile, the newest of each class."""


class ErrorThrottle:
    """The errors of one member, on their way to whoever listens; on the loop."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self._tell = tell
        self._credit = float(ERROR_BURST)
        self._at = 0.0
        self._newest: dict[type[Event], Event] = {}
        self._timer: asyncio.TimerHandle | None = None

    def put(self, event: Event) -> None:
        """Tell of an error now, or of the newest one as soon as it is time."""
        now = time.monotonic()
        earned = (now - self._at) / ERROR_INTERVAL
        self._credit, self._at = min(self._credit + earned, float(ERROR_BURST)), now
        if self._credit >= 1 and not self._newest:
            self._credit -= 1
            self._tell(event)
            return
        self._newest[type(event)] = event
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(ERROR_INTERVAL, self._due)

    def _due(self) -> None:
        self._credit -= len(self._newest)
        self.flush()

    def flush(self) -> None:
        """Tell of what waits."""
        timer, self._timer = self._timer, None
        if timer is not None:
            with contextlib.suppress(RuntimeError):  # the loop has died, and its timers with it
                asyncio.get_running_loop()
                timer.cancel()
        newest, self._newest = self._newest, {}
        for event in newest.values():
            self._tell(event)
