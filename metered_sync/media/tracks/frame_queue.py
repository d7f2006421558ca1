"""Queue a track's frames for one reader."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NoReturn, cast

from av import AudioFrame, VideoFrame

from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.reader import Reader
from metered_sync.errors import ClosedError
from metered_sync.media.tracks.core import TrackCore
from metered_sync.wire.arguments import check_choice

if TYPE_CHECKING:  # a plain ``FrameQueue`` is one of pictures or sound
    from typing_extensions import TypeVar

    F_co = TypeVar("F_co", default=VideoFrame | AudioFrame, covariant=True)
else:
    from typing import TypeVar

    F_co = TypeVar("F_co", covariant=True)

__all__ = ["F_co", "FrameQueue", "SharedFrameQueue", "read_frames"]

FIFO_SIZE = {"audio": 500, "video": 30}
"""Frames that a first-in, first-out reader holds: ten seconds of sound, one of pictures."""


class FrameQueue(Reader[F_co]):
    """Read a track's frames: ``av.VideoFrame`` or ``av.AudioFrame``, by its kind.

    In mode ``"latest"`` it holds the newest frame only, and never gives the same one
    twice; in mode ``"fifo"`` it holds a bounded number and drops the oldest. ``dropped``
    counts. Each frame is the reader's own, pixels included, and may be changed.
    """

    def __init__(self, label: str, core: TrackCore, *, maxsize: int) -> None:
        super().__init__(label, maxsize=maxsize)
        self._core = core  # and with it the client, which must not be collected while this is read
        self._arrived = -math.inf

    @property
    def age(self) -> float:
        """Seconds since the newest frame arrived here; ``inf`` before the first."""
        return monotonic() - self._arrived

    def get(self, timeout: float | None = None, *more: NoReturn, block: None = None) -> F_co:
        """Wait for the next frame and return it.

        Args:
            timeout: Seconds to wait; ``None`` waits for a frame, the end or Ctrl-C; 0 polls.
            more: As ``block``: there is no such argument; the error says what to do instead.
            block: Likewise.

        Raises:
            MeteredTimeoutError: Nothing came in time.
            ClosedError: Closed or ended, and everything queued has been read.
            MeteredError: What ended the track's connection, and everything queued has been read.
        """
        return self._own(super().get(timeout, *more, block=block))

    def get_nowait(self) -> F_co:
        """Return the next frame if there is one.

        Raises:
            queue.Empty: There is none now.
            ClosedError: There is none, and there will be none; or the error of :meth:`get`.
        """
        return self._own(super().get_nowait())

    def __next__(self) -> F_co:
        try:
            return self.get()
        except ClosedError:
            raise StopIteration from None

    def put(self, item: Any) -> None:
        """Queue a frame."""
        self._arrived = monotonic()
        super().put(item)

    def close(self) -> None:
        """Stop receiving. What is queued can still be read; blocked readers wake."""
        super().close()
        self._core.incoming.remove(self)

    def _end_error(self) -> BaseException:
        if self._error is None and self._core.incoming.ended:
            return ClosedError(f"{self._label}: the track has ended")
        return super()._end_error()

    def _own(self, frame: Any) -> F_co:
        return cast("F_co", self._core.copier.copied(frame))


class SharedFrameQueue(FrameQueue[VideoFrame]):
    """Read a track's pictures as all of its readers have them, to be converted and no more."""

    def _own(self, frame: Any) -> VideoFrame:
        return cast("VideoFrame", frame)


def read_frames(
    core: TrackCore,
    *,
    mode: Literal["latest", "fifo"] | None = None,
    maxsize: int | None = None,
) -> FrameQueue[Any]:
    """Return a new reader of a track's frames; see :meth:`RemoteTrack.frames`."""
    core.check_process()
    kind = core.incoming.kind
    if mode is None:
        mode = "latest" if kind == "video" else "fifo"
    check_choice("mode", mode, ("latest", "fifo"))
    if mode == "latest" and maxsize not in (None, 1):
        raise ValueError('maxsize goes with mode="fifo"; "latest" holds one frame')
    size = 1 if mode == "latest" else FIFO_SIZE[kind] if maxsize is None else maxsize
    queue: FrameQueue[Any] = FrameQueue(f"{mode} frames of {core.label}", core, maxsize=size)
    core.incoming.add(queue)
    return queue
