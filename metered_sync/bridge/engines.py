"""Start the engine of this process on first use; end it with the last, in a fork and at exit.

**Use.** Whoever uses the engine holds it first: for as long as something of it may be open
(:func:`hold`), or for a call that stands alone (:func:`in_use`). It ends some seconds after the
last use, and the next one starts another.

**Fork.** The child forgets the engine without touching it: its sockets and its selector
are the parent's. The engine object is kept (it stays among those that run), lest somebody's
finalizer closes what is inside; where codecs are about, so is all that the parent had left for the
collector.

**Exit.** All links close at once, so that servers see a proper close; later the loops stop:
a timer of uvloop that fires in an interpreter which is gone would crash the process.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from metered_sync.bridge import guard
from metered_sync.bridge.atomic import Atomic
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.loop import Engine, running
from metered_sync.bridge.process import after_fork, at_exit
from metered_sync.errors import ClosedError

__all__ = ["current", "hold", "in_use"]

logger = logging.getLogger("metered_sync")

LOOK_EVERY = 3.0
"""Seconds between two looks whether the engine is used. Unused, it ends within two of them."""
STOP_GRACE = 0.5
"""Seconds that the interpreter's exit waits for loops to stop: work may shield itself."""

_engine: Atomic[Engine | None] = Atomic(None)


def current() -> Engine:
    """Return this process's engine; start it if it is not running.

    It may end at any moment if nobody holds it.
    """
    while True:
        engine = _engine.value
        if engine is not None and engine.started.is_set and engine.error is None:
            return engine
        try:
            return _next(Engine(look_every=LOOK_EVERY)).start()
        except ClosedError:  # another thread had started it, and nothing has used it since
            continue


def _next(new: Engine) -> Engine:
    """Make ``new`` the engine of this process, unless it has one; return the one it has."""
    before = _engine.swap(lambda there: new if there is None or there.error is not None else there)
    return new if before is None or before.error is not None else before


def hold(holder: object) -> Engine:
    """Return this process's engine, which runs while ``holder`` lives, or until its release."""
    while True:
        engine = current()
        engine.hold(holder)
        if not isinstance(engine.error, ClosedError):  # else it has ended just now
            return engine


class _Block:
    """Hold the engine for a block."""


@contextmanager
def in_use() -> Iterator[Engine]:
    """Return this process's engine, which runs until the block ends."""
    holder = _Block()
    engine = hold(holder)
    try:
        yield engine
    finally:
        engine.release(id(holder))


def _forget() -> None:
    _engine.swap(lambda _: None)
    if "av" in sys.modules:
        # A codec that the parent had dropped, collected here, would wait for ever for
        # its threads, which exist in the parent only.
        gc.freeze()


def _mine() -> list[Engine]:
    return [engine for engine in tuple(running) if engine.born == guard.generation()]


def _alive(deadline: Deadline) -> list[Engine]:
    """Return the engines whose loops run; a thread that outlives the main one may start one."""
    mine = _mine()
    return [engine for engine in mine if engine.started.wait(deadline) and engine.error is None]


def _close_links(deadline: Deadline) -> None:
    # The clients' engine first: a local cloud in this process then sees them close.
    for engine in sorted(_alive(deadline), key=lambda engine: engine is not _engine.value):
        try:
            if engine.links:
                engine.call(engine.close_links, deadline=deadline, what="closing at exit")
        except Exception:
            logger.debug("closing at exit failed", exc_info=True)


def _stop(deadline: Deadline) -> None:
    for engine in _alive(deadline):
        engine.post(engine.stop)
    deadline = Deadline(min(deadline.left(), STOP_GRACE))
    for engine in _mine():  # some may have been about to end
        engine.join(deadline)


after_fork(_forget)
at_exit("close", _close_links)
at_exit("stop", _stop)
