"""Start the engine of this process on first use, forget it in a forked child, stop it at exit.

**Fork.** The child forgets the engine without touching it: its sockets and its selector
are the parent's. The engine object is kept, lest somebody's finalizer closes what is
inside; where codecs are about, so is all that the parent had left for the collector.

**Exit.** All links close at once, so that servers see a proper close; later the loops stop:
a timer of uvloop that fires in an interpreter which is gone would crash the process.
"""

from __future__ import annotations

import gc
import logging
import sys

from metered_sync.bridge import guard
from metered_sync.bridge.atomic import Atomic
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.loop import Engine, running
from metered_sync.bridge.process import after_fork, at_exit

__all__ = ["current"]

logger = logging.getLogger("metered_sync")

STOP_GRACE = 0.5
"""Seconds that the interpreter's exit waits for loops to stop: work may shield itself."""

_engine: Atomic[Engine | None] = Atomic(None)
_of_parents: list[Engine] = []


def current() -> Engine:
    """Return this process's engine; start it if it is not running."""
    engine = _engine.value
    if engine is not None and engine.started.is_set and engine.error is None:
        return engine
    new = Engine()
    before = _engine.swap(lambda there: new if there is None or there.error is not None else there)
    engine = _engine.value if before is None or before.error is not None else before
    assert engine is not None
    return engine.start()


def _forget() -> None:
    engine = _engine.swap(lambda _: None)
    if engine is not None:
        _of_parents.append(engine)
    if "av" in sys.modules:
        # A codec that the parent had dropped, collected here, would wait for ever for
        # its threads, which exist in the parent only.
        gc.freeze()


def _alive(deadline: Deadline) -> list[Engine]:
    """Return the engines whose loops run; a thread that outlives the main one may start one."""
    mine = [engine for engine in tuple(running) if engine.born == guard.generation()]
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
    engines = _alive(deadline)
    for engine in engines:
        engine.post(engine.stop)
    deadline = Deadline(min(deadline.left(), STOP_GRACE))
    for engine in engines:
        engine.join(deadline)


after_fork(_forget)
at_exit("close", _close_links)
at_exit("stop", _stop)
