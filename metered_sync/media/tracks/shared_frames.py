"""Share FFmpeg's objects between threads, and keep them from being freed in a forked child.

Several readers of a track get the same picture. A ``VideoFrame`` keeps what it was last
converted with, so two threads that convert one frame at the same moment crash the
process (PyAV 14 to 18). So each reader gets a frame of its own, over the same pixels; of
sound it gets a copy, which costs less.

Filter graphs, and resamplers of sound with them, have threads. In a forked child those
are missing, and freeing such an object would wait for them for ever. So what may have
threads is held there until the process ends.
"""

from __future__ import annotations

import weakref
from collections import deque
from fractions import Fraction
from typing import Any

from av import AudioFrame, VideoFrame
from av.filter import Graph

from metered_sync.bridge.process import after_fork
from metered_sync.media.pyav import new_graph

__all__ = ["FrameCloner", "keep_in_child"]

_kept: weakref.WeakSet[Any] = weakref.WeakSet()
"""Objects that a child which is forked from now on must not free."""
_never_freed: list[Any] = []
"""Objects that a forked child holds for ever, for it cannot free them."""


def keep_in_child(owner: object) -> None:
    """Never free ``owner``, and what it refers to, in a child that is forked from now on."""
    _kept.add(owner)


class FrameCloner:
    """Make frames that share the pixels of others, and nothing else; on any thread.

    A reader may stamp its frame anew, as encoders ask for, and no other reader sees that.
    """

    def __init__(self) -> None:
        self._idle: deque[tuple[object, Graph]] = deque()  # as many as work at once
        keep_in_child(self)

    def own(self, frame: Any) -> Any:
        """Return an equal frame, of pictures or of sound, for one reader."""
        return self.clone(frame) if isinstance(frame, VideoFrame) else copied_sound(frame)

    def clone(self, frame: VideoFrame) -> VideoFrame:
        """Return a frame over the pixels of another: the same time, format and size."""
        kind = (frame.width, frame.height, frame.format.name, frame.time_base)
        try:
            of_kind, graph = self._idle.pop()
        except IndexError:
            of_kind = None
        if of_kind != kind:
            graph = _pass_through(frame)
        graph.push(frame)
        clone = graph.pull()
        self._idle.append((kind, graph))
        assert isinstance(clone, VideoFrame)
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


def _pass_through(frame: VideoFrame) -> Graph:
    """Return a filter graph that puts a new frame over the pixels of the one it is given."""
    graph = new_graph()
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        time_base=frame.time_base or Fraction(1, 90000),
    )
    source.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def _in_child() -> None:
    _never_freed.extend(_kept)


after_fork(_in_child)
