"""Open, call and close the link of a blocking object; close it when the object is collected.

A blocking object owns its link; the link does not know it. So an object that is collected
while open can be closed by a finalizer, which only posts to the loop, takes no lock, and
says so with a ``ResourceWarning``.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any, TypeVar

from metered_sync.bridge import engines, guard
from metered_sync.bridge.deadline import Deadline, check_timeout
from metered_sync.bridge.link import Link
from metered_sync.bridge.loop import Engine
from metered_sync.errors import ClosedError

__all__ = ["Facade", "close_when_collected", "on_forgotten"]

T = TypeVar("T")
Self = TypeVar("Self", bound="Facade")

on_forgotten: list[Callable[[Link], object]] = []
"""Told of each link whose owner is collected while it is open. They must take no lock."""


class Facade(guard.LiveObject):
    """Open, call and close a link of the engine, for a blocking object."""

    def __init__(self, label: str, timeout: float) -> None:
        self._label = label
        self._timeout = check_timeout("timeout", timeout)
        self._born = guard.generation()
        self._engine: Engine | None = None
        self._finalizer: Any = None
        self._closed = False

    def _deadline(self, timeout: float | None) -> Deadline:
        """Return the deadline of a call that acts."""
        return Deadline.of(timeout, self._timeout)

    def _start(self) -> Engine:
        """Return the engine, started; every call that acts passes here first."""
        guard.check_process(self._born, self._label)
        if self._engine is None:
            self._engine = engines.hold(self)  # which ends after the last of its objects
        return self._engine

    def _opened(self, link: Link) -> None:
        """Close ``link`` when this object is collected. It is about to be opened."""
        self._finalizer = close_when_collected(self, self._start(), link)

    def _call(
        self,
        function: Callable[..., Awaitable[T]],
        *args: Any,
        deadline: Deadline,
        what: str,
        progress: Callable[[], tuple[str, bool]] | None = None,
    ) -> T:
        """Run an engine function and wait for it."""
        engine = self._start()
        with ExitStack() as block:
            if self._closed and isinstance(engine.error, ClosedError):
                # It has ended since, and what is called says what it says of a closed object.
                engine = block.enter_context(engines.in_use())
            return engine.call(
                function, *args, deadline=deadline, what=f"{self._label}: {what}", progress=progress
            )

    def _close(self, link: Link, deadline: Deadline) -> None:
        """Close the link and wait for that. Calls on a closed object return at once."""
        if self._engine is not None and self._engine.error is None:
            self._call(link.aclose, deadline=deadline, what="close")
        # (Not before: a close that timed out has closed nothing.)
        if self._finalizer is not None:
            self._finalizer.detach()
        self._let_go()

    def _let_go(self) -> None:
        """Use the engine no longer: this object is closed."""
        if self._engine is not None:
            self._engine.release(id(self))

    def _enter(self) -> None:
        """Do what entering a ``with`` block does."""
        raise NotImplementedError

    def close(self, *, timeout: float | None = None) -> None:
        raise NotImplementedError

    def __enter__(self: Self) -> Self:
        try:
            self._enter()
        except BaseException:
            self.close()  # the block's end, which would do it, is never reached
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def close_when_collected(owner: object, engine: Engine, link: Link) -> Any:
    """Close ``link`` when ``owner`` is collected while it is open; return the finalizer."""
    finalizer = weakref.finalize(owner, _abandon, engine, link)
    finalizer.atexit = False
    return finalizer


def _abandon(engine: Engine, link: Link) -> None:
    # Runs whenever the collector does, on any thread: no locks here.
    if engine.born == guard.generation() and link in engine.links:
        engine.post(engine.abandon, link)
        for tell in on_forgotten:
            tell(link)
        warnings.warn(
            f"{link.label} was not closed; use `with`, or call close()",
            ResourceWarning,
            stacklevel=2,
        )
