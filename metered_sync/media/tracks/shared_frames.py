"""Share frames between threads.

Several readers of a track get the same picture. A ``VideoFrame`` keeps what it was last
converted with, so two threads that convert one frame at the same moment crash the
process (PyAV 14 to 18). So each reader gets a frame of its own, over the same pixels; of
sound it gets a copy, which costs less.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from av import AudioFrame, VideoFrame

from metered_sync.engine.webrtc.filters import FilterChain

__all__ = ["FrameCloner"]


class FrameCloner:
    """Make frames that share the pixels of others, and nothing else; on any thread.

    A reader may stamp its frame anew, as encoders ask for, and no other reader sees that.
    """

    def __init__(self) -> None:
        self._idle: deque[FilterChain] = deque()  # as many as work at once

    def own(self, frame: Any) -> Any:
        """Return an equal frame, of pictures or of sound, for one reader."""
        return self.clone(frame) if isinstance(frame, VideoFrame) else copied_sound(frame)

    def clone(self, frame: VideoFrame) -> VideoFrame:
        """Return a frame over the pixels of another: the same time, format and size."""
        try:
            chain = self._idle.pop()
        except IndexError:
            chain = FilterChain()
        clone = chain.run(frame)
        self._idle.append(chain)
        return clone


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
