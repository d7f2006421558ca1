"""Hand the server's frames to the request, the channel or the event they are for.

Messages are nearly all of them where they come fast. Those in a row that only the readers of one
channel want are handed over together.
"""

from __future__ import annotations

import logging
from collections import deque

from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.link import MessageSink
from metered_sync.engine.messaging.outbox import Outbox
from metered_sync.engine.messaging.request import Request
from metered_sync.engine.messaging.subscriptions import Subscriptions
from metered_sync.errors import ServerRequestError
from metered_sync.wire import frames
from metered_sync.wire.events import Direct, GoingAway, Message, Presence, ServerError
from metered_sync.wire.secrets import clear_locals, scrub
from metered_sync.wire.timings import Timings

__all__ = ["Inbound"]

logger = logging.getLogger("metered_sync")

STEP = 0.02
"""Seconds for which frames are handed on in one step of the loop; the others come in the next."""
ROW = 100
"""Messages that are handed to readers together, at most: who drops or copies them takes time."""
LOGGED = 10
"""Frames of a connection that the log tells of at once, where they cannot be handled."""
LOG_INTERVAL = 60.0
"""Seconds after which it tells of so many more, and of how many it has not told."""
REFUSAL_REMEDIES = {
    "channel_not_authorized": "the key's or token's patterns do not cover the channel",
    "channel_limit_exceeded": "unsubscribe from another channel first",
    "peer_not_found": "no such peer is connected now",
    "over_message_quota": "the plan's messages are used up",
}
"""Remedies for a request that the server refuses, by its code."""
PERMISSIONS = {"publ": "publish", "subs": "subscribe", "send": "send"}
"""The permission that a request needs, by the beginning of its type."""


def _remedy(code: str, request: Request) -> str | None:
    """Say what can be done about a refusal."""
    needed = PERMISSIONS.get(request.action)
    if code != "action_not_permitted" or needed is None:
        return REFUSAL_REMEDIES.get(code)
    remedy = f"it needs the {needed.title()} permission: grant that to the key, or in the token"
    if needed == "send":
        remedy += " (publishable keys lack it unless it is switched on in the dashboard)"
    return remedy


class Inbound:
    """Receive the messages of one connection; on the loop."""

    def __init__(
        self,
        outbox: Outbox,
        subscriptions: Subscriptions,
        sink: MessageSink,
        label: str,
        timings: Timings,
        *,
        own_id: str | None,
    ) -> None:
        self.retry_after: float | None = None
        """The seconds after which a server that is going away wants us back."""
        self._outbox = outbox
        self._subscriptions = subscriptions
        self._sink = sink
        self._label = label
        self._own_id = own_id
        self._timings = timings
        self._row: list[Message] = []
        """Messages of one channel that only readers want, and have not got yet."""
        self._logged = self._unlogged = 0
        self._log_at = -LOG_INTERVAL
        """When the first of those frames came that were logged last."""

    def receive(self, arrived: deque[bytes | None]) -> None:
        """Take what has arrived, texts or ``None`` for what is binary, for one step of the loop."""
        until = monotonic() + STEP
        while arrived and monotonic() < until:
            self._take(arrived.popleft())
        self._deliver()

    def _take(self, text: bytes | None) -> None:
        try:
            if text is None:
                self._log(logging.WARNING, "ignored a binary frame")
                return
            request_id = frames.acknowledged(text)
            request = self._outbox.take(request_id) if request_id else None
            frame = frames.parse_server_frame(text) if request is None else None
            if isinstance(frame, Message) and not self._sink.wants(frame):
                row = self._row
                if row and (row[0].channel != frame.channel or len(row) == ROW):
                    self._deliver()
                self._row.append(frame)
                return
            self._deliver()
            if request is None:
                self._handle(frame)
            else:
                request.finish()
        except frames.FrameError as error:
            self._log(logging.WARNING, f"ignored a frame: {error}")
        except Exception as error:  # lest the transport close the connection
            self._log_failure(error)

    def _deliver(self) -> None:
        """Hand the messages in a row to the readers of their channel."""
        if self._row:
            row, self._row = self._row, []
            try:
                self._subscriptions.deliver(row)
            except Exception as error:
                self._log_failure(error)

    def _log_failure(self, error: Exception) -> None:
        clear_locals(error)
        self._log(logging.ERROR, "a frame of the server could not be handled", error)

    def _log(self, level: int, text: str, error: Exception | None = None) -> None:
        """Tell of a frame in the log, at a bounded rate: a server sends as many as it likes."""
        now = monotonic()
        if now - self._log_at >= LOG_INTERVAL:
            self._logged, self._log_at = 0, now
        if self._logged == LOGGED:
            self._unlogged += 1
            return
        more = f" (and {self._unlogged} more since the one before)" if self._unlogged else ""
        self._logged, self._unlogged = self._logged + 1, 0
        logger.log(level, "%s: %s%s", self._label, text, more, exc_info=error)

    def _handle(self, frame: frames.ServerFrame | None) -> None:
        if isinstance(frame, Message):
            self._subscriptions.deliver([frame], shared=True)
            self._sink.emit(frame)
        elif isinstance(frame, Direct):
            self._sink.emit(frame)
        elif isinstance(frame, Presence):
            self._subscriptions.note_presence(frame, self._own_id)
            self._sink.emit(frame)
        elif isinstance(frame, frames.Ack):
            request = self._outbox.take(frame.request_id)
            if request is not None:
                request.finish()
        elif isinstance(frame, frames.ErrorFrame):
            self._handle_error(frame)
        elif isinstance(frame, frames.GoingAwayFrame):
            self.retry_after = self._timings.going_away_default
            if frame.retry_after_ms is not None:
                self.retry_after = min(frame.retry_after_ms / 1000, self._timings.going_away_max)
            self._sink.emit(GoingAway(round(self.retry_after * 1000)))
        elif frame is None:
            self._log(logging.INFO, "ignored a frame of a type that is not known")

    def _handle_error(self, frame: frames.ErrorFrame) -> None:
        request = self._outbox.take(frame.request_id) if frame.request_id else None
        if request is not None:
            detail = f": {scrub(frame.message)}" if frame.message else ""
            remedy = _remedy(frame.code, request)
            request.finish(
                ServerRequestError(
                    f"{request.what}: the server refused it ({scrub(frame.code)}){detail}"
                    + (f"; {remedy}" if remedy else ""),
                    code=frame.code,
                    request_id=frame.request_id,
                )
            )
        elif not (frame.code == "unknown_type" and frame.request_id is None):
            # (A server older than app-level pings answers them so.)
            text = scrub(frame.message) if frame.message is not None else None
            self._log(logging.WARNING, f"the server reports {scrub(frame.code)}: {text}")
            self._sink.emit(ServerError(frame.code, text, frame.request_id))
