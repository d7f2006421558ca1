"""Send direct messages to the members of a room, and find out whether that is permitted at all.

A key without the Send permission joins a room, and then nothing ever connects: that is the
most common trap of the service. So a room asks the server once whether it may send, as soon as
there is somebody to talk to, and callers that wait for a connection are told.

Everything here runs on the loop thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from metered_sync.engine.messaging.link import SignallingLink
from metered_sync.engine.messaging.request import Request
from metered_sync.errors import MeteredError, ServerRequestError
from metered_sync.wire import frames

__all__ = ["DirectMessages"]

logger = logging.getLogger("metered_sync")


class DirectMessages:
    """The direct messages of one room."""

    def __init__(
        self, link: SignallingLink, label: str, on_refused: Callable[[ServerRequestError], None]
    ) -> None:
        """Prepare; ``on_refused`` is called when the server refuses all of them."""
        self.refused: ServerRequestError | None = None
        """Why none can be sent, if the key or token lacks the permission."""
        self._link = link
        self._label = label
        self._on_refused = on_refused
        self.checked = False
        """Whether the server has been asked."""

    async def send(self, peer_id: str, data: Any) -> None:
        """Send a message; return once it is acknowledged."""
        try:
            await self._exchange(peer_id, data, f"signal to {peer_id!r}")
        except ServerRequestError as error:
            self._note_refusal(error)
            raise

    def post(self, peer_id: str, data: Any) -> None:
        """Send a message and wait for nothing. It leaves before those that are sent later."""

        def on_end(request: Request) -> None:
            if isinstance(request.error, ServerRequestError):
                self._note_refusal(request.error)
            elif request.error is not None:
                logger.debug("%s: %s", self._label, request.error)

        try:
            self._request(peer_id, data, f"message to {peer_id!r}", on_end)
        except MeteredError as error:
            logger.debug("%s: %s", self._label, error)

    async def check_permission(self) -> None:
        """Ask the server whether messages can be sent, unless it has been asked already."""
        if self.checked:
            return
        self.checked = True
        try:
            await self._exchange(self._link.peer_id or "", None, "ask whether it may send")
        except ServerRequestError as error:
            self._note_refusal(error)  # (any other code means that it may)
        except MeteredError:
            self.checked = False

    def forget_permission(self) -> None:
        """Ask again next time: a new token may permit what the old one did not."""
        self.checked, self.refused = False, None

    async def _exchange(self, peer_id: str, data: Any, what: str) -> None:
        await self._link.acknowledgement(self._request(peer_id, data, what))

    def _request(
        self,
        peer_id: str,
        data: Any,
        what: str,
        on_end: Callable[[Request], None] | None = None,
    ) -> Request:
        request_id = self._link.outbox.new_id()
        text = frames.build_send(peer_id, data, request_id)
        return self._link.request(request_id, text, f"{self._label}: {what}", on_end=on_end)

    def _note_refusal(self, error: ServerRequestError) -> None:
        if error.code == "action_not_permitted":
            self.refused = ServerRequestError(
                f"{self._label}: no media connection can be made, because the key or token lacks "
                "the Send permission, which signals between peers need; publishable keys lack it "
                "unless it is switched on in the dashboard",
                code=error.code,
            )
            self._on_refused(self.refused)
