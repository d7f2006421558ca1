"""What the blocking objects share: opening, closing, deadlines, and being forgotten."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from metered_sync.engine import guard, loop
from metered_sync.engine.deadline import Deadline

__all__ = ["Facade"]

T = TypeVar("T")
Self = TypeVar("Self", bound="Facade")


class Facade:
    """A blocking object over a link of the engine.

    It owns the link; the link does not know it. Collected while open, it is closed by
    a finalizer that only posts to the loop, and says so with a ``ResourceWarning``.
    """

    def __init__(self, label: str, timeout: float) -> None:
        self._label = label
        self._timeout = Deadline(timeout).timeout
        self._born = guard.generation()
        self._engine: loop.Engine | None = None
        self._finalizer: Any = None
        self._closed = False
        # Held while a link is made, and while this object is marked closed: not while waiting.
        self._life = threading.Lock()

    def _deadline(self, timeout: float | None) -> Deadline:
        """Return the deadline of a call that acts."""
        return Deadline.of(timeout, self._timeout)

    def _start(self) -> loop.Engine:
        """Return the engine, started; every call that acts passes here first."""
        guard.check_process(self._born, self._label)
        if self._engine is None:
            self._engine = loop.current()
        return self._engine

    def _opened(self, link: loop.Link) -> None:
        """Close ``link`` when this object is collected. It is about to be opened."""
        self._finalizer = weakref.finalize(self, _forgotten, self._start(), link)
        self._finalizer.atexit = False

    def _call(
        self,
        function: Callable[..., Awaitable[T]],
        *args: Any,
        deadline: Deadline,
        what: str,
        progress: Callable[[], tuple[str, bool]] | None = None,
    ) -> T:
        """Run an engine function and wait for it."""
        what = f"{self._label}: {what}"
        return self._start().call(function, *args, deadline=deadline, what=what, progress=progress)

    def _close(self, link: loop.Link, timeout: float | None) -> None:
        """Close the link and wait for that. Calls on a closed object return at once."""
        deadline = self._deadline(timeout)
        if self._finalizer is not None:
            self._finalizer.detach()
        if self._engine is not None and self._engine.error is None:
            self._call(link.aclose, deadline=deadline, what="close")

    def connect(self, *, timeout: float | None = None) -> None:
        raise NotImplementedError

    def close(self, *, timeout: float | None = None) -> None:
        raise NotImplementedError

    def __enter__(self: Self) -> Self:
        try:
            self.connect()
        except BaseException:
            self.close()  # the block's end, which would do it, is never reached
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _forgotten(engine: loop.Engine, link: loop.Link) -> None:
    # Runs whenever the collector does, on any thread: no locks here.
    if engine.born == guard.generation() and link in engine.links:
        engine.post(engine.abandon, link)
        warnings.warn(
            f"{link.label} was not closed; use `with`, or call close()",
            ResourceWarning,
            stacklevel=2,
        )
