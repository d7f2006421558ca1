"""Open files and devices within a deadline, though opening them knows none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from metered_sync.bridge import guard
from metered_sync.bridge.deadline import Deadline, Latch
from metered_sync.bridge.threads import start_thread

__all__ = ["open_in_time"]


def open_in_time(function: Callable[[], Any], deadline: Deadline, label: str) -> Any:
    """Open something on a thread of its own, and return it.

    FFmpeg and a disk that hangs know neither Ctrl-C nor this deadline. What is opened too late
    is closed.

    Raises:
        TimeoutError: The deadline passed.
        Exception: What ``function`` raised.
    """
    guard.check_blocking(guard.generation(), label)
    lock = threading.Lock()  # guards what follows
    outcome: list[Any] = []
    waiting = True
    done = Latch()

    def run() -> None:
        try:
            result = function()
        except Exception as error:
            result = error
        with lock:
            if waiting:
                outcome.append(result)
            elif hasattr(result, "close"):
                result.close()
        done.set()

    start_thread(threading.Thread(target=run, name=f"metered-sync-opening {label}", daemon=True))
    try:
        done.wait(deadline)
    finally:
        with lock:
            waiting = False
            result = outcome.pop() if outcome else None
    if result is None:
        raise TimeoutError
    if isinstance(result, Exception):
        raise result
    return result
