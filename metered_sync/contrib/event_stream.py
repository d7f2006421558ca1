"""Turn the messages of a channel into server-sent events, for WSGI servers.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, "Parsing an event stream".
"""

from __future__ import annotations

import json
from collections.abc import Callable

from metered_sync.client import Subscription
from metered_sync.errors import MeteredError, MeteredTimeoutError

__all__ = ["HEADERS", "HEARTBEAT_PAUSE", "RETRY_LATER", "EventStream"]

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Of an answer with such events: proxies are to pass on each of them at once."""
HEARTBEAT_PAUSE = 15.0
"""Seconds without a message after which a comment is sent: only who writes learns that nobody
reads any more. Proxies, too, close what is silent for long; mostly after 60."""
RETRY_LATER = b"retry: 5000\n\n"
"""Has a page connect again after five seconds. (At another status than 200 it never would.)"""


class EventStream:
    """Iterate over a subscription's messages as server-sent events, each one line of JSON.

    Servers call :meth:`close` when the page has gone, and at the end. Until then it holds the
    thread that serves it.
    """

    def __init__(
        self,
        subscription: Subscription,
        heartbeat: float = HEARTBEAT_PAUSE,
        on_start: Callable[[], object] | None = None,
    ) -> None:
        self._subscription = subscription
        self._heartbeat = heartbeat
        self._on_start = on_start
        self._started = False
        self._told = 0

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> bytes:
        """Wait for the next message, or the next heartbeat."""
        if not self._started:
            self._started = True
            if self._on_start is not None:
                self._on_start()
            return b": subscribed\n\n"  # at once: with it, the headers go out
        dropped = self._subscription.dropped
        if dropped > self._told:
            lost, self._told = dropped - self._told, dropped
            return b": %d messages were lost: they came faster than they were read\n\n" % lost
        try:
            data = self._subscription.get(timeout=self._heartbeat).data
        except MeteredTimeoutError:
            return b":\n\n"
        except MeteredError:  # closed, here or by the service: the page connects again
            self.close()
            raise StopIteration from None
        try:
            # (In ASCII: no line ends in it, and what is half a character is escaped.)
            return b"data: %s\n\n" % json.dumps(data, separators=(",", ":")).encode()
        except RecursionError:  # (nested as deeply as could just be read)
            return b": a message is nested too deeply\n\n"

    def close(self) -> None:
        """Close the subscription. Repeatable, from any thread."""
        self._subscription.close()
