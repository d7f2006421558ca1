"""Hand items from the engine to blocking callers, in one bounded queue.

Subscriptions, event queues and frame queues are this class with another name.
The engine's side (:meth:`Reader.put`, :meth:`Reader.end`) never blocks: a full
reader, in number or in bytes, drops by its policy and counts. The caller's side blocks
with a deadline, and is woken when somebody closes the reader or when its source ends.

There is no lock: signal handlers and finalizers may take, put and close. Putting wakes
somebody only if somebody sleeps: once per burst. A caller that finds nothing announces itself
in ``_sleepers``, looks once more, and sleeps on a lock of its own; so either it sees the item,
or whoever puts it sees the sleeper. Taking and dropping are single operations of the ``deque``;
where two lines must not be parted, there is no call between them, so that no other thread gets
its turn.
"""

from __future__ import annotations

import math
import queue
import threading
from collections import deque
from collections.abc import Collection, Iterator
from typing import Any, Generic, Literal, NoReturn, TypeVar

from metered_sync.bridge import guard
from metered_sync.bridge.deadline import Deadline, longest_wait
from metered_sync.errors import ClosedError, MeteredTimeoutError, fresh
from metered_sync.wire.arguments import check_choice, check_whole

__all__ = ["MAX_BYTES", "Overflow", "Reader", "check_no_block"]

T_co = TypeVar("T_co", covariant=True)
Self = TypeVar("Self", bound="Reader[Any]")
Overflow = Literal["drop_oldest", "drop_newest"]

MAX_BYTES = 16 << 20
"""Bytes that a reader of messages holds by default. (What JSON text becomes takes up to 23 times
its length: two bytes of it can be a list.)"""


def check_no_block(timeout: object, more: tuple[object, ...], block: object) -> None:
    """Say what to do instead of what ``queue.Queue.get`` takes: ``block``, alone or first."""
    if block is None and not more and timeout is not True and timeout is not False:
        return
    remedy = "get() waits, get(timeout=5) at most so long, and get_nowait() not at all"
    if more:
        raise TypeError(f"get() takes one argument, its timeout in seconds: {remedy}")
    if block is not None:
        raise TypeError(f"get() has no argument 'block': {remedy}")
    raise ValueError(f"get(): timeout must be a number of seconds or None, not a bool: {remedy}")


