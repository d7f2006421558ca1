"""Data channels on the engine: a bounded buffer on the way out, a bounded inbox on the way in.

**Out.** A caller's thread puts a message into the channel's buffer and goes on; the loop
hands it to aiortc in batches, woken once per burst. The buffer is what waits here and what
waits in aiortc, together at most ``max_buffered`` bytes. aiortc's share is kept small: it
makes a task for each message. Who finds the buffer full waits in a queue, first come first
served, until it is half empty. aiortc tells when its share runs low, but only when that
crosses the threshold; so while anything waits, the loop looks again every ``POLL`` seconds.

**In.** Messages go into a :class:`MessageInbox` from the moment at which the link is made, which
is in the very event that brings the channel: the first ones follow at once. SCTP as aiortc
has it cannot be held up by a slow reader, so the inbox drops what is oldest, and counts.

**Locks.** ``ChannelLink._lock`` guards the buffer and those who wait for it. It is held for
a few operations only, by callers and the loop; no finalizer takes it.

A channel belongs to one media connection and ends with it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty
from typing import Literal, Protocol, cast

import anyio
from aiortc import RTCDataChannel

from metered_sync.bridge.deadline import Deadline, Signal
from metered_sync.bridge.loop import Engine, EventSink, Link, current
from metered_sync.bridge.reader import Reader
from metered_sync.errors import (
    ClosedError,
    DataChannelOverflowError,
    MeteredError,
    MeteredTimeoutError,
    OversizedPayloadError,
    fresh,
)
from metered_sync.wire.data_channels import DEFAULT_CAP, measure
from metered_sync.wire.events import DCClose, DCError, DCMessage, DCOpen

__all__ = ["MAX_BUFFERED", "ChannelLink", "ChannelState"]

ChannelState = Literal["connecting", "open", "closing", "closed"]
Data = str | bytes

MAX_BUFFERED = 1 << 20
"""Bytes that a channel's buffer holds, unless it is told otherwise."""
MAX_MESSAGES = 16384
"""Messages that it holds: small ones cost more than their bytes."""
MAX_QUEUED = 256
"""Sends that may wait for the channel to open, of those that do not block."""
MAX_INBOX = 64 << 20
"""Bytes that an inbox holds."""
SHARE = 64 << 10
"""Bytes up to which aiortc's own buffer is filled."""
BATCH = 64
"""Messages handed on before the loop does something else."""
POLL = 0.1
"""Seconds between two looks at whether there is room again."""
FAREWELL = 1.0
"""Seconds for which a closed channel waits for the far side to confirm."""
OPENING = 50
"""The protocol that opens channels, as SCTP marks it (RFC 8832, section 8.1)."""
CLOSE_POLL = 0.005
"""Seconds between two looks of a channel that is being closed."""
ADOPT = 15.0
"""Seconds for which somebody who wraps a channel waits for the loop."""


class ChannelSink(EventSink, Protocol):
    """Where a channel's events go."""

    @property
    def takes_messages(self) -> bool:
        """Whether messages are taken from here, so that the inbox need not keep them."""


class MessageInbox(Reader[Data]):
    """A channel's messages, bounded in number and in bytes; drops the oldest."""

    # Bytes that have come (touched on the loop only), and gone (with the lock held).
    _come = 0
    _gone = 0

    def put(self, item: Data) -> None:
        """Queue a message."""
        if self._come + len(item) - self._gone > MAX_INBOX:
            with self._lock:
                while self._items and self._come + len(item) - self._gone > MAX_INBOX:
                    self._make_room(item)
        if not self.ended:
            self._come += len(item)
            super().put(item)

    def _take(self) -> Data:
        item = super()._take()
        self._gone += len(item)
        return item

    def _make_room(self, item: Data) -> bool:
        self._take()
        self._dropped += 1
        return True


class _Waiting:
    """A message that is not in the buffer yet."""

    __slots__ = ("blocking", "data", "ended", "error", "size")

    def __init__(self, data: Data, size: int, *, blocking: bool) -> None:
        self.data = data
        self.size = size
        self.blocking = blocking
        """Whether a thread waits for it, and is to be told of an error."""
        self.error: MeteredError | None = None
        self.ended = Signal()

    def finish(self, error: MeteredError | None = None) -> None:
        """Release whoever waits."""
        self.error = error
        self.ended.set()


