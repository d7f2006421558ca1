"""What the blocking objects share: opening, closing, deadlines, and being forgotten."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from metered_sync.bridge import guard, loop
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.dispatch import EventHub, Observable
from metered_sync.errors import ClosedError, NotConnectedError

__all__ = ["Client", "Facade"]

T = TypeVar("T")
L = TypeVar("L", bound=loop.Link)
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
        if self._engine is not None and self._engine.error is None:
            self._call(link.aclose, deadline=deadline, what="close")
        if self._finalizer is not None:  # not before: a close that timed out has closed nothing
            self._finalizer.detach()

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


class Client(Facade, Observable, Generic[L]):
    """A facade with events, over one link that is made by its first ``connect()``."""

    def __init__(self, label: str, timeout: float) -> None:
        super().__init__(label, timeout)
        self._hub = EventHub(label)
        self._link: L | None = None

    def _make_link(self, engine: loop.Engine) -> L:
        raise NotImplementedError

    def _link_to_open(self) -> L:
        """Return the link, made if need be: by one thread, though several connect at once."""
        engine = self._start()
        with self._life:
            if self._closed:
                raise ClosedError(f"{self._label} is closed; make a new one")
            if self._link is None:
                self._link = self._make_link(engine)
                self._opened(self._link)
            return self._link

    def _connected(self, what: str) -> L:
        """Return the link if ``connect()`` has been called."""
        self._start()
        if self._link is not None:
            return self._link
        if self._closed:
            raise ClosedError(f"{what}: {self._label} is closed")
        raise NotConnectedError(
            f"{what}: {self._label} is not connected; use `with`, or call connect() first"
        )

    def close(self, *, timeout: float | None = None) -> None:
        """Close the connection and wake everybody who waits. Repeatable, from any thread."""
        guard.check_process(self._born, self._label)
        with self._life:
            self._closed = True
        if self._link is not None:
            self._close(self._link, timeout)
        else:
            self._hub.end()


def _forgotten(engine: loop.Engine, link: loop.Link) -> None:
    # Runs whenever the collector does, on any thread: no locks here.
    if engine.born == guard.generation() and link in engine.links:
        engine.post(engine.abandon, link)
        warnings.warn(
            f"{link.label} was not closed; use `with`, or call close()",
            ResourceWarning,
            stacklevel=2,
        )
