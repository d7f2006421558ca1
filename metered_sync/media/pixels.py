"""Convert video frames to arrays of pixels."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from av import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter

from metered_sync.engine.webrtc.media_frames import padded
from metered_sync.errors import MediaError
from metered_sync.media.pyav import ONE_THREAD

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
GREY_FIRST_FORMATS = ("yuv420p", "yuvj420p", "nv12")
"""Pixel formats of decoders, as a rule, whose first plane is the picture in grey."""


def check_format(format: object) -> None:
    """Raise ``TypeError`` or ``ValueError`` for a pixel format that arrays cannot have."""
    if not isinstance(format, str):
        raise TypeError(f"format must be a str, not {type(format).__name__}")
    if format not in PIXEL_FORMATS:
        raise ValueError(f"pictures can be had as {', '.join(PIXEL_FORMATS)}, not as {format!r}")


class PixelConverter:
    """Convert frames to arrays, on any thread, with converters that are used again."""

    def __init__(self) -> None:
        self._idle: deque[VideoReformatter] = deque()  # as many as work at once

    def convert(self, frame: VideoFrame, format: str) -> NDArray[Any]:
        """Return a picture as an array of its own: contiguous, and writable."""
        if format in EVEN_SIZE_FORMATS and (frame.width % 2 or frame.height % 2):
            raise MediaError(
                f"a picture of {frame.width}x{frame.height} pixels cannot be had as {format!r}, "
                'which needs even sizes: ask for another format, "bgr24" for instance'
            )
        full = frame.color_range == ColorRange.JPEG or frame.format.name == "yuvj420p"
        if full and format == "gray" and frame.format.name in GREY_FIRST_FORMATS:
            plane = frame.planes[0]
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
            luma: NDArray[Any] = rows[: frame.height, : frame.width].copy()
            return luma
        try:
            reformatter = self._idle.pop()
        except IndexError:
            reformatter = VideoReformatter()
        # (Grey and RGB go from 0 to 255, pictures as a rule from 16 to 235: FFmpeg stretches
        # them. Older versions of PyAV do not look whether a frame says that it does, too.)
        range_ = {"src_color_range": ColorRange.JPEG} if full else {}
        source = padded(frame)
        converted = reformatter.reformat(source, format=format, **range_, **ONE_THREAD)
        self._idle.append(reformatter)
        array: NDArray[Any] = converted.to_ndarray()  # the new frame's own memory, if it can be
        # Had it that format already, others may read it.
        return array.copy() if converted is source else np.ascontiguousarray(array)
