"""Give each reader of a track frames of its own.

Several readers of a track get the same picture. A ``VideoFrame`` keeps what it was last
converted with, so two threads that convert one frame at the same moment crash the
process (PyAV 14 to 18). And its pixels may be those that the decoder goes on from: who wrote
into them would spoil the pictures that follow. So each reader gets a copy, of sound as well.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from av import AudioFrame, VideoFrame

from metered_sync.engine.webrtc.filters import COPY, FilterChain

__all__ = ["FrameCopier"]


class FrameCopier:
    """Make equal frames over pixels and samples of their own; on any thread."""

    def __init__(self) -> None:
        self._idle: deque[FilterChain] = deque()  # as many as work at once

    def copied(self, frame: Any) -> Any:
        """Return an equal frame, of pictures or of sound, that nobody else has."""
        if not isinstance(frame, VideoFrame):
            return copied_sound(frame)
        try:
            chain = self._idle.pop()
        except IndexError:
            chain = FilterChain()
        copy = chain.run(frame, COPY)
        self._idle.append(chain)
        return copy


def copied_sound(frame: AudioFrame) -> AudioFrame:
    """Return an equal frame of sound over samples of its own."""
    copy = AudioFrame(frame.format.name, frame.layout.name, frame.samples)
    for mine, theirs in zip(copy.planes, frame.planes, strict=True):
        size = min(mine.buffer_size, theirs.buffer_size)  # (ends may be padded in other ways)
        memoryview(mine)[:size] = memoryview(theirs)[:size]
    copy.sample_rate, copy.pts = frame.sample_rate, frame.pts
    if frame.time_base is not None:
        copy.time_base = frame.time_base
    return copy
