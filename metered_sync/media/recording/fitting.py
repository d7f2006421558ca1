"""Fit pictures of any size and format into the frame of one encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from av import VideoFrame

from metered_sync.engine.webrtc.filters import FilterChain
from metered_sync.engine.webrtc.pictures import PictureNormalizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PictureFitter"]


class PictureFitter:
    """Fit pictures of any size and format into one size, in the shape that encoders take."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._normalizer = PictureNormalizer()
        self._scaler = FilterChain()

    def fit(self, frame: VideoFrame) -> VideoFrame:
        """Return a copy of a picture, scaled where it must be, with black bars at its sides."""
        width, height = self.width, self.height
        frame = self._normalizer.normal(frame)
        if (frame.width, frame.height) == (width, height):
            return frame
        scale = min(width / frame.width, height / frame.height)
        inner_width = max(round(frame.width * scale / 2) * 2, 2)
        inner_height = max(round(frame.height * scale / 2) * 2, 2)
        scaled = self._scaler.run(frame, ("scale", f"{inner_width}:{inner_height}:flags=bilinear"))
        canvas = VideoFrame(width, height, "yuv420p")
        canvas.color_range, canvas.colorspace = frame.color_range, frame.colorspace
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
