"""Run users' functions on threads of their own: one at a time, in order, holding no lock.

A function of a user's may block, raise, call any method of the library and close the object
it belongs to. So it never runs on the event loop: each object that has such functions - a
client, a track, a recorder - has a :class:`Dispatcher`, a daemon thread that is started with
the first of them and reads an inbox. What a function raises is logged and handed to the
object's ``on_error``, and stops nothing.
"""

from __future__ import annotations

import contextvars
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from metered_sync.bridge import guard
from metered_sync.bridge.cells import CellFunction
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.process import at_exit
from metered_sync.bridge.reader import Reader
from metered_sync.bridge.threads import start_thread
from metered_sync.errors import MeteredError
from metered_sync.wire.arguments import check_function, unrun_result

__all__ = ["Callback", "Dispatcher", "ErrorHandler", "run_callback"]

T = TypeVar("T")
ErrorHandler = Callable[[Any, BaseException], object]
"""A user's ``on_error(argument, exception)``."""
logger = logging.getLogger("metered_sync")

DRAIN_POLL = 0.005
"""Seconds between two looks at the callbacks that the interpreter's exit waits for."""

_running: set[Dispatcher[Any]] = set()
"""The dispatchers whose threads run; ``add`` and ``discard`` are atomic."""


class Callback(guard.LiveObject):
    """Keep a user's function with the context of the code that registered it.

    What that code sees (request ids, a notebook cell's output) the function sees too.
    """

    def __init__(self, function: Callable[[Any], object], name: str = "a callback") -> None:
        check_function(name, function, arguments=1)
        self.function = function
        self.active = True
        """Whether it may still be called."""
        self.context = contextvars.copy_context()
        self.origin = CellFunction(function)
        """The notebook's cell that has registered it, if one has."""

    def note_replaced(self, older: Callback, label: str) -> None:
        """Say so where this may have replaced a function of another cell."""
        if not self.origin.is_sure_of(older.origin):
            logger.warning(
                "%s: %s replaces the function of this name that was registered before, as when a "
                "cell runs again; give one of them another name to have both called",
                label,
                self.origin.name[1],
            )


def run_callback(
    callback: Callback, argument: Any, label: str, on_error: ErrorHandler | None
) -> None:
    """Call a user's function; log what it raises, and hand that to ``on_error``."""
    try:
        problem = unrun_result(callback.context.run(callback.function, argument))
        if problem is not None:
            raise TypeError(problem)
    except SystemExit:
        pass  # ends the callback, as it would end a thread
    except BaseException as error:
        what = f"a callback of {label} for {type(argument).__name__}"
        logger.exception("%s raised an exception", what)
        if on_error is not None:
            try:
                problem = unrun_result(on_error(argument, error))
                if problem is not None:
                    raise TypeError(problem)
            except BaseException:
                logger.exception("on_error, told of %s, raised an exception", what)


class Dispatcher(Generic[T]):
    """Call users' functions for the items of an inbox, on a daemon thread.

    The thread ends once the inbox has ended and been emptied.

    Args:
        label: Names the object that the functions belong to, in logs.
        inbox: What there is to call functions for. Its bound and policy are the caller's:
            everything in order, or the newest only.
        due: Returns the functions to call for an item, and the argument of each.
        on_error: Returns the object's ``on_error`` of this moment.
    """

    def __init__(
        self,
        label: str,
        inbox: Reader[T],
        due: Callable[[T], Iterable[tuple[Callback, Any]]],
        on_error: Callable[[], ErrorHandler | None] = lambda: None,
    ) -> None:
        self.label = label
        self.inbox = inbox
        self.born = guard.generation()
        self._due = due
        self._on_error = on_error
        self._busy = False
        self._current: Callback | None = None
        self._after: Dispatcher[Any] | None = None
        self._thread = threading.Thread(
            target=self._run, name=f"metered-sync-callbacks ({label})", daemon=True
        )

    def __repr__(self) -> str:
        return f"<Dispatcher of {self.label}: {self.backlog}>"

    def start(self, after: Dispatcher[Any] | None = None) -> None:
        """Start the thread; it calls nothing before another dispatcher's thread has ended."""
        self._after = after
        _running.add(self)
        try:
            start_thread(self._thread)
        except BaseException:  # there are too many threads, or the interpreter is ending
            _running.discard(self)
            raise

    def join(self, deadline: Deadline) -> bool:
        """Wait until the thread has ended; say whether it had by the deadline."""
        self._thread.join(min(deadline.left(), threading.TIMEOUT_MAX))
        return not self._thread.is_alive()

    @property
    def unfinished(self) -> bool:
        """Whether there is something to run, or an end to come to."""
        # (In this order: an item leaves the inbox while the thread is busy.)
        waiting = len(self.inbox) > 0 or self._busy or self.inbox.ended
        return waiting and self._thread.is_alive()

    @property
    def backlog(self) -> str:
        """What runs and what waits, in words."""
        current = self._current
        name = getattr(current and current.function, "__qualname__", "a callback")
        runs = "none runs" if current is None else f"{name} runs"
        return f"{runs}, {len(self.inbox)} queued"

    def _run(self) -> None:
        if self._after is not None:
            self._after.join(Deadline(math.inf))
            self._after = None
        try:
            while True:
                self._busy = True
                try:
                    self._handle(self.inbox.get_nowait())
                except queue.Empty:
                    self._busy = False
                    self.inbox.wait()
        except MeteredError:
            pass  # the inbox has ended, and its source tells others why
        finally:
            _running.discard(self)

    def _handle(self, item: T) -> None:
        for callback, argument in self._due(item):
            self._current = callback
            run_callback(callback, argument, self.label, self._on_error())
        self._current = None  # until the next item, nothing must be kept alive from here


def _drain(deadline: Deadline) -> None:
    """Let callbacks run that are queued when the interpreter exits; name those that did not."""
    mine = [one for one in tuple(_running) if one.born == guard.generation()]
    while mine := [one for one in mine if one.unfinished]:
        if not deadline.left():
            waiting = "; ".join(f"{one.label}: {one.backlog}" for one in mine)
            logger.warning("the interpreter exits before all callbacks have run: %s", waiting)
            _running.difference_update(mine)  # the second run need not wait for them again
            return
        time.sleep(DRAIN_POLL)


at_exit("drain", _drain)
