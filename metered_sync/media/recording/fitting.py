"""Fit pictures of any size and format into the frame of one encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from av import VideoFrame
from av.video.reformatter import VideoReformatter

from metered_sync.engine.webrtc.media_frames import padded, private_copy

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PictureFitter"]


class PictureFitter:
    """Fit pictures of any size and format into one size, as yuv420p."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._reformatter = VideoReformatter()

    def fit(self, frame: VideoFrame) -> VideoFrame:
        """Return a copy of a picture, scaled where it must be, with black bars at its sides."""
        width, height = self.width, self.height
        if (frame.width & ~1, frame.height & ~1) == (width, height):
            return private_copy(frame, self._reformatter)
        scale = min(width / frame.width, height / frame.height)
        inner_width = max(round(frame.width * scale / 2) * 2, 2)
        inner_height = max(round(frame.height * scale / 2) * 2, 2)
        scaled = self._reformatter.reformat(padded(frame), inner_width, inner_height, "yuv420p")
        canvas = VideoFrame(width, height, "yuv420p")
        left, top = (width - inner_width) // 4 * 2, (height - inner_height) // 4 * 2
        for index, (target, source) in enumerate(zip(canvas.planes, scaled.planes, strict=True)):
            half = 2 if index else 1
            pixels, rows = _pixels(target), _pixels(source)[:, : source.width]
            pixels[:] = 128 if index else 16
            y, x = top // half, left // half
            pixels[y : y + source.height, x : x + source.width] = rows
        return canvas


def _pixels(plane: Any) -> NDArray[np.uint8]:
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
