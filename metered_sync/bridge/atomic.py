"""Change what several threads share without taking a lock.

A signal handler runs in the middle of whatever its thread does, and so does a finalizer that the
collector calls. If that is a call of ours which holds a lock, and the handler calls us too, it
would wait for itself for ever; and if it waits for the loop, which waits for the lock, for just as
long. So what callers and the loop share is replaced as a whole, with :meth:`Atomic.swap`, or is
changed by single operations of built-in types.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Atomic", "WeakAtomic"]

T = TypeVar("T")


class Atomic(Generic[T]):
    """A value that is never changed, only replaced by another, from any thread."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def swap(self, change: Callable[[T], T]) -> T:
        """Replace the value by what ``change`` makes of it; return the one before.

        ``change`` is called again where another thread, or what has interrupted this one, was
        quicker: it must do nothing but make a value. What it raises leaves the value as it was.
        """
        while True:
            before = self.value
            after = change(before)
            # Nothing comes in between: signals, other threads and the collector get their turn
            # at calls and at jumps backwards only. And `before` is freed later, by the caller.
            if self.value is before:
                self.value = after
                return before


class WeakAtomic(Generic[T]):
    """The one object of a kind, held weakly: made when it is asked for."""

    __slots__ = ("_ref",)

    def __init__(self) -> None:
        self._ref: Atomic[Callable[[], T | None]] = Atomic(lambda: None)

    def __call__(self) -> T | None:
        """Return the object, if there is one."""
        return self._ref.value()

    def get(self, make: Callable[[], T]) -> T:
        """Return the object, made if need be."""
        known = self()
        if known is not None:
            return known
        made = make()
        ref: Callable[[], T | None] = weakref.ref(made)
        self._ref.swap(lambda there: ref if there() is None else there)
        known = self()
        return made if known is None else known
