"""Read a track as OpenCV's ``VideoCapture`` reads a camera."""

from __future__ import annotations

import functools
import itertools
import statistics
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from av import VideoFrame

from metered_sync.bridge import guard
from metered_sync.bridge.atomic import Atomic
from metered_sync.bridge.deadline import Deadline
from metered_sync.errors import ClosedError
from metered_sync.media.tracks.core import TrackCore
from metered_sync.media.tracks.frame_queue import SharedFrameQueue

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["VideoCapture"]

Self = TypeVar("Self", bound="VideoCapture")

POS_MSEC, POS_FRAMES, FRAME_WIDTH, FRAME_HEIGHT, FPS = 0, 1, 3, 4, 5
"""OpenCV's numbers for the properties that ``get()`` answers: ``cv2.CAP_PROP_POS_MSEC``, …."""
FPS_PICTURES = 3
"""Pictures whose times tell the frame rate."""


class _TimedFrameQueue(SharedFrameQueue):
    """Hold the newest frame, and the timestamps of the latest ones."""

    def __init__(self, label: str, core: TrackCore) -> None:
        super().__init__(label, core, maxsize=1)
        self.times: deque[float] = deque(maxlen=31)

    def put(self, item: VideoFrame) -> None:
        if item.time is not None:
            self.times.append(item.time)
        super().put(item)


class _Grabbed(NamedTuple):
    """What a capture has read so far."""

    held: VideoFrame | None = None
    """A frame that came while get() waited, and is not grabbed yet."""
    frame: VideoFrame | None = None
    """The frame grabbed last."""
    size: tuple[int, int] = (0, 0)
    start: float = 0.0
    """The time of the first frame, in seconds."""
    position: float = 0.0
    """The time of the frame grabbed last, from the first one on."""
    taken: int = 0
    """How many frames were grabbed."""
    released: bool = False

    def grabbed(self, frame: VideoFrame | None) -> _Grabbed:
        """Return the state after a frame was grabbed."""
        if frame is None:
            return self._replace(frame=None)
        start, position = self.start, self.position
        if frame.time is not None:
            start = self.start if self.taken else frame.time
            position = frame.time - start
        return self._replace(
            frame=frame,
            size=(frame.width, frame.height),
            start=start,
            position=position,
            taken=self.taken + 1,
        )

    def holding(self, *, frame: VideoFrame, size: tuple[int, int]) -> _Grabbed:
        """Return the state after a frame came that nobody has grabbed."""
        return self._replace(held=frame, size=size)


