"""Subscribe to the channel that a room is, and publish to all who have."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import anyio

from metered_sync.bridge.reader import Reader
from metered_sync.engine.messaging.link import SignallingLink
from metered_sync.engine.messaging.request import Request
from metered_sync.errors import MeteredError
from metered_sync.wire import frames
from metered_sync.wire.events import Message
from metered_sync.wire.timings import Timings

__all__ = ["RoomChannel"]

logger = logging.getLogger("metered_sync")


class RoomChannel:
    """The channel of one room."""

    def __init__(self, signalling: SignallingLink, label: str, timings: Timings) -> None:
        self.name: str | None = None
        """The channel's name, while the room is joined, or being joined."""
        self._signalling = signalling
        self._label = label
        self._timings = timings
        self._include_metadata = False
        # The signalling link keeps subscriptions as long as somebody reads them.
        self._reader: Reader[Message] = Reader("a room's messages", maxsize=1)
        self._joining: Request | None = None
        """The subscription that joins the room."""

    def choose(self, name: str, include_sender_metadata: bool) -> None:
        """Be the channel with this name."""
        self.name, self._include_metadata = name, include_sender_metadata
        self._joining = None

    async def subscribe(self, on_end: Callable[[Request], None] | None = None) -> None:
        """Subscribe; the list of members follows the acknowledgement.

        ``on_end`` is called at once when the subscription that joins the room ends.
        """
        if self._reader.ended:  # a subscription that the server has refused
            self._reader = Reader("a room's messages", maxsize=1)
        request = self._signalling.subscriptions.subscribe(
            self.name or "", self._reader, self._include_metadata, again=True, on_end=on_end
        )
        if request is not None:
            if on_end is not None:
                self._joining = request
            await self._signalling.acknowledgement(request)

    def progress(self) -> tuple[str, bool]:
        """Say how far joining has come, and whether its request has left; from any thread."""
        request = self._joining
        if request is None:
            return self._signalling.progress()
        return "waiting for the acknowledgement" if request.sent else "subscribing", request.sent

    def forget(self) -> None:
        """Be subscribed no longer."""
        if self.name is not None:
            self._signalling.subscriptions.remove(self.name, self._reader)
            self.name = None

    def broadcast(self, data: dict[str, Any]) -> None:
        """Send a message to the whole room, and wait for nothing."""

        def on_end(request: Request) -> None:
            if request.error is not None:
                logger.debug("%s: %s", self._label, request.error)

        try:
            self._broadcast(data, on_end)
        except MeteredError as error:
            logger.debug("%s: %s", self._label, error)

    def _broadcast(
        self, data: dict[str, Any], on_end: Callable[[Request], None] | None = None
    ) -> Request:
        request_id = self._signalling.outbox.new_id()
        text = frames.build_publish(self.name or "", data, request_id)
        what = f"{self._label}: tell the room"
        return self._signalling.request(request_id, text, what, outage="fail", on_end=on_end)

    async def broadcast_now(self, data: dict[str, Any]) -> None:
        """Send a message to the whole room, as long as it takes within a bound; never raise."""
        if self._signalling.state != "connected":
            return
        try:
            with anyio.move_on_after(self._timings.close):
                await self._signalling.acknowledgement(self._broadcast(data))
        except MeteredError as error:
            logger.debug("%s: %s", self._label, error)
