"""Have decoded pictures of a track carry what their packets said of them: colours, direction."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from metered_sync.engine.webrtc.filters import FilterChain
from metered_sync.engine.webrtc.picture_extensions import Colours
from metered_sync.engine.webrtc.pictures import turned

__all__ = ["Appearances"]

MAX_CHANGES = 64
"""Changes that wait for their pictures at most: pictures that cannot be decoded never come."""


class Appearances:
    """How the pictures of a track are to be shown, from timestamp to timestamp."""

    def __init__(self) -> None:
        self._changes: deque[tuple[int, int, Colours | None]] = deque(maxlen=MAX_CHANGES)
        self._turns = 0
        self._colours: Colours | None = None
        self._chain = FilterChain()

    def note(self, pts: int, turns: int, colours: Colours | None) -> None:
        """Note how pictures are to be shown from a timestamp on: quarters clockwise, colours."""
        self._changes.append((pts, turns, colours))

    def forget(self) -> None:
        """Take further pictures as they come: another receiver begins."""
        self._changes.clear()
        self._turns, self._colours = 0, None

    def apply_colours(self, frame: Any) -> bool:
        """Put its colours into a frame's fields; say whether it is upright as well."""
        while self._changes and frame.pts is not None and self._changes[0][0] <= frame.pts:
            _, self._turns, self._colours = self._changes.popleft()
        if self._colours is not None:
            frame.colorspace, frame.color_range = self._colours
        return not self._turns

    async def applied(self, frame: Any) -> Any:
        """Return a frame as it is to be shown: upright, and with its colours in its fields."""
        if not self.apply_colours(frame):
            frame = await asyncio.to_thread(self._chain.run, frame, *turned(self._turns))
        return frame
