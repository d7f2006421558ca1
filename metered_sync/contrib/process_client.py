"""Hold one connected client for each process, opened when it is first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable

from metered_sync.bridge import guard
from metered_sync.bridge.clock import monotonic
from metered_sync.client import SignallingClient
from metered_sync.contrib.settings import WebSettings
from metered_sync.errors import MeteredError, NotConnectedError

__all__ = ["ProcessClient"]

RETRY_PAUSE = 2.0
"""Seconds after a failed connect during which nobody tries again."""
CLOSE_TIMEOUT = 1.0
"""Seconds that a service may take to confirm a close."""


class _OfProcess:
    """What one process holds."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        """Held by the thread that connects, so that a client is opened once; guards the others."""
        self.client: SignallingClient | None = None
        self.settings: WebSettings | None = None
        self.down_until = 0.0


class ProcessClient:
    """Hold the client that all threads of a process share; each forked child opens its own.

    A lost connection comes back by itself. One that has ended for good, or that was opened with
    other settings, is opened anew. Where that fails, it is not tried again for two seconds: so
    many requests at once do not wait one after the other for a service that is silent.
    """

    def __init__(self, make: Callable[[WebSettings], SignallingClient]) -> None:
        self._make = make
        # One for each generation of processes: a lock that was held while the process forked is
        # never released in the child, and the parent's client is none of the child's business.
        self._held: dict[int, _OfProcess] = {}

    def get(self, settings: WebSettings) -> SignallingClient:
        """Return the client, connected with these settings.

        Raises:
            NotConnectedError: Connecting has failed within the last two seconds.
            SignallingConnectError: It has failed now.
            MeteredTimeoutError: No welcome in time.
        """
        held = self._held.setdefault(guard.generation(), _OfProcess())
        client = held.client
        if client is not None and held.settings == settings and client.state != "closed":
            return client
        with held.lock:
            same = held.settings == settings
            if held.client is not None:
                if same and held.client.state != "closed":  # another thread was quicker
                    return held.client
                _close(held.client)
                held.client = None
            if same and monotonic() < held.down_until:  # whoever waited for the lock, for one
                raise NotConnectedError(
                    "connecting to the messaging service has failed a moment ago; it is tried "
                    f"again {RETRY_PAUSE:g} seconds after that"
                )
            held.settings = settings
            client = self._make(settings)
            try:
                client.connect()
            except MeteredError:
                held.down_until = monotonic() + RETRY_PAUSE
                _close(client)
                raise
            held.client = client
            return client


def _close(client: SignallingClient) -> None:
    """Close a client that is not needed any more, whether the service answers or not."""
    try:
        client.close(timeout=CLOSE_TIMEOUT)
    except MeteredError:  # (it is closed all the same)
        pass
