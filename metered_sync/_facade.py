"""Share what the blocking clients have: one link, events, connecting and closing."""

from __future__ import annotations

from typing import Generic, TypeVar

from metered_sync._observable import Observable
from metered_sync.bridge import guard
from metered_sync.bridge.event_hub import EventHub
from metered_sync.bridge.facade import Facade
from metered_sync.bridge.link import Link
from metered_sync.bridge.loop import Engine
from metered_sync.errors import ClosedError, NotConnectedError

__all__ = ["Client"]

L = TypeVar("L", bound=Link)


class Client(Facade, Observable, Generic[L]):
    """Share what clients with events have: one link, made by the first ``connect()``."""

    _url = "…"
    """The service's origin, for ``repr``; there before the arguments have been checked, too."""

    def __init__(self, label: str, timeout: float) -> None:
        super().__init__(label, timeout)
        self._hub = EventHub(label)
        self._link: L | None = None

    def _make_link(self, engine: Engine) -> L:
        raise NotImplementedError

    def _link_to_open(self) -> L:
        """Return the link, made if need be: it is one, though several threads connect at once."""
        engine = self._start()
        if self._link is None and not self._closed:
            made = self._make_link(engine)
            self._opened(made)
            if self._link is None:  # (no call between the two: they are one step)
                self._link = made
        if self._closed or self._link is None:
            raise ClosedError(f"{self._label} is closed; make a new one")
        return self._link

    def _connected(self, what: str) -> L:
        """Return the link if ``connect()`` has been called."""
        self._start()
        if self._link is not None:
            return self._link
        if self._closed:
            raise ClosedError(f"{what}: {self._label} is closed; make a new one")
        raise NotConnectedError(
            f"{what}: {self._label} is not connected; use `with`, or call connect() first"
        )

    def close(self, *, timeout: float | None = None) -> None:
        """Close the connection and wake every waiting call. Repeatable, from any thread."""
        deadline = self._deadline(timeout)
        guard.check_process(self._born, self._label)
        self._closed = True  # before the look at the link, which is made before a look at this
        if self._link is not None:
            self._close(self._link, deadline)
        else:
            self._hub.end()
            self._let_go()
