"""Count connections, messages and attempts to connect, against the plan's limits."""

from __future__ import annotations

import time
from collections import deque

from metered_sync.bridge.clock import monotonic
from metered_sync.wire.control import Plan, Usage
from metered_sync.wire.limits import MAX_ATTEMPTS
from metered_sync.wire.timings import Timings

__all__ = ["UsageMeter"]


class UsageMeter:
    """The usage of one app, and the limits of its plan.

    Args:
        app_id: What the usage report calls the app.
        max_connections: Connections that may be open at once.
        max_messages: Messages that may be published or sent before the cloud ends.
        limits: Whether these hold, and the limit of attempts to connect. If not, the app
            is one whose overages are on: counted, and never refused.
        timings: Intervals; tests shrink them.
    """

    def __init__(
        self,
        app_id: str,
        *,
        max_connections: int,
        max_messages: int,
        limits: bool,
        timings: Timings,
    ) -> None:
        self._app_id = app_id
        self._plan = Plan(
            "SIGNALLING_FREE" if limits else "SIGNALLING_BASIC",
            max_connections,
            max_messages,
            overages_allowed=not limits,
            overages_enabled=not limits,
        )
        self._limits = limits
        self._window = timings.attempt_window
        self._since = int(time.time())
        self._connections = 0
        self._peak = 0
        self._messages = 0
        self._attempts: dict[tuple[str | None, bool], deque[float]] = {}
        """When the latest attempts of each address were made."""

    def reset(self) -> None:
        """Forget all but the connections that are open."""
        self._since = int(time.time())
        self._peak = self._connections
        self._messages = 0
        self._attempts.clear()

    def attempt(self, address: str | None, *, apart: bool = False) -> bool:
        """Return whether an address may try to connect once more; if so, count the attempt.

        Those that any web page can make a browser make are counted ``apart``: they must not
        lock out the developer at the same machine.
        """
        if not self._limits:
            return True
        now = monotonic()
        times = self._attempts.setdefault((address, apart), deque(maxlen=MAX_ATTEMPTS))
        if len(times) == MAX_ATTEMPTS and now - times[0] < self._window:
            return False
        times.append(now)
        return True

    @property
    def full(self) -> bool:
        """Return whether the plan admits no further connection."""
        return self._limits and (
            self._connections >= self._plan.max_concurrent_connections
            or self._messages >= self._plan.max_messages_per_period
        )

    def reason(self) -> str:
        """Say which limit of the plan is reached."""
        plan = self._plan
        if self._messages >= plan.max_messages_per_period:
            return f"all {plan.max_messages_per_period} messages are used (max_messages=…)"
        return f"{self._connections} connections are open (max_connections=…)"

    def connected(self) -> None:
        """Count a connection."""
        self._connections += 1
        self._peak = max(self._peak, self._connections)

    def disconnected(self) -> None:
        """Count the end of a connection."""
        self._connections -= 1

    def message(self) -> bool:
        """Count a message, even one too many; return whether the plan has room for it."""
        self._messages += 1
        return not self._limits or self._messages <= self._plan.max_messages_per_period

    def usage(self) -> Usage:
        """Return the usage report."""
        plan = self._plan
        return Usage(
            app_id=self._app_id,
            period_start_unix=self._since,
            period_end_unix=None,  # it ends with the cloud
            concurrent_now=self._connections,
            peak_concurrent=self._peak,
            messages_used=self._messages,
            # Overages are what is served beyond the plan, not what was refused.
            overage_messages=self._beyond(self._messages, plan.max_messages_per_period),
            overage_connections=self._beyond(self._peak, plan.max_concurrent_connections),
            plan=plan,
        )

    def _beyond(self, count: int, included: int) -> int:
        return 0 if self._limits else max(0, count - included)
