"""Carry one call from a caller's thread to the event loop, and its outcome back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import anyio

from metered_sync.bridge.deadline import Latch
from metered_sync.errors import MeteredTimeoutError
from metered_sync.wire.secrets import clear_locals

__all__ = ["Crossing"]

T = TypeVar("T")


class Crossing(Generic[T]):
    """Carry one structured call: made on a caller's thread, run on the loop."""

    def __init__(self, function: Callable[..., Awaitable[T]], args: tuple[Any, ...]) -> None:
        self._function = function
        self._args = args
        self._scope: anyio.CancelScope | None = None
        self._result: T
        self._error: BaseException | None = None
        self._returned = False
        self._cancelled = False
        self.ended = Latch()

    async def run(self) -> None:
        """Run the function to its end; on the loop."""
        try:
            with anyio.CancelScope() as self._scope:
                if not self._cancelled:
                    self._result = await self._function(*self._args)
                    self._returned = True
        except Exception as error:
            clear_locals(error)
            self._error = error
        # Any other exception ends the loop, too: then _die() knows what to tell the caller.
        self.ended.set()

    def cancel(self) -> None:
        """Cancel the function; on the loop."""
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    def fail(self, error: BaseException) -> None:
        """End the wait of a call that will never finish."""
        if not self.ended.is_set:
            self._error = error
            self.ended.set()

    def outcome(self, expired: MeteredTimeoutError) -> T:
        """Return the result or raise the error; ``expired`` where there is neither."""
        # Its traceback will hold the frames that hold this call: keep no way back to it.
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
            if not self._returned:
                raise expired
            return self._result
        finally:
            del error
