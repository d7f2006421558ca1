"""Start threads, and say why one cannot be started."""

from __future__ import annotations

import threading

from metered_sync.bridge.process import TOO_LATE, is_exiting
from metered_sync.errors import EngineError

__all__ = ["start_thread"]


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