class VideoCapture(guard.LiveObject):
    """Read a track as OpenCV's ``cv2.VideoCapture`` reads a camera; OpenCV is not needed.

    Made by :meth:`RemoteTrack.capture`. It gives the newest picture each time, and never the
    same one twice. Safe to use from many threads at once.
    """

    def __init__(self, core: TrackCore, *, timeout: float | None = None) -> None:
        """Start reading; see :meth:`RemoteTrack.capture`."""
        if not isinstance(core, TrackCore):
            raise TypeError(
                "a VideoCapture is what RemoteTrack.capture() returns; a camera, a file or a "
                "stream here is from_camera(), from_file() or from_rtsp(), read by iter_frames()"
            )
        self._timeout = Deadline.of(timeout).timeout
        self._core = core
        self._label = f"capture of {core.label}"
        self._born = guard.generation()
        self._frames = _TimedFrameQueue(self._label, core)
        self._state = Atomic(_Grabbed())
        core.incoming.add(self._frames)

    def __repr__(self) -> str:
        state = "open" if self.isOpened() else "closed"
        taken = self._state.value.taken
        return f"<{self._label}: {state}, {taken} frames, {self._frames.dropped} dropped>"

    def read(
        self, image: NDArray[Any] | None = None, *, timeout: float | None = None
    ) -> tuple[bool, NDArray[np.uint8] | Any]:
        """Wait for the next picture: :meth:`grab` and :meth:`retrieve` in one.

        Args:
            image: An array to put it into, where it has the right size.
            timeout: Seconds to wait; ``None``: what :meth:`RemoteTrack.capture` was given.

        Returns:
            ``True`` and an array of shape (height, width, 3), uint8, BGR; ``(False, None)``
            once the track has ended or this was released. (Type checkers are not told of the
            ``None``, which OpenCV's loops do not look at.)

        Raises:
            MeteredTimeoutError: No picture in time: OpenCV's loops would take ``False`` for
                the end.
            MeteredError: What ended the track's connection, if that is why it ended.
        """
        _check_image(image)
        frame = self._grab(timeout)
        return (False, None) if frame is None else (True, self._picture(frame, image))

    def grab(self, *, timeout: float | None = None) -> bool:
        """Wait for the next picture, to be had with :meth:`retrieve`; say whether one came.

        Raises what :meth:`read` does.
        """
        return self._grab(timeout) is not None

    def retrieve(
        self, image: NDArray[Any] | None = None, flag: int = 0
    ) -> tuple[bool, NDArray[np.uint8] | Any]:
        """Return the picture grabbed last, as :meth:`read` does; ``flag`` means nothing."""
        _check_image(image)
        guard.check_process(self._born, self._label)
        frame = self._state.value.frame
        return (False, None) if frame is None else (True, self._picture(frame, image))

    def get(self, propId: int, *, timeout: float | None = None) -> float:  # noqa: N803
        """Return a property, by OpenCV's number for it.

        ``CAP_PROP_FRAME_WIDTH`` and ``CAP_PROP_FRAME_HEIGHT`` (pixels, of the latest
        picture) wait for a first picture, and ``CAP_PROP_FPS`` (from the latest pictures'
        times) for three. ``CAP_PROP_POS_MSEC`` is the time of the picture grabbed last, from
        the first one on, and ``CAP_PROP_POS_FRAMES`` counts those grabbed. All others are
        0, ``CAP_PROP_FRAME_COUNT`` too: nobody knows how long a track will be.

        Raises:
            MeteredTimeoutError: That many pictures did not come in time.
        """
        deadline = Deadline.of(timeout, self._timeout)
        guard.check_process(self._born, self._label)
        if propId in (FRAME_WIDTH, FRAME_HEIGHT):
            self._wait(lambda: self._state.value.size != (0, 0), deadline)
            return float(self._state.value.size[propId - FRAME_WIDTH])
        if propId == FPS:
            self._wait(lambda: len(self._frames.times) >= FPS_PICTURES, deadline)
            times = sorted(self._frames.times)
            interval = statistics.median(
                [after - before for before, after in itertools.pairwise(times)] or [0.0]
            )
            return 1 / interval if interval > 0 else 0.0
        if propId == POS_MSEC:
            return self._state.value.position * 1000
        return float(self._state.value.taken) if propId == POS_FRAMES else 0.0

    def set(self, propId: int, value: float) -> bool:  # noqa: N803
        """Return ``False``: nothing about somebody else's track can be set."""
        return False

    def isOpened(self) -> bool:  # noqa: N802
        """Whether there may be more pictures: not once the track has ended."""
        state = self._state.value
        left = len(self._frames) > 0 or state.held is not None
        return not state.released and (left or not self._frames.ended)

    def release(self) -> None:
        """Stop reading; threads that are blocked in :meth:`read` wake. Repeatable."""
        guard.check_process(self._born, self._label)
        self._state.swap(lambda there: there._replace(released=True, held=None, frame=None))
        self._frames.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def _next(self, deadline: Deadline) -> VideoFrame | None:
        """Return the next frame; ``None`` at the end."""
        try:
            return self._frames.get(timeout=deadline.left())
        except ClosedError:
            return None

    def _grab(self, timeout: float | None) -> VideoFrame | None:
        deadline = Deadline.of(timeout, self._timeout)
        guard.check_blocking(self._born, self._label)
        before = self._state.swap(lambda there: there._replace(held=None))
        if before.released:
            return None
        # What arrived while nobody grabbed is newer than what was held.
        held = before.held
        return self._keep(self._next(deadline) if held is None or len(self._frames) else held)

    def _keep(self, frame: VideoFrame | None) -> VideoFrame | None:
        """Make a frame the one grabbed last, unless this was released."""
        before = self._state.swap(lambda there: there if there.released else there.grabbed(frame))
        return None if before.released else frame

    def _wait(self, known: Callable[[], bool], deadline: Deadline) -> None:
        """Take frames until a property is known, or the track ends; keep the last frame."""
        while not known():
            frame = self._next(deadline)
            if frame is None:
                return
            size = (frame.width, frame.height)
            self._state.swap(functools.partial(_Grabbed.holding, frame=frame, size=size))

    def _picture(self, frame: VideoFrame, image: NDArray[Any] | None) -> NDArray[Any]:
        array = self._core.converter.convert(frame, "bgr24")
        if image is None or image.shape != array.shape or image.dtype != array.dtype:
            return array
        image[...] = array
        return image


def _check_image(image: object) -> None:
    """Raise ``TypeError`` for what is no array that a picture can be put into."""
    if image is not None and not hasattr(image, "shape"):
        raise TypeError(
            "image must be an array that the picture is put into, not "
            f"{type(image).__name__}; pictures come as bgr24: for another format call "
            'track.read(format="rgb24")'
        )
