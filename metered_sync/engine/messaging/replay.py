"""Ask for the subscriptions again, after a reconnect."""

from __future__ import annotations

import logging

import anyio

from metered_sync.bridge.link import EventSink
from metered_sync.engine.messaging.outbox import Outbox
from metered_sync.engine.messaging.request import Request
from metered_sync.engine.messaging.subscriptions import Subscriptions
from metered_sync.errors import AckTimeoutError, ServerRequestError
from metered_sync.wire.events import ServerError
from metered_sync.wire.timings import Timings

__all__ = ["Replay"]

logger = logging.getLogger("metered_sync")

REPLAY_ATTEMPTS = 4
"""How often a subscription is asked for before it is given up."""
TRANSIENT_CODES = ("backend_error", "internal_error")
"""Codes of the server after which asking again makes sense."""


class Replay:
    """Ask for one connection's subscriptions until each is back or refused; on the loop."""

    def __init__(
        self,
        outbox: Outbox,
        subscriptions: Subscriptions,
        sink: EventSink,
        label: str,
        timings: Timings,
    ) -> None:
        self._subscriptions = subscriptions
        self._outbox = outbox
        self._sink = sink
        self._label = label
        self._timings = timings
        self._requests: dict[str, Request] = {}
        self._ended = anyio.Event()
        """All of the requests have been answered, or have failed."""

    def begin(self) -> None:
        """Queue the requests, before anything else that is queued."""
        self._ask(self._subscriptions.acknowledged())

    def _ask(self, names: list[str]) -> None:
        self._requests = requests = self._subscriptions.requests(names)
        ended = self._ended = anyio.Event()
        left = {request.id for request in requests.values()}

        def note_end(request: Request) -> None:
            left.discard(request.id)
            if not left:
                ended.set()

        for request in requests.values():
            request.then(note_end)
        if not requests:
            ended.set()
        self._outbox.urge(list(requests.values()))

    async def run(self) -> None:
        """See to it that the subscriptions are acknowledged; return once each one is settled."""
        for attempt in range(1, REPLAY_ATTEMPTS + 1):
            with anyio.move_on_after(self._timings.replay_retry) as pause:
                await self._ended.wait()
            wanted = self._subscriptions.acknowledged()  # less those unsubscribed meanwhile
            names = [
                name
                for name, request in self._requests.items()
                if name in wanted and not self._is_settled(name, request)
            ]
            if not names:
                return
            if attempt == REPLAY_ATTEMPTS:
                for name in names:
                    self._give_up(name)
                return
            if not pause.cancelled_caught:  # refused in passing: do not ask again at once
                await anyio.sleep(self._timings.replay_retry)
            self._ask(names)
            self._outbox.flush()

    def _is_settled(self, name: str, request: Request) -> bool:
        """Whether a subscription is back or refused for good; one that is neither is forgotten."""
        error = request.error
        if request.ended.is_set and error is None:
            return True
        if isinstance(error, ServerRequestError) and error.code not in TRANSIENT_CODES:
            self._lose(name, error, error.code)
            return True
        self._outbox.forget(request)
        return False

    def _give_up(self, name: str) -> None:
        """Stop asking for a subscription that the server does not acknowledge."""
        error = AckTimeoutError(
            f"subscription to {name!r}: after a reconnect the server did not acknowledge it in "
            f"{REPLAY_ATTEMPTS} attempts; subscribe again",
            request_id="",
            timeout=REPLAY_ATTEMPTS * self._timings.replay_retry,
            sent=True,
        )
        self._lose(name, error, "subscription_lost")

    def _lose(self, name: str, error: BaseException, code: str) -> None:
        """Tell a channel's readers, and callbacks, that it is subscribed to no more."""
        logger.error("%s: %s", self._label, error)
        self._subscriptions.refuse(name, error)
        self._sink.emit(ServerError(code, str(error), None))
