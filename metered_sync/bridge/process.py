"""Run functions after a fork of this process, and at its exit.

Everything in this library that must act in a forked child or at the interpreter's exit
registers a function here, with :func:`after_fork` and :func:`at_exit`, so that there is one
hook of each kind and one order.

**Fork.** The functions run in the child, in the order of registration: the counter by
which objects know their process first (:mod:`metered_sync.bridge.guard`). uWSGI forks its
workers past Python's hooks, unless it is told not to: it calls us by a hook of its own.

**Exit.** ``atexit`` is too late: by then the executors that aiortc's encoders use are shut,
and with a non-daemon thread waiting on us it would never run at all.
``threading._register_atexit`` runs before both (it is private; where it is missing,
``atexit`` has to do). The hook runs once more at ``atexit``, for what threads that outlive
the main one have opened. Both runs share ``EXIT_LIMIT`` seconds, whatever hangs: each stage
of :data:`ExitStage` has a part of them, and an earlier one leaves the later ones theirs.
"""

from __future__ import annotations

import _thread
import atexit
import concurrent.futures.thread
import os
import sys
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any, Literal

from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.logs import guarded_logger

__all__ = [
    "TOO_LATE",
    "ExitStage",
    "after_fork",
    "at_exit",
    "has_green_threads",
    "is_exiting",
    "keep_in_child",
]

logger = guarded_logger("metered_sync")  # (all modules that log import this one)

ExitStage = Literal["close", "finish", "drain", "stop"]
"""What the exit does, in this order: connections are closed, files and sources are finished,
callbacks that are queued run, event loops stop."""

EXIT_LIMIT = 2.5
"""Seconds that the interpreter's exit may take on our account, both runs together."""
EXIT_FLOOR = 0.25
"""Seconds that the second run may take, though the first has used up the limit."""
STAGE_ENDS: dict[ExitStage, float] = {"close": 0.6, "finish": 0.8, "drain": 0.9, "stop": 1.0}
"""The part of a run's time that has passed when each stage gives up."""

TOO_LATE = (
    "the interpreter is exiting. Functions of atexit, weakref.finalize and logging.shutdown run "
    "too late; do it before the main program ends, in a `with` or `finally` block around it"
)
"""What to tell those who come after the exit has begun."""

_after_fork: list[Callable[[], None]] = []
_at_exit: dict[ExitStage, list[Callable[[Deadline], None]]] = {stage: [] for stage in STAGE_ENDS}
_exit_spent = 0.0
_kept: weakref.WeakSet[Any] = weakref.WeakSet()
"""Objects that a child which is forked from now on must not free."""
_never_freed: list[Any] = []
"""Objects that a forked child holds for ever, for it cannot free them."""
_exiting = False
_process = os.getpid()


def after_fork(function: Callable[[], None]) -> None:
    """Have ``function()`` run in each child of ``os.fork()``. It must take no lock."""
    _after_fork.append(function)


def at_exit(stage: ExitStage, function: Callable[[Deadline], None]) -> None:
    """Have ``function(deadline)`` run at the interpreter's exit, in a stage of it.

    It must return by the deadline, and leave alone what a parent process has made. It runs
    twice, and the second time there may be nothing left to do. What it raises is logged.
    """
    _at_exit[stage].append(function)


def has_green_threads() -> bool:
    """Say whether gevent or eventlet has put switches within one thread in the place of threads."""
    return not isinstance(_thread.start_new_thread, types.BuiltinFunctionType)


def keep_in_child(owner: object) -> None:
    """Never free ``owner``, and what it refers to, in a child that is forked from now on.

    What has threads of its own, as FFmpeg's filter graphs and resamplers do, would wait for them
    there for ever.
    """
    _kept.add(owner)


def is_exiting() -> bool:
    """Say whether the interpreter is exiting: connections are closed, or are being closed."""
    return _exiting or sys.is_finalizing()


def _in_child() -> None:
    global _exit_spent, _exiting, _process
    _exit_spent, _exiting, _process = 0.0, False, os.getpid()
    _never_freed.extend(_kept)
    for function in _after_fork:
        _guarded(function)


def _exit() -> None:
    global _exit_spent, _exiting
    _exiting = True
    started = monotonic()
    limit = max(EXIT_LIMIT - _exit_spent, EXIT_FLOOR)
    interrupt: BaseException | None = None
    for stage, functions in _at_exit.items():
        for function in tuple(functions):
            left = started + limit * STAGE_ENDS[stage] - monotonic()
            try:
                _guarded(function, Deadline(0 if interrupt else max(left, 0)))
            except BaseException as error:  # Ctrl-C: the others are told, and nobody waits
                interrupt = error
    _exit_spent += monotonic() - started
    if interrupt is not None:
        raise interrupt


def _guarded(function: Callable[..., None], *args: Deadline) -> None:
    try:
        function(*args)
    except Exception:
        logger.exception("%s.%s failed", function.__module__, function.__qualname__)


def _hook_into_uwsgi() -> None:
    """Be called in each worker, before whatever else the program wants to do there."""
    uwsgi: Any = sys.modules.get("uwsgi")  # (the server has made it, if this is one)
    if uwsgi is None:
        return
    another: Callable[[], object] | None = getattr(uwsgi, "post_fork_hook", None)

    def hook() -> None:
        if _process != os.getpid():  # else Python's hooks have run
            _in_child()
        if another is not None:
            another()

    uwsgi.post_fork_hook = hook


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
_hook_into_uwsgi()
# Hooks run last in, first out: concurrent.futures must have registered its own by now.
assert concurrent.futures.thread
atexit.register(_exit)
getattr(threading, "_register_atexit", atexit.register)(_exit)
