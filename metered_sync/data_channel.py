"""Send and receive on data channels, in code that blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn, TypeVar

from aiortc import RTCDataChannel

from metered_sync._observable import Observable
from metered_sync.bridge import guard
from metered_sync.bridge.deadline import Deadline, check_timeout
from metered_sync.bridge.event_hub import EventHub, Registration
from metered_sync.bridge.facade import close_when_collected
from metered_sync.engine.webrtc.data_channel import MAX_BUFFERED, ChannelLink, MessageInbox
from metered_sync.errors import MeteredTimeoutError
from metered_sync.wire.data_channels import channel_options, check_label
from metered_sync.wire.media_events import DCMessage
from metered_sync.wire.states import DataChannelState

__all__ = ["DataChannel", "channel_options", "check_label"]

Self = TypeVar("Self", bound="DataChannel")


class _ChannelEvents(EventHub):
    """Pass on a channel's events; callbacks for messages take them from its inbox."""

    def __init__(self, link: ChannelLink) -> None:
        super().__init__(link.label)
        self._link = link

    @property
    def takes_messages(self) -> bool:
        return self.has_callback(DCMessage)

    def add(self, registration: Registration, owner: object) -> None:
        super().add(registration, owner)
        if registration.type is DCMessage:
            self._link.engine.post(self._link.hand_over)


