"""Measure what a stranger costs the thread on which all clients of this process run."""

from __future__ import annotations

import time
from collections.abc import Callable

from metered_sync.bridge.engines import current

MAX_STEP = 0.3
"""Seconds of CPU time that one step of the loop may cost, on a slow machine; usually a third."""


def loop_cpu() -> float:
    """Return the seconds of CPU time that the loop's thread has used."""
    thread = current()._thread
    assert thread is not None
    assert thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def cpu_of(function: Callable[[], object]) -> float:
    """Return the seconds of CPU time that a call costs this thread; the better of two."""
    times = []
    for _ in range(2):
        begin = time.thread_time()
        function()
        times.append(time.thread_time() - begin)
    return min(times)
