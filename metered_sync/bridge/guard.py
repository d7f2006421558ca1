"""Check, before a blocking call, that it may wait: the right process, the right thread.

Four situations turn a wait into a hang, and each is answered at once instead:
an object inherited over ``os.fork()`` (its engine thread does not exist in the
child), a wait on the engine's own thread (which would stop the loop that is to
end the wait), a wait in a signal handler or finalizer that has interrupted a call
which holds a lock (the loop may need it to end the wait), and - legal, but seldom
meant - a wait on a thread that runs somebody else's event loop.

The process is identified by a counter that ``os.fork()`` raises in the child:
comparing two integers costs nothing, ``os.getpid()`` is a system call.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from metered_sync.bridge.deadline import Deadline, wait
from metered_sync.bridge.process import after_fork, has_green_threads
from metered_sync.errors import ForkedError, MeteredTimeoutError, WrongThreadError

__all__ = [
    "CallLock",
    "LiveObject",
    "check_blocking",
    "check_process",
    "engine_threads",
    "generation",
    "reentrant_lock",
]

_generation = 0
_warned = False

engine_threads: set[int] = set()
"""Identifiers of threads that run one of our event loops."""

_locks: set[weakref.ref[Any]] = set()


def reentrant_lock() -> threading.RLock:
    """Return a lock that a signal handler, or a finalizer, may take while its thread holds it.

    What it guards must bear that. It is for what the loop takes, too: so while a thread holds it,
    a blocking call there is refused.
    """
    lock = threading.RLock()
    _locks.add(weakref.ref(lock, _locks.discard))
    return lock


class CallLock:
    """Let one call at a time do what may take long, or wait."""

    def __init__(self) -> None:
        self._lock: Any = threading.RLock()

    @contextmanager
    def held(self, deadline: Deadline, what: str) -> Iterator[None]:
        """Wait for the end of other such calls; then let nobody else in.

        Raises:
            MeteredTimeoutError: Another call did not end in time.
            WrongThreadError: It is this thread's own, which a signal handler has interrupted.
        """
        if self._lock._is_owned():
            raise WrongThreadError(
                f"{what}: a signal handler or finalizer that has interrupted another call on the "
                "same object cannot wait for its end; set a flag there, and call later"
            )
        try:
            if not wait(self._lock, deadline):
                raise MeteredTimeoutError(
                    f"{what}: another thread's call did not end within {deadline}"
                )
            yield
        finally:
            # (No call before it: Ctrl-C, which comes at calls, cannot keep this one out.)
            try:
                self._lock.release()
            except RuntimeError:  # it was not acquired
                pass


class LiveObject:
    """Be tied to threads and connections: not to be pickled or copied, and shown half-built, too.

    A constructor's error is shown with the object by debuggers and crash reporters.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__repr__" in vars(cls):
            cls.__repr__ = _shown_half_built(cls.__repr__)  # type: ignore[method-assign]

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} cannot be pickled or copied: it belongs to its process, with "
            "its threads and connections; pass on what it was made with, and make a new one there"
        )


def _shown_half_built(show: Callable[[Any], str]) -> Callable[[Any], str]:
    """Return a ``__repr__`` that says so where the constructor has not come to its end."""

    @functools.wraps(show)
    def shown(self: object) -> str:
        try:
            return show(self)
        except AttributeError:
            return f"<{type(self).__name__}: not made>"

    return shown


def generation() -> int:
    """Return the number of forks between the first process and this one."""
    return _generation


def check_process(born: int, what: object) -> None:
    """Raise :class:`ForkedError` if ``what`` was made in a parent process."""
    if born != _generation:
        raise ForkedError(
            f"{what} was opened before os.fork() and belongs to the parent process; "
            "open a new one in the child (for instance in a post-fork hook, or on first use)"
        )


def check_blocking(born: int, what: object) -> None:
    """Raise if a blocking call may not be made from here; warn if it is seldom meant."""
    check_process(born, what)
    if threading.get_ident() in engine_threads:
        raise WrongThreadError(
            f"{what}: a blocking call on the event-loop thread would wait for itself; "
            "make it from a callback or from a thread of your own"
        )
    for ref in _locks.copy() if _locks else ():
        lock = ref()
        if lock is not None and lock._is_owned():
            raise WrongThreadError(
                f"{what}: a blocking call in a signal handler or finalizer that has interrupted "
                "another call of this library, which holds what the wait would need; make one "
                "there that does not wait (publish_nowait(), timeout=0), or set a flag"
            )
    # (Green threads see our loop as their own.)
    if asyncio._get_running_loop() is not None and not _warned and not has_green_threads():
        _warn_on_foreign_loop(what)


def _warn_on_foreign_loop(what: object) -> None:
    """Warn, once per process, of a wait that holds up the caller's own event loop."""
    global _warned
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        return  # Every notebook cell runs on a loop; there, blocking is what is meant.
    if "greenlet" in sys.modules and asyncio.current_task() is None:
        return  # That loop is paused in another greenlet, as Playwright's between two of its calls.
    _warned = True
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("metered_sync"):
        level, frame = level + 1, frame.f_back
    warnings.warn(
        f"{what}: this blocking call holds up the event loop running in this thread; "
        "call it through asyncio.to_thread(...) to keep that loop going",
        RuntimeWarning,
        stacklevel=level,
    )


def _in_child() -> None:
    global _generation
    _generation += 1
    engine_threads.clear()


after_fork(_in_child)
