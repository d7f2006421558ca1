"""What the receivers of ``rooms.py`` share: how they watch for a pause between pictures."""

from __future__ import annotations

import itertools
import sys
import time

import aioice.ice

url, token = sys.argv[1:3]
seconds, consent = map(float, sys.argv[3:])
aioice.ice.CONSENT_INTERVAL = consent
times: list[float] = []
"""When pictures came."""


class Watch:
    """Waits, once it is told to on stdin, for a pause of so many seconds and a second after it."""

    def __init__(self) -> None:
        line = sys.stdin.readline().split()
        limit, self._pause = map(float, line)
        self._begun = len(times) - 1
        self._end = time.monotonic() + limit

    def over(self) -> bool:
        """Whether that is done, or it has taken long enough."""
        late = times[self._begun :]
        resumed = [b for a, b in itertools.pairwise(late) if b - a > self._pause]
        return time.monotonic() > (resumed[0] + 1 if resumed else self._end)
