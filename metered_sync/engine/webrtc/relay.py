"""Send a received track on: to a room, to the SFU, or to both.

Its frames are decoded here, and encoded again by who sends them. They are taken while somebody
asks for them; a relay that nobody reads costs no decoding.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.reader import Reader
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.engine.webrtc.media_frames import Frame

__all__ = ["RelayedTrack"]

RELAY_QUEUE = {"audio": 25, "video": 2}
"""Frames that wait for the sender at most: half a second of sound."""
UNREAD_RELAY = 1.0
"""Seconds after which a relay that nobody reads takes no more frames."""


class RelayedTrack(MediaStreamTrack):
    """A track of aiortc's with the frames of a received track; it ends with that."""

    def __init__(self, incoming: IncomingTrack) -> None:
        """Prepare; frames are taken from the first :meth:`recv` on."""
        super().__init__()
        self.kind = incoming.kind
        self._incoming = incoming
        self._frames = _RelayReader(incoming)

    def __repr__(self) -> str:
        return f"<RelayedTrack {self.kind} of {self._incoming.id!r}: {self.readyState}>"

    @property
    def readyState(self) -> str:  # noqa: N802
        """``"live"`` or ``"ended"``."""
        return "ended" if self._incoming.ended else super().readyState

    async def recv(self) -> Frame:
        """Return the next frame.

        Raises:
            MediaStreamError: The received track has ended, and its frames have been read.
        """
        frame = await self._frames.take()
        if frame is None:
            self.stop()
            raise MediaStreamError(f"the {self.kind} track {self._incoming.id!r} has ended")
        return frame


class _RelayReader(Reader[Any]):
    """Hold a received track's latest frames for a coroutine on the same loop."""

    def __init__(self, incoming: IncomingTrack) -> None:
        super().__init__(f"relay of {incoming.kind} track {incoming.id!r}")
        self._incoming = incoming
        self._waiting: deque[Frame] = deque(maxlen=RELAY_QUEUE[incoming.kind])
        self._changed = asyncio.Event()
        self._attached = False
        self._asking = 0
        self._asked = 0.0

    async def take(self) -> Frame | None:
        """Return the next frame; ``None`` at the end."""
        self._asking += 1
        try:
            while not self._waiting and not self.ended:
                if not self._attached:
                    self._attached = True
                    self._incoming.add(self)
                self._changed.clear()
                if not self.ended:
                    await self._changed.wait()
        finally:
            self._asking -= 1
            self._asked = monotonic()
        return self._waiting.popleft() if self._waiting else None

    def put(self, item: Frame) -> None:
        """Hold a frame, and drop the oldest; or let go of a track that nobody reads on."""
        if not self._asking and monotonic() - self._asked > UNREAD_RELAY:
            self._attached = False
            self._waiting.clear()
            self._incoming.remove(self)
            return
        self._waiting.append(item)
        self._changed.set()

    def end(self, error: BaseException | None = None) -> None:
        """Take note that the received track has ended."""
        super().end(error)
        self._changed.set()
