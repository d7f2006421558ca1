"""Watch what aiortc starts by itself once a description is set, so that closing can end it.

``setLocalDescription`` and ``setRemoteDescription`` leave a task behind that connects, and then
starts senders, receivers and SCTP. Nobody waits for it: where the connection is closed meanwhile,
it starts what has been stopped already, or fails with what nobody retrieves.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aiortc import InvalidStateError, RTCDtlsTransport, RTCPeerConnection

from metered_sync.engine.webrtc.aiortc_private.names import CONNECT, DTLS_TRANSPORTS

__all__ = ["WatchedPeerConnection"]

logger = logging.getLogger("metered_sync")


class WatchedPeerConnection(RTCPeerConnection):
    """A peer connection that knows which of its tasks are starting something."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._starting: set[asyncio.Task[Any]] = set()

    @property
    def transports(self) -> tuple[RTCDtlsTransport, ...]:
        """The transports that were made, those included whose sections have all been discarded."""
        return tuple(getattr(self, DTLS_TRANSPORTS, ()))

    async def started(self) -> None:
        """Wait until nothing is being started any more."""
        while self._starting:
            await asyncio.wait(self._starting)

    async def _start(self) -> None:
        if self.signalingState == "closed":
            return
        task: Any = asyncio.current_task()
        self._starting.add(task)
        try:
            await getattr(super(), CONNECT)()
        except (ConnectionError, InvalidStateError) as error:
            # Closed meanwhile, here or by the other side: its state says so.
            logger.debug("a peer connection was closed while it started: %s", error)
        finally:
            self._starting.discard(task)


setattr(WatchedPeerConnection, CONNECT, WatchedPeerConnection._start)
