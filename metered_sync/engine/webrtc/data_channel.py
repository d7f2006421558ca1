"""Carry one data channel: messages out through a bounded buffer, messages in to a bounded inbox.

**Out.** A caller's thread puts a message into the channel's
:class:`~metered_sync.engine.webrtc.send_buffer.SendBuffer` and goes on; the loop hands it to
aiortc in batches, woken once per burst. aiortc's share of the buffer is kept small: it makes a
task for each message. It tells when its share runs low, but only when that crosses the
threshold; so while anything waits, the loop looks again every ``BUFFER_POLL`` seconds.

**In.** Messages go into a :class:`MessageInbox` from the moment at which the link is made,
which is in the very event that brings the channel: the first ones follow at once. SCTP as
aiortc has it cannot be held up by a slow reader, so the inbox drops what is oldest, and counts.

A channel belongs to one media connection and ends with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from queue import Empty
from typing import Protocol, cast

import anyio
from aiortc import RTCDataChannel

from metered_sync.bridge.deadline import Deadline, Latch
from metered_sync.bridge.engines import in_use
from metered_sync.bridge.link import EventSink, Link
from metered_sync.bridge.loop import Engine, engine_here
from metered_sync.bridge.reader import Reader
from metered_sync.engine.webrtc.aiortc_private.sctp import loop_of, max_message_size, unacknowledged
from metered_sync.engine.webrtc.send_buffer import Message, SendBuffer
from metered_sync.errors import (
    ClosedError,
    MeteredError,
)
from metered_sync.wire.arguments import check_whole
from metered_sync.wire.events import sized
from metered_sync.wire.media_events import DCClose, DCError, DCMessage, DCOpen
from metered_sync.wire.states import DataChannelState

__all__ = ["MAX_BUFFERED", "ChannelLink"]

logger = logging.getLogger("metered_sync")

MAX_BUFFERED = 1 << 20
"""Bytes that the buffer of a channel holds by default."""
MAX_INBOX = 64 << 20
"""Bytes that the inbox of a channel holds."""
AIORTC_SHARE = 64 << 10
"""Bytes up to which aiortc's own buffer is filled."""
SENDS_PER_TURN = 64
"""Messages handed to aiortc before the loop does something else."""
BUFFER_POLL = 0.1
"""Seconds after which the loop looks again whether aiortc has room."""
CLOSE_TIMEOUT = 1.0
"""Seconds for which a closed channel waits for the far side to confirm."""
CLOSE_POLL = 0.005
"""Seconds after which a channel that is being closed looks again whether all has arrived."""
ADOPT_TIMEOUT = 15.0
"""Seconds for which a thread that wraps a channel waits for the loop."""


class ChannelSink(EventSink, Protocol):
    """A receiver of a channel's events."""

    @property
    def takes_messages(self) -> bool:
        """Whether messages are taken from here, so that the inbox need not keep them."""


class MessageInbox(Reader[Message]):
    """The messages that a channel received."""

    refused = 0
    """How many of the dropped messages were larger than may be."""

    def _size(self, item: Message) -> int:
        return len(item)

    @property
    def waiting(self) -> int:
        """Bytes that wait to be read."""
        return self._came - self._went

    def refuse(self) -> None:
        """Count a message that is not taken."""
        self.refused += 1
        self._dropped += 1

    def discard(self) -> None:
        """Drop what waits to be read, and count it."""
        try:
            while True:
                self._take()
                self._dropped += 1
        except IndexError:
            pass


