"""Define the engine's side of an object that stays open between calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol

import anyio

from metered_sync.bridge.process import TOO_LATE, is_exiting
from metered_sync.errors import ClosedError, raise_fresh
from metered_sync.wire.events import Event

__all__ = ["EventSink", "Link", "MessageSink", "Scope", "within"]


class EventSink(Protocol):
    """Take the engine's events (:class:`metered_sync.bridge.event_hub.EventHub` does)."""

    def emit(self, event: Event) -> None:
        """Take an event without blocking."""

    def end(self, error: BaseException | None = None) -> None:
        """Take note that there will be no more events."""


class MessageSink(EventSink, Protocol):
    """Take the events of a connection to the messaging service."""

    def wants(self, event: Event) -> bool:
        """Say whether a user will be handed this event, who may change the data in it."""


class Scope:
    """Run a block, once, and cancel it; before it has begun, too.

    It may be made where no task runs, unlike anyio's own.
    """

    def __init__(self) -> None:
        self._scope: anyio.CancelScope | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """Cancel the block, now or as soon as it begins."""
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    def __enter__(self) -> None:
        self._scope = anyio.CancelScope()
        self._scope.__enter__()
        if self._cancelled:
            self._scope.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        assert self._scope is not None
        return bool(self._scope.__exit__(kind, error, traceback))


def within(
    scopes: set[Scope], function: Callable[[], Awaitable[None]]
) -> Callable[[], Coroutine[Any, Any, None]]:
    """Return a coroutine function that runs another one in a scope of its own.

    The scope is among ``scopes`` from now on, until the function has ended: what it belongs to may
    end before the task begins.
    """
    scope = Scope()
    scopes.add(scope)

    async def run() -> None:
        try:
            with scope:
                await function()
        finally:
            scopes.discard(scope)

    return run


class Link:
    """Keep something open on the engine. Its methods run on the loop thread."""

    label = "link"
    error: BaseException | None = None
    """The error that has ended it, once it has ended."""
    _opening: anyio.Lock | None = None

    def closed(self) -> ClosedError:
        """Return the error that closing it now ends it with."""
        if is_exiting():
            return ClosedError(f"{self.label} is closed: {TOO_LATE}")
        return ClosedError(f"{self.label} is closed; make a new one")

    def check(self) -> None:
        """Raise the error that has ended it, if it has ended; from any thread."""
        raise_fresh(self.error)

    def opening(self) -> anyio.Lock:
        """Return the lock to hold while opening: a second caller waits, and finds it open."""
        if self._opening is None:
            self._opening = anyio.Lock()
        return self._opening

    async def aclose(self) -> None:
        """Close in good order. Must be repeatable."""
        raise NotImplementedError

    def abort(self, error: BaseException) -> None:
        """Wake every waiter with ``error``: there is no loop any more to close on."""
        raise NotImplementedError
