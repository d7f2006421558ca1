"""Run blocking functions for the engine, on daemon threads of our own.

``concurrent.futures`` will not do: a job that is busy there holds the
interpreter's exit until it ends, though its thread is a daemon. Here a job whose
caller has given up is abandoned: its thread finishes in its own time, and the
result is discarded.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from metered_sync.bridge.process import after_fork
from metered_sync.bridge.threads import start_thread

__all__ = ["run_in_worker"]

T = TypeVar("T")

IDLE_LIMIT = 5.0
"""Seconds after which a worker thread without a job ends."""

_jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
_lock = threading.Lock()  # guards _idle
_idle = 0


def _work(first: list[Callable[[], None]]) -> None:
    global _idle
    job = first.pop()
    while True:
        job()
        del job
        with _lock:
            _idle += 1
        while True:
            try:
                job = _jobs.get(timeout=IDLE_LIMIT)
                break
            except queue.Empty:
                with _lock:
                    # Else a job has been queued just now, counting on this thread.
                    if _jobs.empty():
                        _idle -= 1
                        return


def _submit(job: Callable[[], None]) -> None:
    global _idle
    with _lock:
        spare = _idle > 0
        if spare:
            _idle -= 1
            _jobs.put(job)
    if not spare:
        # (A job queued for a thread that cannot be started would run when its caller has long
        # been told that it failed.)
        start_thread(
            threading.Thread(target=_work, args=([job],), name="metered-sync-worker", daemon=True)
        )


async def run_in_worker(function: Callable[..., T], *args: Any) -> T:
    """Await ``function(*args)`` on a worker thread.

    Cancelling the wait abandons the job: nobody will see its result or its error.
    The function sees the caller's context variables.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def settle(set_outcome: Callable[[Any], None], outcome: Any) -> None:
        if not future.done():
            set_outcome(outcome)

    def job() -> None:
        nonlocal args
        deliver: Callable[[Any], None]
        try:
            outcome: Any = context.run(function, *args)
            deliver = future.set_result
        except BaseException as error:
            deliver, outcome = future.set_exception, error
            if isinstance(error, StopIteration) or not isinstance(error, Exception):
                # These mean something else to a coroutine; SystemExit would end the loop.
                outcome = RuntimeError(f"the function ended with {error!r}")
                outcome.__cause__ = error
        args = ()  # this frame is in the error's traceback
        try:
            loop.call_soon_threadsafe(settle, deliver, outcome)
        except RuntimeError:  # the loop is gone, and with it whoever asked
            pass

    _submit(job)
    return await future


def _in_child() -> None:
    global _jobs, _lock, _idle
    _jobs, _lock, _idle = queue.SimpleQueue(), threading.Lock(), 0


after_fork(_in_child)