class DataChannel(Observable):
    """Exchange messages straight with another peer, over the connection that carries its media.

    From :meth:`RemotePeer.create_data_channel`, or in a ``DataChannelOpened`` event where the
    other peer has made it. Iterate over it or call :meth:`get` to receive, :meth:`send` to
    send, from any thread. Each message arrives as what it was sent as, text or bytes.

    With :meth:`on` for :class:`~metered_sync.DCMessage`, messages go to the callbacks instead of
    :meth:`get` and iteration; what has arrived before that, first.

    ``maxsize`` messages, and 64 MiB, may wait to be read. Then the oldest is dropped and
    counted in :attr:`dropped`, on a reliable channel too: nothing can hold the sender up but
    an answer of yours.

    A channel ends with the connection that carries it: open a new one after a
    ``ConnectionReset``. One that is forgotten while open is closed, unless it has callbacks.

    Args:
        channel: An aiortc ``RTCDataChannel`` of one of this library's connections. Given a
            ``DataChannel``, that same object is returned, and the options have no effect.
        max_buffered_amount: Bytes that may wait to be sent; then :meth:`send` waits.
        maxsize: How many messages may wait to be read.
        timeout: Seconds that :meth:`send` and :meth:`close` may take, unless they say otherwise.
    """

    _emitter = "DataChannel"

    def __new__(cls, channel: Any, **options: Any) -> DataChannel:
        return channel if isinstance(channel, DataChannel) else super().__new__(cls)

    def __init__(
        self,
        channel: RTCDataChannel | ChannelLink | DataChannel,
        *,
        max_buffered_amount: int = MAX_BUFFERED,
        maxsize: int = 4096,
        timeout: float = 15.0,
        _owner: object = None,
    ) -> None:
        if channel is self:
            return
        if isinstance(channel, RTCDataChannel):
            link = ChannelLink.adopt(channel, max_buffered=max_buffered_amount, maxsize=maxsize)
        elif isinstance(channel, ChannelLink):
            link = channel
        else:
            raise TypeError(
                f"DataChannel wraps an aiortc RTCDataChannel, not {type(channel).__name__}"
            )
        self._label = link.label
        self._timeout = check_timeout("timeout", timeout)
        self._born = guard.generation()
        self._owner = _owner  # must not be collected while its channel is in use
        self._engine = link.engine
        self._link = link
        self._hub: _ChannelEvents = _ChannelEvents(link)
        link.listen(self._hub)
        self._finalizer = close_when_collected(self, link.engine, link)

    def __repr__(self) -> str:
        buffered = f"{self._link.buffered} bytes to send"
        return f"<{self._label}: {self.state}, {len(self)} to read, {buffered}>"

    # --- properties ---

    @property
    def label(self) -> str:
        """The name that its maker gave the channel."""
        return self._link.name

    @property
    def state(self) -> DataChannelState:
        """``"connecting"``, ``"open"``, ``"closing"`` or ``"closed"``."""
        return self._link.state

    @property
    def ready_state(self) -> DataChannelState:
        """The :attr:`state`, under its name in aiortc and in the async client."""
        return self.state

    @property
    def buffered_amount(self) -> int:
        """Bytes that wait to be sent."""
        guard.check_process(self._born, self._label)
        return self._link.buffered

    @property
    def dropped(self) -> int:
        """How many messages were dropped because nobody read them in time."""
        return self._link.inbox.dropped + self._hub.dropped

    @property
    def _inbox(self) -> MessageInbox:
        return self._link.inbox

    # --- sending ---

    def wait_open(self, *, timeout: float | None = None) -> None:
        """Wait until the channel is open.

        Raises:
            MeteredTimeoutError: It is not, by the deadline.
            ClosedError: It has been closed instead.
        """
        deadline = Deadline.of(timeout, self._timeout)
        self._engine.check(self._label)
        if not self._link.opened.wait(deadline):
            raise MeteredTimeoutError(f"{self._label}: not open within {deadline}")
        self._link.check()

    def send(self, data: str | bytes, *, timeout: float | None = None) -> None:
        """Send a message; return once it is in the channel's buffer.

        Waits while the buffer is full, and until the channel is open. Messages leave in the
        order of the calls; :meth:`close` sees that the last ones do.

        Args:
            data: Text, or bytes.
            timeout: Seconds to wait for room; ``None`` is the channel's default.

        Raises:
            MeteredTimeoutError: There was no room by the deadline; the message is not sent.
            OversizedPayloadError: Larger than the other side accepts: 65,536 bytes, or what it
                has said (262,144 with browsers and aiortc 1.16). Nothing was sent.
            ClosedError: The channel is closed, or was while waiting.
            TypeError: Neither text nor bytes.
        """
        deadline = Deadline.of(timeout, self._timeout)
        self._engine.check(self._label)
        self._link.send(_plain(data), deadline)

    def send_nowait(self, data: str | bytes) -> None:
        """Send a message if there is room in the buffer; otherwise as :meth:`send`.

        While the channel is not open yet, 256 messages are queued. One that turns out to be
        too large then is reported with a :class:`~metered_sync.DCError` event.

        Raises:
            DataChannelOverflowError: There is no room.
        """
        guard.check_process(self._born, self._label)
        self._link.send_nowait(_plain(data))

    # --- receiving ---

    def get(self, timeout: float | None = None, *more: NoReturn, block: None = None) -> str | bytes:
        """Wait for the next message and return it.

        Args:
            timeout: Seconds to wait; ``None`` waits for data, close or Ctrl-C; 0 polls.
            more: As ``block``: there is no such argument; the error says what to do instead.
            block: Likewise.

        Raises:
            MeteredTimeoutError: Nothing came in time.
            ClosedError: Closed, here or by the other side, and all that came has been read.
        """
        return self._link.inbox.get(timeout, *more, block=block)

    def get_nowait(self) -> str | bytes:
        """Return the next message if there is one.

        Raises:
            queue.Empty: There is none now.
            ClosedError: There is none, and there will be none.
        """
        return self._link.inbox.get_nowait()

    def __iter__(self) -> Iterator[str | bytes]:
        return self

    def __next__(self) -> str | bytes:
        return next(self._link.inbox)

    def __len__(self) -> int:
        return len(self._link.inbox)

    def __bool__(self) -> bool:
        return True  # an object with nothing to read is still one

    # --- the end ---

    def close(self, *, timeout: float | None = None) -> None:
        """Wait until all sent messages have arrived, then close. Repeatable, from any thread.

        Calls that wait in :meth:`send` or :meth:`get` end at once; what has arrived can still be
        read.

        Raises:
            MeteredTimeoutError: Not everything had arrived by the deadline. The channel is closed
                all the same, and the rest may be lost.
        """
        deadline = Deadline.of(timeout, self._timeout)
        guard.check_process(self._born, self._label)
        engine, link, what = self._engine, self._link, f"{self._label}: close"
        if engine.error is not None:
            return
        engine.check(what)
        self._finalizer.detach()
        try:
            engine.call(link.aclose, deadline=deadline, what=what, progress=self._progress)
        except MeteredTimeoutError:
            if link.undelivered:
                raise
        finally:
            engine.post(link.cut)  # where it did not even begin

    def _progress(self) -> tuple[str, bool]:
        return f"{self._link.undelivered} bytes were not delivered", False

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if exc[0] is None:
            self.close()
            return
        try:  # what went wrong must not wait for a receiver that is slow
            self.close(timeout=min(1.0, self._timeout))
        except MeteredTimeoutError:
            pass


def _plain(data: Any) -> Any:
    return bytes(data) if isinstance(data, (bytearray, memoryview)) else data
