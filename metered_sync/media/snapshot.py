"""Take single pictures of a track, and write them as JPEG or PNG."""

from __future__ import annotations

import functools
import os
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from av import CodecContext, VideoFrame
from av.video.reformatter import VideoReformatter

from metered_sync.media.pixels import PixelConverter
from metered_sync.media.pyav import ONE_THREAD
from metered_sync.wire.arguments import check_whole, shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Snapshot", "jpeg", "png"]

JPEG_QUALITY = 90
"""The quality of a JPEG unless told otherwise, from 1 to 100."""
MAX_WIDTH = 65535
"""The greatest width of a JPEG, in pixels."""
COARSEST_QUANTISER, FINEST_QUANTISER = 31, 2
"""The ends of FFmpeg's scale for the quality of a JPEG."""


class Snapshot:
    """Hold one picture of a track. A notebook shows it where it is a cell's result.

    Made by :meth:`RemoteTrack.snapshot`, or of any frame. A value: nothing that happens to
    the track changes it.
    """

    def __init__(self, frame: VideoFrame, label: str = "a frame") -> None:
        """Keep a frame; ``label`` is its origin, in words."""
        self._frame = frame
        self._label = label

    def __repr__(self) -> str:
        return f"<Snapshot of {self._label}: {self.width}x{self.height}>"

    @property
    def width(self) -> int:
        """The picture's width in pixels."""
        return self._frame.width

    @property
    def height(self) -> int:
        """The picture's height in pixels."""
        return self._frame.height

    @property
    def frame(self) -> VideoFrame:
        """The frame as it was decoded."""
        return self._frame

    @functools.cached_property
    def array(self) -> NDArray[np.uint8]:
        """The pixels: (height, width, 3), uint8, BGR as in OpenCV; the same array each time.

        ``array[..., ::-1]`` is RGB, as matplotlib and Pillow have it.
        """
        return PixelConverter().convert(self._frame, "bgr24")

    def save(self, path: str | os.PathLike[str], *, quality: int = JPEG_QUALITY) -> None:
        """Write the picture to a file, as JPEG or PNG by the name's end.

        Args:
            path: Ends in ``.jpg``, ``.jpeg`` or ``.png``. A file that is there is replaced.
            quality: Of a JPEG, from 1 (small) to 100 (good).

        Raises:
            ValueError: Another ending, or a quality that is out of range.
            OSError: The file cannot be written.
        """
        ending = os.path.splitext(os.fspath(path))[1].lower()
        if ending not in (".jpg", ".jpeg", ".png"):
            raise ValueError(
                f"{shown(os.fspath(path))}: a picture's name ends in .jpg, .jpeg or .png"
            )
        data = png(self._frame) if ending == ".png" else self.to_jpeg(quality=quality)
        with open(path, "wb") as file:
            file.write(data)

    def to_jpeg(self, *, width: int | None = None, quality: int = JPEG_QUALITY) -> bytes:
        """Return the picture as a JPEG file: to send, or to show on a page.

        Args:
            width: In pixels: a wider picture is made smaller, in proportion. ``None``: as it is.
            quality: From 1 (small) to 100 (good).

        Raises:
            ValueError: A width or quality that is out of range.
        """
        return jpeg(self._frame, width=width, quality=quality)

    def _repr_jpeg_(self) -> bytes:
        return self.to_jpeg()


def jpeg(frame: VideoFrame, *, width: int | None = None, quality: int = JPEG_QUALITY) -> bytes:
    """Return a frame as a JPEG file, made smaller where it is wider than ``width`` pixels."""
    quality = check_whole("quality", quality, 1, 100)
    if width is not None:
        width = check_whole("width", width, 1, MAX_WIDTH, unit="pixels")
    scale = str(round(COARSEST_QUANTISER + (FINEST_QUANTISER - COARSEST_QUANTISER) * quality / 100))
    if width is None or width >= frame.width:
        width = frame.width
    height = max(1, round(frame.height * width / frame.width))
    small = VideoReformatter().reformat(_rgb(frame), width, height, "yuvj420p", **ONE_THREAD)
    return _encoded(small, "mjpeg", {"qmin": scale, "qmax": scale})


def png(frame: VideoFrame) -> bytes:
    """Return a frame as a PNG file."""
    return _encoded(_rgb(frame), "png", {})


def _rgb(frame: VideoFrame) -> VideoFrame:
    """Return a copy of a frame, which other threads may be converting."""
    return VideoFrame.from_ndarray(PixelConverter().convert(frame, "rgb24"), format="rgb24")


def _encoded(frame: VideoFrame, codec: str, options: dict[str, str]) -> bytes:
    encoder: Any = CodecContext.create(codec, "w")
    encoder.width, encoder.height = frame.width, frame.height
    encoder.pix_fmt = frame.format.name
    encoder.time_base = Fraction(1, 1)
    encoder.thread_count = 1
    encoder.options = options
    return b"".join(map(bytes, (*encoder.encode(frame), *encoder.encode(None))))