class Reader(guard.LiveObject, Generic[T_co]):
    """Read from a bounded queue, by ``get()`` or by iterating.

    Safe to use from many threads at once; each item goes to one of them.
    """

    def __init__(
        self,
        label: str,
        *,
        maxsize: int = 4096,
        max_bytes: int = MAX_BYTES,
        overflow: Overflow = "drop_oldest",
    ) -> None:
        check_choice("overflow", overflow, ("drop_oldest", "drop_newest"))
        self._label = label
        self._maxsize = check_whole("maxsize", maxsize, 1)
        self._max_bytes = check_whole("max_bytes", max_bytes, 1)
        self._overflow = overflow
        self._items: deque[T_co] = deque()
        self._sleepers: deque[Any] = deque()  # locks, held by those who sleep on them
        self._came = 0  # bytes: of the one thread that puts what has a size
        self._went = 0  # bytes: taken or dropped
        self._dropped = 0
        self._kept = 0  # how many of the oldest items are known not to be droppable
        self._ended = False
        self._error: BaseException | None = None
        self._born = guard.generation()
        self.idle_since: float | None = None
        """When a reader that is kept between two calls was last in use; else ``None``."""

    def __repr__(self) -> str:
        state = "closed" if self._ended else "open"
        return f"<{self._label}: {state}, {len(self._items)} queued, {self._dropped} dropped>"

    # --- the caller's side ---

    @property
    def dropped(self) -> int:
        """How many items were dropped because this reader was full."""
        return self._dropped

    def __len__(self) -> int:
        return len(self._items)

    def get(self, timeout: float | None = None, *more: NoReturn, block: None = None) -> T_co:
        """Wait for the next item and return it.

        Args:
            timeout: Seconds to wait; ``None`` waits for data, close or Ctrl-C; 0 polls.
            more: As ``block``: there is no such argument; the error says what to do instead.
            block: Likewise.

        Raises:
            MeteredTimeoutError: Nothing came in time.
            ClosedError: Closed, and everything queued has been read.
            MeteredError: The source ended with this error (for instance
                :class:`~metered_sync.DisconnectedError`), and everything queued has been read.
        """
        check_no_block(timeout, more, block)
        deadline = Deadline.of(timeout)
        guard.check_blocking(self._born, self._label)
        while True:
            if self._items:
                try:
                    return self._take()
                except IndexError:  # another thread was quicker
                    continue
            if self._ended and not self._items:
                raise self._end_error()
            if deadline.left() == 0:
                raise MeteredTimeoutError(f"{self._label}: nothing arrived within {deadline}")
            self._sleep(deadline)

    def wait(self) -> None:
        """Wait until :meth:`get` need not, and take nothing; for a reader with one caller."""
        while not self._items and not self._ended:
            self._sleep(Deadline(math.inf))

    def _sleep(self, deadline: Deadline) -> None:
        """Wait until something is put, the reader ends or the deadline passes."""
        bed = threading.Lock()
        bed.acquire()
        try:
            self._sleepers.append(bed)
            while not self._items and not self._ended:
                left, longest = deadline.left(), longest_wait()
                if bed.acquire(timeout=min(left, longest)) or left <= longest:
                    break
        finally:
            try:
                self._sleepers.remove(bed)
            except ValueError:  # woken
                pass
            # Who was woken may take nothing (Ctrl-C), or may not have needed it.
            if self._sleepers and (self._items or self._ended):
                self._wake()

    def _wake(self) -> None:
        """Wake one sleeper, if there is one: the latest, for it may be a signal handler's.

        Then the one before is what it has interrupted, and could not take anything.
        """
        for bed in reversed(self._sleepers.copy()):
            # (In this order Ctrl-C in between costs a call too many, not one too few.)
            try:
                bed.release()
                woken = True
            except RuntimeError:  # by another thread, just now
                woken = False
            try:
                self._sleepers.remove(bed)
            except ValueError:
                pass
            if woken:
                return

    def get_nowait(self) -> T_co:
        """Return the next item if there is one.

        Raises:
            queue.Empty: There is none now.
            ClosedError: There is none, and there will be none; or the error of :meth:`get`.
        """
        guard.check_process(self._born, self._label)
        try:
            return self._take()
        except IndexError:
            pass
        if self._ended and not self._items:
            raise self._end_error()
        raise queue.Empty

    def __iter__(self) -> Iterator[T_co]:
        return self

    def __next__(self) -> T_co:
        if self._items and self._born == guard.generation():  # the usual case, quickly
            try:
                return self._take()
            except IndexError:  # another thread was quicker
                pass
        try:
            return self.get()
        except ClosedError:
            raise StopIteration from None

    def close(self) -> None:
        """Stop receiving. What is queued can still be read; blocked readers wake."""
        guard.check_process(self._born, self._label)
        self.end()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- the engine's side: any thread, never blocks ---

    # (A reader of messages is a reader of events to its users, who put nothing into it.)

    def put(self, item: T_co) -> None:  # type: ignore[misc]
        """Queue an item; a full reader drops what it must, and counts it."""
        if self._ended:
            return
        size = self._size(item)
        while self._is_full(size):
            left = len(self._items)
            if not self._make_room(item):
                return
            if len(self._items) == left:  # nothing there may be dropped
                break
        self._came += size
        try:
            self._items.append(item)
        finally:
            if self._sleepers:
                self._wake()

    def put_all(self, items: Collection[T_co]) -> None:
        """Queue items as :meth:`put` does, in their order, with one wake-up for all of them."""
        size = sum(map(self._size, items))
        fits = self._came - self._went + size <= self._max_bytes
        if not fits or len(self._items) + len(items) > self._maxsize or self._ended:
            for item in items:
                self.put(item)
            return
        self._came += size
        try:
            self._items.extend(items)
        finally:
            if self._sleepers:
                self._wake()

    def discard(self) -> None:
        """Drop what is queued, and count it: it has become too old to be of use."""
        while self._items:
            try:
                self._take()
            except IndexError:  # another thread was quicker
                return
            self._dropped += 1

    def end(self, error: BaseException | None = None) -> None:
        """Accept no more items: readers drain and then get ``error``, or ``ClosedError``."""
        if not self._ended:
            self._error = error
            self._ended = True
        while self._sleepers:  # the second time, too, where Ctrl-C has ended the first
            self._wake()

    @property
    def ended(self) -> bool:
        """Whether nothing more will be queued."""
        return self._ended

    def _droppable(self, item: T_co) -> bool:  # type: ignore[misc]
        return True

    def _size(self, item: T_co) -> int:  # type: ignore[misc]
        """Return how much an item counts of what may wait in bytes."""
        return 0

    def _is_full(self, size: int) -> bool:
        """Whether an item of this size is too much; one is not, however large."""
        if len(self._items) >= self._maxsize:
            return True
        waiting = self._came - self._went
        return waiting > 0 and size > 0 and waiting + size > self._max_bytes

    def _take(self) -> T_co:
        item = self._items.popleft()
        size = self._size(item)
        self._went += size  # (no call in this line, nor another thread's turn; nor in the next two)
        if self._kept:
            self._kept -= 1
        return item

    def _make_room(self, item: T_co) -> bool:  # type: ignore[misc]
        """Drop one item of a full reader; say whether ``item`` may enter."""
        if self._overflow == "drop_newest" and self._droppable(item):
            self._dropped += 1
            return False
        while True:
            at = self._kept
            try:
                oldest = self._items[at]
                if self._droppable(oldest):
                    size = self._size(oldest)
                    if self._items[at] is oldest:  # and then this is one step
                        del self._items[at]
                        self._went += size
                        self._dropped += 1
                        return True
                elif self._kept == at:
                    self._kept = at + 1
            except IndexError:
                break
        # Nothing queued may be dropped: what must not be lost exceeds the bound instead.
        if self._droppable(item):
            self._dropped += 1
            return False
        return True

    def _end_error(self) -> BaseException:
        return (
            ClosedError(f"{self._label} is closed") if self._error is None else fresh(self._error)
        )
