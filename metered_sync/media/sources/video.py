"""Show the pictures that a program makes, one by one."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from aiortc.mediastreams import MediaStreamTrack
from av import VideoFrame

from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.sending.pushed import STILL_INTERVAL, PushedPictureQueue
from metered_sync.engine.webrtc.media_frames import private_copy
from metered_sync.engine.webrtc.pictures import PictureNormalizer
from metered_sync.errors import ClosedError
from metered_sync.media.sources.base import TrackSource
from metered_sync.media.sources.pace import Pace
from metered_sync.wire.arguments import check_number, check_whole, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["VideoSource"]

PACKED_FORMATS = {"bgr24": 3, "rgb24": 3, "bgra": 4, "rgba": 4, "gray": 1}
"""Pixel formats that hold each pixel in one place, with the number of its bytes."""
PLANAR_FORMATS = ("yuv420p", "nv12")
"""Pixel formats that hold brightness first, then the colours."""
MIN_PLANAR_HEIGHT = 4
"""The smallest height, in pixels, of a planar picture: PyAV takes one of 2 rows for empty."""
MAX_SIDE = 16383
"""The greatest width or height, in pixels: VP8 knows no more."""


class VideoSource(TrackSource[None, MediaStreamTrack]):
    """Show written pictures on a video track: rendered, drawn, computed.

    Writing paces itself: a loop that writes one picture after another runs at ``fps``. A
    picture that no other follows is shown again, four times a second, so that whoever
    joins sees it. What nobody takes is dropped; writing never waits for a receiver.

    >>> with VideoSource(640, 480, fps=25) as screen:
    ...     peer.add_track(screen.video)
    ...     for image in images:  # uint8, of shape (480, 640, 3), BGR
    ...         screen.write(image)
    """

    def __init__(self, width: int, height: int, fps: float = 30) -> None:
        """Make the source.

        Args:
            width: Of the pictures, in pixels. One of another size may be written at any
                time: it is sent as it is, and receivers see the change.
            height: In pixels.
            fps: Pictures per second that may be written, above 0 and at most 240.
        """
        width = check_whole("width", width, 2, MAX_SIDE, unit="pixels")
        height = check_whole("height", height, 2, MAX_SIDE, unit="pixels")
        fps = check_number("fps", fps, 0, 240, above=True)
        super().__init__(
            f"VideoSource({width}, {height}, {fps:g})", {"video": 1}, None, queue=PushedPictureQueue
        )
        self._size = width, height
        self._pace = Pace(self._feed, fps)
        self._queue: PushedPictureQueue = self._feed.queues["video"]  # type: ignore[assignment]
        self._queue.again_after = max(STILL_INTERVAL, 2 / fps)
        self._idle: deque[PictureNormalizer] = deque()  # as many as work at once

    @property
    def dropped(self) -> int:
        """Pictures that were not taken before the next one was written."""
        return self._queue.dropped

    def write(
        self,
        picture: NDArray[Any] | bytes | bytearray | memoryview | VideoFrame,
        format: str = "bgr24",
        timeout: float | None = None,
    ) -> None:
        """Show a picture, and wait until it is time for the next.

        It is stamped with the time of this call and copied: it may be changed afterwards.
        Calls that come later than ``fps`` allows for are not held up, nor made up for.

        Args:
            picture: An array of ``uint8``, of shape (height, width, 3) for ``"bgr24"`` and
                ``"rgb24"``, (height, width, 4) for ``"bgra"`` and ``"rgba"`` (alpha is left
                out), (height, width) for ``"gray"``, (height · 3/2, width) for
                ``"yuv420p"`` and ``"nv12"``; of an odd number of rows or columns the last
                is left out. Or ``bytes`` of a picture of the source's size. Or an
                ``av.VideoFrame`` of any format; its timestamp is not used.
            format: The pixel format of the array or the bytes, as FFmpeg names it.
            timeout: Seconds to wait for the next picture's time; ``None``: as long as
                it takes; 0 does not wait, for a signal handler, say.

        Raises:
            MeteredTimeoutError: It was not time yet. The picture is shown all the same.
            ClosedError: The source has been ended or stopped.
            TypeError, ValueError: Something that is not such a picture.
        """
        captured = monotonic()
        deadline = Deadline.of(timeout)
        self._feed.check_call(deadline)
        frame = self._frame(picture, format)
        try:
            normalizer = self._idle.pop()
        except IndexError:
            normalizer = PictureNormalizer()
        normal = normalizer.normal(frame)
        self._idle.append(normalizer)
        # (What needs no change has the caller's pixels, which may be changed.)
        frame = private_copy(normal)
        feed = self._feed
        with feed.lock:
            if self._queue.ending or feed.stopped:
                how = "ended" if self._queue.ending else "stopped"
                raise ClosedError(f"{self._label} has been {how}: make another one to write to")
            feed.begin()
            now = monotonic()
            self._queue.show(frame, feed.clock() - (now - captured))
            self._pace.wait(captured, deadline)

    def end(self) -> None:
        """Show the picture written last, then end the track.

        Returns at once; :meth:`wait` waits for the end. Ending again does nothing.
        """
        self._feed.check_process()
        with self._feed.lock:
            self._queue.end()

    def _frame(self, picture: Any, format: str) -> VideoFrame:
        """Return a frame over the memory of a picture."""
        if isinstance(picture, VideoFrame):
            return picture
        if format not in PACKED_FORMATS and format not in PLANAR_FORMATS:
            known = ", ".join(repr(name) for name in (*PACKED_FORMATS, *PLANAR_FORMATS))
            raise ValueError(f"format must be one of {known}, not {shown(format)}")
        if isinstance(picture, (bytes, bytearray, memoryview)):
            picture = self._shaped(picture, format)
        if not isinstance(picture, np.ndarray):
            raise TypeError(
                "an array, bytes or an av.VideoFrame can be written, not "
                f"{type(picture).__name__}: convert it with numpy.asarray() (an image of Pillow "
                'then has format="rgb24")'
            )
        if picture.dtype != np.uint8:
            raise TypeError(
                f"pictures must be uint8, from 0 to 255, not {picture.dtype}: scale the array "
                "and convert with .astype(numpy.uint8)"
            )
        return VideoFrame.from_numpy_buffer(_checked(picture, format), format)

    def _shaped(self, data: bytes | bytearray | memoryview, format: str) -> NDArray[Any]:
        width, height = self._size
        planar = format in PLANAR_FORMATS
        shape = (height * 3 // 2, width, 1) if planar else (height, width, PACKED_FORMATS[format])
        array = np.frombuffer(data, np.uint8)
        if array.size != math.prod(shape):
            raise ValueError(
                f"{width}x{height} pixels of {format} are {math.prod(shape)} bytes, not "
                f"{array.size}: write pictures of other sizes as arrays"
            )
        return array.reshape(shape if shape[2] > 1 else shape[:2])


def _checked(picture: NDArray[Any], format: str) -> NDArray[Any]:
    """Return an array of even size, whose rows are contiguous."""
    shape = picture.shape
    if format in PLANAR_FORMATS:
        if picture.ndim != 2 or shape[0] % 3 or shape[1] % 2:
            raise ValueError(
                f"{format} has the shape (height * 3/2, width), with an even height and width, "
                f"not {shape}"
            )
        height, width = shape[0] // 3 * 2, shape[1]
        if not (MIN_PLANAR_HEIGHT <= height <= MAX_SIDE and 2 <= width <= MAX_SIDE):
            raise ValueError(
                f"a picture of {format} has {MIN_PLANAR_HEIGHT} to {MAX_SIDE} rows and 2 to "
                f"{MAX_SIDE} columns, not {height} and {width}"
            )
        return np.ascontiguousarray(picture)
    channels = PACKED_FORMATS[format]
    if channels == 1 and shape[2:] == (1,):
        picture = picture[:, :, 0]
    elif shape[2:] != (() if channels == 1 else (channels,)) or len(shape) < 2:
        wanted = "(height, width)" if channels == 1 else f"(height, width, {channels})"
        raise ValueError(f"{format} has the shape {wanted}, not {shape}{_remedy(shape)}")
    if not all(2 <= side <= MAX_SIDE for side in picture.shape[:2]):
        raise ValueError(
            f"a picture has 2 to {MAX_SIDE} rows and columns, not {shape[0]} and {shape[1]}"
        )
    return np.ascontiguousarray(picture[: shape[0] & ~1, : shape[1] & ~1])


def _remedy(shape: tuple[int, ...]) -> str:
    """Return a hint at what an array of this shape may be."""
    if len(shape) == 2 or shape[2:] == (1,):
        return ': pass format="gray"'
    if len(shape) == 3 and shape[2] in (3, 4):
        return ': pass format="bgr24" or "rgb24"' if shape[2] == 3 else ': pass format="bgra"'
    if len(shape) == 3 and shape[0] in (1, 3, 4):
        return ": channels come last, so transpose it (array.transpose(1, 2, 0))"
    return ""
