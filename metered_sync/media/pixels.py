"""Convert video frames to arrays of pixels."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from av import VideoFrame

from metered_sync.engine.webrtc.filters import FilterChain
from metered_sync.engine.webrtc.pictures import FULL, LIMITED, scaling
from metered_sync.errors import MediaError
from metered_sync.wire.arguments import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["EightBitFormat", "PixelConverter", "check_format"]

EightBitFormat = Literal[
    "bgr24", "rgb24", "gray", "bgra", "rgba", "abgr", "argb", "gbrp",
    "yuv420p", "yuvj420p", "nv12", "yuv444p", "yuvj444p", "yuyv422",
]  # fmt: skip
"""Pixel formats whose arrays are of bytes."""
PIXEL_FORMATS = (*get_args(EightBitFormat), "gray16le", "rgb48le", "rgba64le", "grayf32le")
"""Pixel formats that arrays can have, by FFmpeg's names. (PyAV 14 to 16 crash with some others.)"""
EVEN_SIZE_FORMATS = ("yuv420p", "yuvj420p", "nv12", "yuyv422")
"""Pixel formats that hold colours at half the size, and so have no odd sizes."""
_RANGES = {
    **dict.fromkeys(("yuv420p", "nv12", "yuv444p", "yuyv422"), LIMITED),
    **dict.fromkeys(("yuvj420p", "yuvj444p"), FULL),
}
"""The range of formats that hold colours apart. (Grey and RGB go from 0 to 255, always.)"""


def check_format(format: object) -> None:
    """Raise ``TypeError`` or ``ValueError`` for a pixel format that arrays cannot have."""
    if not isinstance(format, str):
        raise TypeError(f"format must be a str, not {type(format).__name__}")
    if format not in PIXEL_FORMATS:
        raise ValueError(
            f"pictures can be had as {', '.join(PIXEL_FORMATS)}, not as {shown(format)}"
        )


class PixelConverter:
    """Convert frames to arrays, on any thread, with converters that are used again."""

    def __init__(self) -> None:
        self._idle: deque[FilterChain] = deque()  # as many as work at once

    def convert(self, frame: VideoFrame, format: str) -> NDArray[Any]:
        """Return a picture as an array of its own: contiguous, and writable."""
        if format in EVEN_SIZE_FORMATS and (frame.width % 2 or frame.height % 2):
            raise MediaError(
                f"a picture of {frame.width}x{frame.height} pixels cannot be had as {format!r}, "
                'which needs even sizes: ask for another format, "bgr24" for instance'
            )
        try:
            chain = self._idle.pop()
        except IndexError:
            chain = FilterChain()
        range_ = _RANGES.get(format)
        scale = "flags=bilinear" if range_ is None else scaling(frame, range_)
        converted = chain.run(frame, ("scale", scale), ("format", format))
        array: NDArray[Any] = converted.to_ndarray()  # the new frame's own memory, if it can be
        self._idle.append(chain)
        # Had it that format already, others may read it.
        shared = converted.planes[0].buffer_ptr == frame.planes[0].buffer_ptr
        return array.copy() if shared else np.ascontiguousarray(array)
