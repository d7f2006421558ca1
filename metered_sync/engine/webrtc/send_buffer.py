"""Buffer the messages of a channel on their way out: bounded, and first come, first served.

Callers on any thread put messages in; the loop takes them out, and hands them to what sends
them. That has a buffer of its own, whose bytes count as well (``below``): together they are at
most ``max_bytes``. Who finds the buffer full waits in a queue until it is half empty, as does
who comes before the channel is open.

There is no lock, so that signal handlers and finalizers may send. Callers put at the end and take
back what is theirs; the loop takes from the front. Whoever takes something out has it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from metered_sync.bridge.deadline import Deadline, Latch
from metered_sync.errors import (
    ClosedError,
    DataChannelOverflowError,
    MeteredError,
    MeteredTimeoutError,
    OversizedPayloadError,
    raise_fresh,
)
from metered_sync.wire.data_channels import measure

__all__ = ["Message", "SendBuffer"]

Message = str | bytes

MAX_MESSAGES = 16384
"""Messages that a buffer holds: small ones cost more than their bytes."""
MAX_EARLY_SENDS = 256
"""Sends that may wait for the channel to open, of those that do not block."""


class _Waiting:
    """A message that is not in the buffer yet."""

    __slots__ = ("blocking", "ended", "error", "message", "size")

    def __init__(self, message: Message, size: int, *, blocking: bool) -> None:
        self.message = message
        self.size = size
        self.blocking = blocking
        """Whether a thread waits for it, and is to be told of an error."""
        self.error: MeteredError | None = None
        self.ended = Latch()

    def finish(self, error: MeteredError | None = None) -> None:
        """Release the thread that waits."""
        self.error = error
        self.ended.set()


class SendBuffer:
    """The messages of a channel that have not been handed on yet."""

    def __init__(
        self,
        label: str,
        max_bytes: int,
        *,
        low: int,
        below: Callable[[], int],
        wake: Callable[[], None],
    ) -> None:
        """Make an empty buffer of a channel that is not open yet.

        Args:
            label: The channel's name in errors.
            max_bytes: Bytes that wait at most, here and below.
            low: With so many bytes or fewer the buffer counts as empty for a message that is
                larger than all of it.
            below: Returns the bytes that have been handed on and are not sent yet.
            wake: Has the loop call :meth:`take` and :meth:`end_turn` soon; called on any thread,
                once per burst.
        """
        self.max_bytes = max_bytes
        self.cap = 0
        """The largest message that the far side takes, in bytes; 0: any, or not known yet."""
        self._label = label
        self._low = low
        self._below = below
        self._wake_loop = wake
        self._messages: deque[tuple[Message, int]] = deque()
        self._bytes = 0
        """Bytes of the messages here, and of those taken in this turn."""
        self._taken = 0
        """Bytes taken in this turn."""
        self._waiting: deque[_Waiting] = deque()
        self._asleep: object | None = object()
        """Where the loop will not look here by itself: an object, another one each time."""
        self._open = False
        self._refusing = False
        self._error: BaseException | None = None

    # --- any thread ---

    @property
    def bytes(self) -> int:
        """Bytes that wait to be sent, here or below."""
        return self._buffered() + self._early()

    @property
    def waiting(self) -> int:
        """How many messages wait for room, or for the channel to open."""
        return len(self._waiting)

    @property
    def has_messages(self) -> bool:
        """Whether there is a message to take."""
        return bool(self._messages)

    @property
    def is_empty(self) -> bool:
        """Whether there is no message here, and none that waits."""
        return not self._messages and not self._waiting

    def send(self, message: Message, deadline: Deadline) -> None:
        """Put a message in; wait until there is room."""
        size = measure(message)
        if self._enter(message, size):
            return
        waiting = _Waiting(message, size, blocking=True)
        self._wait(waiting)
        try:
            ended = waiting.ended.wait(deadline)
        except BaseException:  # Ctrl-C
            self._forget(waiting)
            raise
        if not ended and self._forget(waiting):
            raise MeteredTimeoutError(f"{self._label}: send: {self._obstacle()} within {deadline}")
        if waiting.error is not None:
            raise waiting.error

    def send_nowait(self, message: Message) -> None:
        """Put a message in, or into the queue of a channel that is not open yet."""
        size = measure(message)
        connecting = not self._open
        if self._enter(message, size):
            return
        if not connecting:
            raise self._overflow("bytes are in the buffer", self._buffered(), self.max_bytes)
        early, queued = self._early(), len(self._waiting)
        if queued >= MAX_EARLY_SENDS:
            raise self._overflow("sends wait for it to open", queued, MAX_EARLY_SENDS)
        if early and early + size > self.max_bytes:
            raise self._overflow("bytes wait for it to open", early, self.max_bytes)
        self._wait(_Waiting(message, size, blocking=False))

    def _overflow(self, what: str, queued: int, cap: int) -> DataChannelOverflowError:
        return DataChannelOverflowError(
            f"{self._label}: send_nowait: {queued} of {cap} {what}; use send(), which waits",
            queued=queued,
            cap=cap,
        )

    def _oversized(self, size: int) -> OversizedPayloadError:
        return OversizedPayloadError(
            f"{self._label}: send: the message has {size} bytes, and the far side takes at most "
            f"{self.cap}; nothing was sent: split it",
            size=size,
            cap=self.cap,
        )

    def _closed(self) -> ClosedError:
        return ClosedError(f"{self._label} is closed")

    def _obstacle(self) -> str:
        """Name the reason for which a send waited in vain."""
        if not self._open:
            return "the channel did not open"
        return f"no room in the buffer ({self.bytes} of {self.max_bytes} bytes are taken)"

    def _forget(self, waiting: _Waiting) -> bool:
        """Give up on a message; false for one that has been dealt with."""
        if not self._remove(waiting):
            return False
        self._wake()  # those behind it may have room
        return True

    def _buffered(self) -> int:
        return self._bytes + self._below()

    def _early(self) -> int:
        """Return the bytes of messages that wait for the channel to open, and for nothing else."""
        return sum(waiting.size for waiting in self._waiting.copy() if not waiting.blocking)

    def _fits(self, size: int) -> bool:
        """Say whether there is room; a message larger than the buffer needs an empty one."""
        buffered = self._buffered()
        if buffered + size > self.max_bytes and buffered > self._low:
            return False
        return len(self._messages) < MAX_MESSAGES

    def _enter(self, message: Message, size: int) -> bool:
        """Put a message in if there is room for it now."""
        self._check()
        if not self._open:
            return False
        if 0 < self.cap < size:
            raise self._oversized(size)
        if self._waiting or not self._fits(size):
            return False
        entry = (message, size)
        # (No call in between: these two lines are one step.)
        self._bytes += size
        self._messages.append(entry)
        if self._error is not None or self._refusing:  # perhaps just now, and it was not seen here
            try:
                self._messages.remove(entry)
            except ValueError:  # it has been sent, or was dropped
                pass
            else:
                self._bytes -= size
            self._check()
        self._wake()
        return True

    def _check(self) -> None:
        """Raise if no message can be put in any more."""
        raise_fresh(self._error)
        if self._refusing:
            raise self._closed()

    def _put(self, message: Message, size: int) -> None:
        self._bytes += size
        self._messages.append((message, size))

    def _wait(self, waiting: _Waiting) -> None:
        """Have a message wait for its turn."""
        self._waiting.append(waiting)
        if (self._error is not None or (self._refusing and waiting.blocking)) and self._forget(
            waiting
        ):
            self._check()
        self._wake()

    def _wake(self) -> None:
        """Have the loop take messages, unless it will anyway."""
        asleep = self._asleep
        if asleep is not None:
            # In this order Ctrl-C in between costs a call too many, not one too few.
            self._wake_loop()
            if self._asleep is asleep:
                self._asleep = None

    def _admit(self) -> list[MeteredError]:
        """Let waiting messages in once half of the buffer is free.

        Returns:
            Errors of messages for which no thread waits.
        """
        errors: list[MeteredError] = []
        free = self._buffered() <= self.max_bytes // 2
        while free and self._waiting:
            try:
                first = self._waiting[0]
                error = self._oversized(first.size) if 0 < self.cap < first.size else None
                if error is None and not self._fits(first.size):
                    break
                if self._waiting[0] is not first:  # given up just now
                    continue
                del self._waiting[0]
            except IndexError:
                break
            if error is None:
                self._put(first.message, first.size)
            elif not first.blocking:
                errors.append(error)
            first.finish(error)
        return errors

    # --- the loop ---

    def open(self, cap: int) -> None:
        """Let messages in from now on, of ``cap`` bytes at most (0: of any size)."""
        self.cap = cap
        self._open = True

    def take(self) -> Message | None:
        """Return the next message to hand on; ``None``: there is none now."""
        if not self._messages:
            return None
        message, size = self._messages.popleft()
        self._taken += size
        return message

    def end_turn(self, *, sending: bool) -> list[MeteredError]:
        """Let waiting messages into the room of those that were taken.

        Args:
            sending: Whether the channel sends now; where it does not, nobody is let in.

        Returns:
            Errors of messages for which no thread waits.
        """
        taken, self._taken = self._taken, 0
        self._bytes -= taken
        self._asleep = None if sending else object()
        errors = self._admit() if sending else []
        if sending and not self._messages:
            self._asleep = object()
            errors += self._admit()  # those that came meanwhile did not wake us
            if self._messages:
                self._wake()
        return errors

    def refuse(self) -> None:
        """Take no more messages. Threads that wait for room get an error at once."""
        self._refusing = True
        for waiting in self._waiting.copy():
            if waiting.blocking and self._remove(waiting):
                waiting.finish(self._closed())

    def end(self, error: BaseException) -> int:
        """Drop all messages; callers get ``error`` from now on. Returns the bytes dropped."""
        self._error = error
        dropped = self._bytes - self._taken + self._early()
        self._messages.clear()
        self._bytes = self._taken = 0
        for waiting in self._waiting.copy():
            if self._remove(waiting):
                waiting.finish(error if isinstance(error, MeteredError) else self._closed())
        return dropped

    def _remove(self, waiting: _Waiting) -> bool:
        try:
            self._waiting.remove(waiting)
        except ValueError:  # given up just now
            return False
        return True