class ChannelLink(Link):
    """One data channel."""

    def __init__(
        self,
        raw: RTCDataChannel,
        engine: Engine,
        *,
        max_buffered: int = MAX_BUFFERED,
        maxsize: int = 4096,
    ) -> None:
        """Take over ``raw``: on the loop, and in the event that brings it.

        Raises:
            ValueError: The channel belongs to another event loop than the engine's.
        """
        if getattr(raw.transport, "_loop", engine._loop) is not engine._loop:
            raise ValueError(
                f"the data channel {raw.label!r} was made on an event loop of your own; "
                "only channels of this library's connections can be used here"
            )
        if isinstance(max_buffered, bool) or not isinstance(max_buffered, int) or max_buffered < 1:
            raise ValueError(f"max_buffered must be a positive whole number, not {max_buffered!r}")
        self.raw = raw
        self.engine = engine
        self.name = raw.label
        self.label = f"DataChannel {raw.label!r}"
        self.inbox = MessageInbox(self.label, maxsize=maxsize)
        self.max_buffered = max_buffered
        self.cap = 0
        """The largest message that the far side takes, in bytes; 0: any, or not known yet."""
        self.opened = Signal()
        """Set once it is open, or will never be."""
        self.error: BaseException | None = None
        """What ended it."""
        self._lost = 0  # what was undelivered when it ended
        self._sink: ChannelSink | None = None
        self._lock = threading.Lock()
        self._queue: deque[tuple[Data, int]] = deque()
        self._queued = 0
        self._waiting: deque[_Waiting] = deque()
        self._woken = False
        self._closing = False
        self._timer: asyncio.TimerHandle | None = None
        self._share = min(SHARE, max_buffered)
        raw.bufferedAmountLowThreshold = self._share // 2
        self._handlers: dict[str, Callable[..., None]] = {
            "open": self._on_open,
            "message": self._on_message,
            "bufferedamountlow": self._flush,
            "close": self._on_close,
            "error": self._on_error,
        }
        for event, handler in self._handlers.items():
            raw.on(event, handler)
        engine.links.add(self)
        if raw.readyState == "open":
            self._opened()
        self._poll()

    @classmethod
    def adopt(cls, raw: RTCDataChannel, **options: int) -> ChannelLink:
        """Make a link on the engine's loop, from there or from any other thread.

        Messages are lost that come before: so best there, right after the channel was made.
        """
        engine = current()

        async def make() -> ChannelLink:
            return cls(raw, engine, **options)

        if threading.current_thread() is engine._thread:
            return cls(raw, engine, **options)
        what = f"wrapping the data channel {raw.label!r}"
        return engine.call(make, deadline=Deadline(ADOPT), what=what)

    def __repr__(self) -> str:
        return f"<{self.label}: {self.state}>"

    # --- any thread ---

    @property
    def state(self) -> ChannelState:
        """How far it is."""
        if self.error is not None:
            return "closed"
        state = self.raw.readyState
        return "closing" if self._closing and state != "closed" else cast(ChannelState, state)

    @property
    def buffered(self) -> int:
        """Bytes that have been taken over and that aiortc has not sent yet."""
        return self._buffered() + self._early()

    @property
    def undelivered(self) -> int:
        """Bytes that the far side has not acknowledged, or had not when the channel ended."""
        return self._unacknowledged() if self.error is None else self._lost

    def listen(self, sink: ChannelSink) -> None:
        """Tell a sink of events from now on."""
        self._sink = sink
        if self.error is not None:  # perhaps just now, without having seen it
            sink.end(self.error)

    def send(self, data: Data, deadline: Deadline) -> None:
        """Put a message into the buffer; wait until there is room in it."""
        size = measure(data)
        with self._lock:
            if self._enter(data, size):
                return
            waiting = _Waiting(data, size, blocking=True)
            self._wait(waiting)
        try:
            ended = waiting.ended.wait(deadline)
        except BaseException:  # Ctrl-C
            self._forget(waiting)
            raise
        if not ended and self._forget(waiting):
            raise MeteredTimeoutError(f"{self.label}: send: {self._obstacle()} within {deadline}")
        if waiting.error is not None:
            raise waiting.error

    def send_nowait(self, data: Data) -> None:
        """Put a message into the buffer, or into the queue of a channel that is not open yet."""
        size = measure(data)
        with self._lock:
            connecting = not self.opened.is_set
            if self._enter(data, size):
                return
            if not connecting:
                raise self._overflow("bytes are in the buffer", self._buffered(), self.max_buffered)
            early, queued = self._early(), len(self._waiting)
            if queued >= MAX_QUEUED:
                raise self._overflow("sends wait for it to open", queued, MAX_QUEUED)
            if early and early + size > self.max_buffered:
                raise self._overflow("bytes wait for it to open", early, self.max_buffered)
            self._wait(_Waiting(data, size, blocking=False))

    def _overflow(self, what: str, queued: int, cap: int) -> DataChannelOverflowError:
        return DataChannelOverflowError(
            f"{self.label}: send_nowait: {queued} of {cap} {what}; use send(), which waits",
            queued=queued,
            cap=cap,
        )

    def _oversized(self, size: int) -> OversizedPayloadError:
        return OversizedPayloadError(
            f"{self.label}: send: the message has {size} bytes, and the far side takes at most "
            f"{self.cap}; nothing was sent: split it",
            size=size,
            cap=self.cap,
        )

    def _obstacle(self) -> str:
        """Say what a send waited for in vain."""
        if not self.opened.is_set:
            return "the channel did not open"
        return f"no room in the buffer ({self.buffered} of {self.max_buffered} bytes are taken)"

    def _forget(self, waiting: _Waiting) -> bool:
        """Give up on a message; false for one that has been dealt with."""
        with self._lock:
            try:
                self._waiting.remove(waiting)
            except ValueError:
                return False
            self._wake()  # those behind it may have room
            return True

    def _buffered(self) -> int:
        return self._queued + self.raw.bufferedAmount

    def _early(self) -> int:
        """Bytes of messages that wait for the channel to open, and for nothing else."""
        return sum(w.size for w in tuple(self._waiting) if not w.blocking)

    def _unacknowledged(self) -> int:
        """Bytes that the far side has not acknowledged.

        Up to aiortc 1.15 a channel that is closed loses those. (Both queues are private: where
        they are missing, only what is in the buffer counts.)
        """
        stream, sctp = self.raw.id, self.raw.transport
        queues = (getattr(sctp, name, ()) for name in ("_outbound_queue", "_sent_queue"))
        chunks = (chunk for queue in queues for chunk in tuple(queue))
        mine = (c for c in chunks if c.stream_id == stream and c.protocol != OPENING)
        return self.buffered + sum(len(chunk.user_data) for chunk in mine)

    # --- with the lock held ---

    def _fits(self, size: int) -> bool:
        """Whether there is room; a message larger than the buffer only needs it empty."""
        buffered = self._buffered()
        if buffered + size > self.max_buffered and buffered > self._share // 2:
            return False
        return len(self._queue) < MAX_MESSAGES

    def _enter(self, data: Data, size: int) -> bool:
        """Put a message into the buffer if it may go there now."""
        if self.error is not None:
            raise fresh(self.error)
        state = self.raw.readyState
        if self._closing or state in ("closing", "closed"):
            raise self._closed()
        if not self.opened.is_set:
            return False
        if 0 < self.cap < size:
            raise self._oversized(size)
        if self._waiting or not self._fits(size):
            return False
        self._take(data, size)
        self._wake()
        return True

    def _take(self, data: Data, size: int) -> None:
        self._queue.append((data, size))
        self._queued += size

    def _wait(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        self._wake()

    def _wake(self) -> None:
        """Have the loop look at the buffer, unless it will anyway."""
        if not self._woken:
            # In this order Ctrl-C in between costs a call too many, not one too few.
            self.engine.post(self._flush)
            self._woken = True

    def _admit(self) -> list[MeteredError]:
        """Let those in who wait, once half of the buffer is free; return what nobody is told."""
        errors: list[MeteredError] = []
        free = self._buffered() <= self.max_buffered // 2
        while free and self._waiting:
            first = self._waiting[0]
            error = self._oversized(first.size) if 0 < self.cap < first.size else None
            if error is None:
                if not self._fits(first.size):
                    break
                self._take(first.data, first.size)
            elif not first.blocking:
                errors.append(error)
            self._waiting.popleft().finish(error)
        return errors

    # --- on the loop ---

    def lose(self, why: str) -> None:
        """End at once: the connection under the channel is gone."""
        self._finish(ClosedError(f"{self.label} has ended: {why}"))

    def hand_over(self) -> None:
        """Give what the inbox holds to callbacks that have been registered meanwhile."""
        sink = self._sink
        try:
            while sink is not None and sink.takes_messages:
                sink.emit(DCMessage(self.inbox.get_nowait()))
        except (Empty, MeteredError):
            pass

    async def aclose(self) -> None:
        """Send what is in the buffer, then close. Who waits for room gets an error at once."""
        if self.error is not None:
            return
        with self._lock:
            self._closing = True
            blocked = [w for w in self._waiting if w.blocking]
            self._waiting = deque(w for w in self._waiting if not w.blocking)
        for waiting in blocked:
            waiting.finish(self._closed())
        self.inbox.end()
        try:
            while self.error is None and not self._drained():
                await anyio.sleep(CLOSE_POLL)
            self.raw.close()
            with anyio.move_on_after(FAREWELL):
                while self.error is None:
                    await anyio.sleep(CLOSE_POLL)
        finally:
            self.cut()

    def cut(self) -> None:
        """Close at once; what is in the buffer is lost."""
        if self.error is None:
            self.raw.close()
            self._finish(self._closed())

    def abort(self, error: BaseException) -> None:
        """End at once; see :class:`Link`."""
        self._finish(error)

    def _drained(self) -> bool:
        """Whether all that was taken over has arrived, as far as that can be told."""
        state = self.raw.readyState
        if self._waiting and state == "connecting":
            return False
        if state != "open":
            return True
        return not self._queue and not self._waiting and not self._unacknowledged()

    def _closed(self) -> ClosedError:
        return ClosedError(f"{self.label} is closed")

    def _opened(self) -> None:
        if self.error is None and not self.opened.is_set:
            # (Up to aiortc 1.15 only the local limit is known; it is the default, too.)
            cap = getattr(self.raw.transport, "_remote_max_message_size", DEFAULT_CAP)
            self.cap = cap if isinstance(cap, int) else DEFAULT_CAP
            self.opened.set()

    def _on_open(self) -> None:
        self._opened()
        if self._sink is not None:
            self._sink.emit(DCOpen())
        self._flush()

    def _on_message(self, data: Data) -> None:
        if self._closing:
            return
        sink = self._sink
        if sink is not None and sink.takes_messages:
            self.hand_over()  # in order
            sink.emit(DCMessage(data))
            return
        self.inbox.put(data)
        if sink is not None:
            sink.emit(DCMessage(data))

    def _on_error(self, error: object) -> None:
        self._report(MeteredError(f"{self.label}: {error!r}"))

    def _on_close(self) -> None:
        if self._closing:
            self._finish(self._closed())
        else:
            self.lose("the far side closed it, or the connection was lost")

    def _report(self, error: MeteredError) -> None:
        if self._sink is not None:
            self._sink.emit(DCError(error))

    def _flush(self) -> None:
        """Hand messages to aiortc as far as it should hold them, and let in who waits."""
        errors: list[MeteredError] = []
        raw, count, size = self.raw, 0, 0
        if self.error is None and raw.readyState == "open":
            while self._queue and count < BATCH and raw.bufferedAmount < self._share:
                data, bytes_ = self._queue.popleft()
                count, size = count + 1, size + bytes_
                try:
                    raw.send(data)
                except Exception as cause:
                    errors.append(MeteredError(f"{self.label}: a message was lost: {cause!r}"))
            with self._lock:
                self._queued -= size
                errors += self._admit()
                self._woken = bool(self._queue)
            if self._woken and raw.bufferedAmount < self._share:
                asyncio.get_running_loop().call_soon(self._flush)
        else:
            with self._lock:
                self._woken = False
        for error in errors:
            self._report(error)
        self._watch()

    def _watch(self) -> None:
        """Look again soon, while there is anything to wait for."""
        needed = self._queue or self._waiting or not self.opened.is_set
        if needed and self._timer is None and self.error is None:
            self._timer = asyncio.get_running_loop().call_later(POLL, self._poll)

    def _poll(self) -> None:
        self._timer = None
        if self.raw.readyState == "closed" or self.raw.transport.state == "closed":
            # (A channel that its connection never announced is not told of the end.)
            self._on_close()
        else:
            self._flush()

    def _finish(self, error: BaseException) -> None:
        """End: readers drain, everybody else who waits gets ``error``."""
        with self._lock:
            if self.error is not None:
                return
            self._lost = self._unacknowledged()
            waiting, self._waiting = self._waiting, deque()
            self.error = error
            self._queue.clear()
            self._queued = 0
        self.engine.links.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        for event, handler in self._handlers.items():
            if handler in self.raw.listeners(event):
                self.raw.remove_listener(event, handler)
        self.opened.set()
        for each in waiting:
            each.finish(error if isinstance(error, MeteredError) else self._closed())
        self.inbox.end(error)
        if self._sink is not None:
            self._sink.emit(DCClose())
            self._sink.end(error)
