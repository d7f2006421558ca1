"""Measure deadlines, and wait by them: the one way in which this library waits.

A public call turns its ``timeout`` into a :class:`Deadline` once and hands that
to each of its steps, so that the steps share it. Every wait of a caller's
thread goes through :func:`wait`, which Ctrl-C can interrupt on every platform.
"""

from __future__ import annotations

import math
import sys
from threading import TIMEOUT_MAX, Lock, get_ident, main_thread

from metered_sync.bridge.clock import monotonic
from metered_sync.wire.arguments import plain_number

__all__ = [
    "WAIT_SLICE",
    "Deadline",
    "Latch",
    "Turnover",
    "check_timeout",
    "longest_wait",
    "wait",
]

WAIT_SLICE = 0.1 if sys.platform == "win32" else TIMEOUT_MAX
"""Seconds of the longest uninterrupted wait: Windows sees Ctrl-C only between two waits."""
MAIN_WAIT_SLICE = 0.5
"""The same on the main thread: ``_thread.interrupt_main()`` (IDLE's Ctrl-C) ends no wait."""


def check_timeout(name: str, seconds: object, wanted: str = "a number of seconds") -> float:
    """Return an argument that must be seconds to wait; ``math.inf`` means for ever.

    Raises:
        TypeError: It is no number.
        ValueError: It is negative, NaN or a ``bool``.
    """
    if type(seconds) is float and seconds >= 0:  # nearly always
        return seconds
    if isinstance(seconds, bool):
        raise ValueError(f"{name} must be {wanted}, not a bool")
    try:
        number = plain_number(seconds)
        number = None if number is None else float(number)
    except OverflowError:  # more than a float can hold: for ever
        number = math.inf if seconds > 0 else -math.inf  # type: ignore[operator]
    if number is None:
        end = " (to wait without end: math.inf)" if seconds is None else ""
        raise TypeError(f"{name} must be {wanted}, not {type(seconds).__name__}{end}")
    if math.isnan(number) or number < 0:
        raise ValueError(f"{name} must not be negative or NaN, but is {seconds}")
    return number


class Deadline:
    """Mark the moment by which something must have happened."""

    __slots__ = ("_at", "timeout")

    def __init__(self, timeout: float) -> None:
        """Start the clock: ``timeout`` is in seconds, ``math.inf`` means never."""
        self.timeout = check_timeout("timeout", timeout, "a number of seconds or None")
        self._at = monotonic() + self.timeout

    @classmethod
    def of(cls, timeout: float | None, default: float = math.inf) -> Deadline:
        """Return the deadline of a call whose ``timeout`` argument may be ``None``."""
        return cls(default if timeout is None else timeout)

    def left(self) -> float:
        """Return the seconds that are left, at least 0."""
        return max(0.0, self._at - monotonic())

    def __repr__(self) -> str:
        if not hasattr(self, "_at"):  # a crash reporter shows it half made
            return "Deadline(…)"
        return f"Deadline({self.left():.3f} of {self.timeout} s left)"

    def __str__(self) -> str:
        return f"{self.timeout:g} s"


def longest_wait() -> float:
    """Return for how many seconds this thread may wait at a time."""
    on_main = get_ident() == main_thread().ident
    return min(WAIT_SLICE, MAIN_WAIT_SLICE) if on_main else WAIT_SLICE


def wait(lock: Lock, deadline: Deadline) -> bool:
    """Acquire ``lock`` by the deadline; say whether that worked."""
    while True:
        left, longest = deadline.left(), longest_wait()
        if lock.acquire(timeout=min(left, longest)):
            return True
        if left <= longest:
            return False


class Latch:
    """Tell threads of something that happens once.

    A bare lock, released by the first :meth:`set`. ``threading.Event`` would do, but its
    ``set`` takes a lock, which a finalizer that interrupts it would wait for for ever.
    """

    __slots__ = ("_lock", "is_set")

    def __init__(self) -> None:
        self._lock = Lock()
        self._lock.acquire()
        self.is_set = False

    def set(self) -> None:
        """Wake the threads that wait. Further calls do nothing."""
        if not self.is_set:
            # (No call between the two: Ctrl-C, which comes at calls, cannot keep the second out.)
            self.is_set = True
            try:
                self._lock.release()
            except RuntimeError:  # another thread was quicker
                pass

    def wait(self, deadline: Deadline) -> bool:
        """Wait for :meth:`set`; say whether it came by the deadline."""
        is_set = self.is_set
        if is_set:
            return True
        try:
            return wait(self._lock, deadline) or self.is_set
        finally:  # after Ctrl-C, too
            if self.is_set:
                try:
                    self._lock.release()  # let the next waiter through
                except RuntimeError:
                    pass


class Turnover:
    """Tell threads that something has changed, again and again, without a lock.

    Whoever waits takes :meth:`next` first, then looks whether there is still something to wait
    for, and waits for that latch: a change in between has set it.
    """

    __slots__ = ("_latch",)

    def __init__(self) -> None:
        self._latch = Latch()

    def next(self) -> Latch:
        """Return the latch that the next change sets."""
        latch = self._latch
        if latch.is_set:
            unset = Latch()
            if self._latch is latch:  # (no call between the two: they are one step)
                self._latch = unset
        return self._latch

    def tell(self) -> None:
        """Wake all who wait for a change."""
        self._latch.set()
