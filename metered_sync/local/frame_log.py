"""Take down the frames that clients send and get, for tests to look at and to wait for."""

from __future__ import annotations

import asyncio
import functools
import time
import weakref
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from metered_sync.bridge.guard import LiveObject
from metered_sync.errors import ClosedError, MeteredTimeoutError
from metered_sync.wire.arguments import shown
from metered_sync.wire.json_codec import decode

__all__ = ["FrameLog", "LoggedFrame"]

MAX_LOGGED = 100_000
"""Frames that a log keeps: the latest ones."""


@dataclass(frozen=True)
class LoggedFrame:
    """A frame that a messaging client sent or got.

    What frames there are: docs/protocol/signalling.md#frames-from-a-client.
    """

    peer: str
    """The peer id of the client."""
    sent: bool
    """Whether the client sent it; it got it otherwise."""
    text: str | bytes = field(repr=False)
    """The frame as it went over the wire."""
    at: float = field(repr=False)
    """When the cloud read or wrote it, as ``time.time()`` tells it."""

    def __repr__(self) -> str:
        # (Not all fields: a welcome may carry credentials for TURN.)
        data = f" {self.data!r}" if "data" in self.fields else ""
        channel = f" in {self.channel!r}" if "channel" in self.fields else ""
        return f"<{self.peer} {'sent' if self.sent else 'got'} {self.type}{channel}{data}>"

    @functools.cached_property
    def fields(self) -> dict[str, Any]:
        """The JSON object; empty where the text is none."""
        try:
            value = decode(self.text)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def type(self) -> Any:
        """The frame's type: ``publish``, ``message``, ``ack``, …; ``None`` where it has none."""
        return self.fields.get("type")

    @property
    def channel(self) -> Any:
        """The channel it names, or ``None``."""
        return self.fields.get("channel")

    @property
    def data(self) -> Any:
        """The data it carries, or ``None``."""
        return self.fields.get("data")


class FrameLog(LiveObject):
    """The frames that clients of a local cloud sent and got, in the order in which they went.

    Iterating goes over what is there at that moment, the oldest first. It keeps the latest
    100,000, and what it has can be looked at after the cloud's end, too.

    Args:
        run: A method of the cloud's. Takes what is done, for errors, the seconds it may take, and
            a coroutine function; runs that on the cloud's loop, and waits for it.
    """

    def __init__(
        self, run: Callable[[str, float | None, Callable[[Any], Awaitable[LoggedFrame]]], Any]
    ) -> None:
        # (Held weakly: servers that run hold the log, and must not keep a cloud that is forgotten.)
        self._run = weakref.WeakMethod(run)
        self._frames: deque[LoggedFrame] = deque(maxlen=MAX_LOGGED)
        self._waiting: list[tuple[Callable[[LoggedFrame], bool], asyncio.Future[LoggedFrame]]] = []
        self.recording = False
        """Whether it takes frames down."""

    def __repr__(self) -> str:
        return f"<FrameLog: {self._summary()}>"

    def __iter__(self) -> Iterator[LoggedFrame]:
        return iter(tuple(self._frames))

    def __len__(self) -> int:
        return len(self._frames)

    def _summary(self) -> str:
        counts = Counter(str(frame.type) for frame in self)
        return ", ".join(f"{count} {name}" for name, count in counts.items()) or "no frame"

    def clear(self) -> None:
        """Forget all frames so far."""
        self._frames.clear()

    def add(self, peer: str, text: str | bytes, *, sent: bool) -> None:
        """Take a frame down, and wake who waits for it; on the cloud's loop."""
        frame = LoggedFrame(peer, sent, text, time.time())
        self._frames.append(frame)
        for matches, found in self._waiting:
            if not found.done() and matches(frame):
                found.set_result(frame)

    def wait_for(
        self,
        type: str,
        *,
        peer: str | None = None,
        channel: str | None = None,
        timeout: float | None = None,
    ) -> LoggedFrame:
        """Return the first frame of a type; wait for one where none is there yet.

        A frame that was got has left the cloud; its client may still be about to read it.

        Args:
            type: ``subscribe``, ``unsubscribe``, ``publish``, ``send``, ``ping`` are sent;
                ``welcome``, ``ack``, ``error``, ``presence``, ``message``, ``direct``, ``pong``,
                ``going_away`` are got.
            peer: The peer id of the client that sent or got it; any, unless given.
            channel: The channel that it names; any, or none, unless given.
            timeout: Seconds to wait; ``None`` is the cloud's default.

        Raises:
            MeteredTimeoutError: None came in time; it says what there is instead.
        """
        if not isinstance(type, str):
            raise TypeError(f"type must be a frame's type, such as 'publish', not {shown(type)}")

        def matches(frame: LoggedFrame) -> bool:
            return (
                frame.type == type
                and peer in (None, frame.peer)
                and channel in (None, frame.channel)
            )

        def there() -> LoggedFrame | None:
            return next(filter(matches, self), None)

        async def wait(_: object) -> LoggedFrame:
            first = there()
            if first is not None:
                return first
            found: asyncio.Future[LoggedFrame] = asyncio.get_running_loop().create_future()
            waiter = matches, found
            self._waiting.append(waiter)
            try:
                return await found
            finally:
                self._waiting.remove(waiter)

        first = there()
        if first is not None:
            return first
        whose = "" if peer is None else f" of {peer!r}"
        where = "" if channel is None else f" in {channel!r}"
        run = self._run()
        if run is None:
            raise ClosedError("the LocalCloud of this log is gone: nothing more will come")
        try:
            frame: LoggedFrame = run(f"log: {type!r}{whose}{where}", timeout, wait)
        except MeteredTimeoutError as error:
            raise MeteredTimeoutError(f"{error}; it has {self._summary()}") from None
        return frame