class ChannelLink(Link):
    """The engine's side of one data channel."""

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
        if loop_of(raw) not in (None, engine._loop):
            raise ValueError(
                f"the data channel {raw.label!r} was made on an event loop of your own; "
                "only channels of this library's connections can be used here"
            )
        max_buffered = check_whole("max_buffered", max_buffered, 1)
        self.raw = raw
        self.engine = engine
        self.name = raw.label
        self.label = f"DataChannel {raw.label!r}"
        self.inbox = MessageInbox(self.label, maxsize=maxsize, max_bytes=MAX_INBOX)
        self.opened = Latch()
        """Set once the channel is open, or will never be."""
        self.error: BaseException | None = None
        """The error that ended the channel."""
        self._lost = 0  # what was undelivered when it ended
        self._sink: ChannelSink | None = None
        self._closing = False
        self._timer: asyncio.TimerHandle | None = None
        self._share = min(AIORTC_SHARE, max_buffered)
        self.buffer = SendBuffer(
            self.label,
            max_buffered,
            low=self._share // 2,
            below=lambda: raw.bufferedAmount,
            wake=lambda: engine.post(self._flush),
        )
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
        with in_use() as engine:

            async def make() -> ChannelLink:
                return cls(raw, engine, **options)

            if engine is engine_here():
                return cls(raw, engine, **options)
            what = f"wrapping the data channel {raw.label!r}"
            return engine.call(make, deadline=Deadline(ADOPT_TIMEOUT), what=what)

    def __repr__(self) -> str:
        return f"<{self.label}: {self.state}>"

    # --- any thread ---

    @property
    def state(self) -> DataChannelState:
        """The state of the channel, as users see it."""
        if self.error is not None:
            return "closed"
        state = self.raw.readyState
        return "closing" if self._closing and state != "closed" else cast(DataChannelState, state)

    @property
    def buffered(self) -> int:
        """Bytes that wait to be sent, here or in aiortc."""
        return self.buffer.bytes

    @property
    def undelivered(self) -> int:
        """Bytes that the far side has not acknowledged, or had not when the channel ended."""
        return self._unacknowledged() if self.error is None else self._lost

    def listen(self, sink: ChannelSink) -> None:
        """Tell a sink of events from now on."""
        self._sink = sink
        if self.error is not None:  # perhaps just now, without having seen it
            sink.end(self.error)

    def send(self, data: Message, deadline: Deadline) -> None:
        """Put a message into the buffer; wait until there is room in it."""
        self._check()
        self.buffer.send(data, deadline)

    def send_nowait(self, data: Message) -> None:
        """Put a message into the buffer, or into the queue of a channel that is not open yet."""
        self._check()
        self.buffer.send_nowait(data)

    def _check(self) -> None:
        """Raise where aiortc's channel is on its way to its end, and the buffer not told yet."""
        if self.error is None and self.raw.readyState in ("closing", "closed"):
            raise self._closed()

    def _unacknowledged(self) -> int:
        """Bytes that the far side has not acknowledged."""
        return self.buffer.bytes + unacknowledged(self.raw)

    # --- on the loop ---

    def lose(self, why: str) -> None:
        """End at once: the connection under the channel is gone."""
        self._finish(ClosedError(f"{self.label} has ended: {why}"))

    def hand_over(self) -> None:
        """Give the messages of the inbox to callbacks that have been registered meanwhile."""
        sink = self._sink
        try:
            while sink is not None and sink.takes_messages:
                sink.emit(_event(self.inbox.get_nowait()))
        except (Empty, MeteredError):
            pass

    async def aclose(self) -> None:
        """Send the messages in the buffer, then close. Threads that wait for room get an error."""
        if self.error is not None:
            return
        self._closing = True
        self.buffer.refuse()
        self.inbox.end()
        try:
            while self.error is None and not self._drained():
                await anyio.sleep(CLOSE_POLL)
            self.raw.close()
            with anyio.move_on_after(CLOSE_TIMEOUT):
                while self.error is None:
                    await anyio.sleep(CLOSE_POLL)
        finally:
            self.cut()

    def cut(self) -> None:
        """Close at once; messages in the buffer are lost."""
        if self.error is None:
            self.raw.close()
            self._finish(self._closed())

    def abort(self, error: BaseException) -> None:
        """End at once; see :class:`Link`."""
        self._finish(error)

    def _drained(self) -> bool:
        """Say whether all messages have arrived, as far as that can be told."""
        state = self.raw.readyState
        if self.buffer.waiting and state == "connecting":
            return False
        if state != "open":
            return True
        return self.buffer.is_empty and not self._unacknowledged()

    def _closed(self) -> ClosedError:
        return ClosedError(f"{self.label} is closed")

    def _opened(self) -> None:
        if self.error is None and not self.opened.is_set:
            self.buffer.open(max_message_size(self.raw))
            self.opened.set()

    def _on_open(self) -> None:
        self._opened()
        if self._sink is not None:
            self._sink.emit(DCOpen())
        self._flush()

    def _on_message(self, data: Message) -> None:
        if self._closing:
            return
        if len(data) > self.raw.transport.getCapabilities().maxMessageSize:
            self._refuse(len(data))
            return
        sink = self._sink
        if sink is not None and sink.takes_messages:
            self.hand_over()  # in order
            sink.emit(_event(data))
            return
        self.inbox.put(data)
        if sink is not None:
            sink.emit(_event(data))

    def _refuse(self, size: int) -> None:
        """Drop a message that is larger than this side has said it accepts (RFC 8841)."""
        if not self.inbox.refused:
            logger.warning("%s: messages that are too large are dropped: %d bytes", self, size)
        self.inbox.refuse()

    def _on_error(self, error: object) -> None:
        if isinstance(error, MeteredError):  # ours: there will be no such channel
            self._report(error)
            self._finish(error)
        else:
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
        """Hand messages to aiortc as far as it should hold them; let in those that wait."""
        errors: list[MeteredError] = []
        raw, buffer = self.raw, self.buffer
        sending = self.error is None and raw.readyState == "open"
        if sending:
            for _ in range(SENDS_PER_TURN):
                if raw.bufferedAmount >= self._share or (data := buffer.take()) is None:
                    break
                try:
                    raw.send(data)
                except Exception as cause:
                    errors.append(MeteredError(f"{self.label}: a message was lost: {cause!r}"))
        errors += buffer.end_turn(sending=sending)
        if sending and buffer.has_messages and raw.bufferedAmount < self._share:
            asyncio.get_running_loop().call_soon(self._flush)
        for error in errors:
            self._report(error)
        self._watch()

    def _watch(self) -> None:
        """Look again soon, while there is a message or an opening to wait for."""
        needed = not self.buffer.is_empty or not self.opened.is_set
        if needed and self._timer is None and self.error is None:
            self._timer = asyncio.get_running_loop().call_later(BUFFER_POLL, self._poll)

    def _poll(self) -> None:
        self._timer = None
        if self.raw.readyState == "closed" or self.raw.transport.state == "closed":
            # (A channel that its connection never announced is not told of the end.)
            self._on_close()
        else:
            self._flush()

    def _finish(self, error: BaseException) -> None:
        """End the channel: readers drain, all others who wait get ``error``."""
        if self.error is not None:
            return
        sent = self.raw.bufferedAmount + unacknowledged(self.raw)
        self._lost = self.buffer.end(error) + sent
        self.error = error
        self.engine.links.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        for event, handler in self._handlers.items():
            if handler in self.raw.listeners(event):
                self.raw.remove_listener(event, handler)
        self.opened.set()
        self.inbox.end(error)
        if self._sink is not None:
            self._sink.emit(DCClose())
            self._sink.end(error)


def _event(data: Message) -> DCMessage:
    return sized(DCMessage(data), len(data))
