"""Start threads, and say why one cannot be started; run on one what may hang."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from metered_sync.bridge.deadline import Deadline, Latch
from metered_sync.bridge.process import TOO_LATE, is_exiting
from metered_sync.errors import EngineError, MeteredTimeoutError

__all__ = ["run_within", "start_thread"]

T = TypeVar("T")


def start_thread(thread: threading.Thread) -> None:
    """Start a thread.

    Raises:
        EngineError: There can be no more threads, or the interpreter is exiting.
    """
    try:
        thread.start()
    except RuntimeError as error:
        if is_exiting() or "shutdown" in str(error):
            raise EngineError(f"no thread can be started: {TOO_LATE}") from error
        raise EngineError(
            f"the thread {thread.name!r} cannot be started ({error}): the process, its user or "
            "its container has as many threads as it may; end some, or raise the limit "
            "(ulimit -u, pids.max), and call again"
        ) from error


def run_within(deadline: Deadline, what: str, function: Callable[..., T], *args: Any) -> T:
    """Run a function that may hang on a thread of its own, which is left alone at the deadline.

    Raises:
        MeteredTimeoutError: It did not end in time.
        Exception: What the function raises.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    ended = Latch()

    def run() -> None:
        try:
            results.append(function(*args))
        except BaseException as error:
            errors.append(error)
        ended.set()

    start_thread(threading.Thread(target=run, name="metered-sync-check", daemon=True))
    if not ended.wait(deadline):
        raise MeteredTimeoutError(f"{what}: not finished within {deadline}")
    if errors:
        raise errors.pop()
    return results[0]
