"""One frame on its way out, and the wait for its acknowledgement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from metered_sync.bridge.deadline import Latch
from metered_sync.bridge.process import after_fork
from metered_sync.errors import raise_fresh
from metered_sync.wire.websocket import forget_masks, masked_text_frame

__all__ = ["OutagePolicy", "Request"]

OutagePolicy = Literal["fail", "wait", "repeat"]
"""The effect of an outage on a request that is not acknowledged.

``"fail"``: it fails. ``"wait"``: one that has not left waits for the next connection, one that
has left fails. ``"repeat"``: it is sent on the next connection, again if need be.
"""


class Request:
    """A frame on its way out, and the wait for its acknowledgement."""

    __slots__ = (
        "action",
        "ended",
        "error",
        "expires_at",
        "fetched",
        "frame",
        "id",
        "on_end",
        "outage",
        "sent",
        "size",
        "timeout",
        "what",
    )

    def __init__(
        self,
        request_id: str,
        text: str,
        what: str,
        *,
        outage: OutagePolicy = "wait",
        on_end: Callable[[Request], None] | None = None,
        timeout: float | None = None,
    ) -> None:
        self.write(request_id, text)
        self.what = what
        """The action it stands for, in the words of error messages."""
        self.outage = outage
        self.on_end = on_end
        """Runs once, before the caller that waits is released; on the loop, unless cancelled."""
        self.timeout = timeout
        """Seconds from leaving to the acknowledgement, where no caller waits with a deadline."""
        self.expires_at = 0.0
        self.sent = False
        self.error: BaseException | None = None
        self.fetched = False
        """Whether somebody has been told of the error."""
        self.ended = Latch()

    def write(self, request_id: str, text: str) -> None:
        """Set the frame, where it was not known yet."""
        payload = text.encode()
        self.id = request_id
        """Its id in the frame; empty where no acknowledgement is expected."""
        self.size = len(payload)
        self.frame = masked_text_frame(payload)
        self.action = text[9:13]  # '{"type":"publish",…'
        """The beginning of the frame's type, for what goes wrong with it."""

    def finish(self, error: BaseException | None = None) -> None:
        """Release the caller that waits. The first outcome counts."""
        if not self.ended.is_set:
            self.error = error
            if self.on_end is not None:
                self.on_end(self)
            self.ended.set()

    def check(self) -> None:
        """Raise the error that it failed with, if it has failed."""
        raise_fresh(self.error)

    def then(self, function: Callable[[Request], None]) -> None:
        """Have a function run, too, when it ends; from the loop."""
        first = self.on_end

        def both(request: Request) -> None:
            if first is not None:
                first(request)
            function(request)

        self.on_end = both


after_fork(forget_masks)
