"""Log without being broken by what listens to the log.

A handler or a filter of the user's may raise. ``logging`` lets that go up to whoever logs, and
that may be a connection, a callback's thread or the event loop. So loggers that are used on our
threads get a ``handle`` that shows the error, as ``logging`` shows those of its own handlers, and
returns.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Collection
from typing import Any

__all__ = ["guarded_logger"]


def guarded_logger(name: str, threads: Collection[int] | None = None) -> logging.Logger:
    """Return the logger of this name; what its handlers and filters raise goes no further.

    ``threads`` are identifiers of the threads where that holds; ``None``: on all.
    """
    logger = logging.getLogger(name)
    handle: Any = logger.handle
    if not getattr(handle, "is_guarded", False):

        def guarded(record: logging.LogRecord) -> None:
            try:
                handle(record)
            except BaseException as error:
                ctrl_c = not isinstance(error, Exception)  # perhaps, in the main thread
                if ctrl_c and threading.current_thread() is threading.main_thread():
                    raise
                if threads is not None and threading.get_ident() not in threads:
                    raise
                _show(name)

        guarded.is_guarded = True  # type: ignore[attr-defined]
        logger.handle = guarded  # type: ignore[method-assign]
    return logger


def _show(name: str) -> None:
    """Show what was raised, but for the record: it may not have been scrubbed yet."""
    try:
        if logging.raiseExceptions and sys.stderr is not None:
            sys.stderr.write(f"--- Logging error in a handler or filter of {name!r} ---\n")
            traceback.print_exc(file=sys.stderr)
    except Exception:  # there is nowhere to show it
        pass
