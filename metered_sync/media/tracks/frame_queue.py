"""A track's frames on their way to one reader."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from av import AudioFrame, VideoFrame

from metered_sync.bridge.reader import Reader
from metered_sync.errors import ClosedError

if TYPE_CHECKING:
    from metered_sync.media.tracks.track import RemoteTrack

__all__ = ["FrameQueue"]


class FrameQueue(Reader[Any]):
    """A track's frames, for one reader: ``av.VideoFrame`` or ``av.AudioFrame``, by its kind.

    In mode ``"latest"`` it holds the newest frame only, and never gives the same one
    twice; in mode ``"fifo"`` it holds a bounded number and drops the oldest. ``dropped``
    counts. A video frame may be converted by several readers at once; its planes are
    shared with them, and not to be changed.
    """

    def __init__(self, label: str, track: RemoteTrack, *, maxsize: int) -> None:
        super().__init__(label, maxsize=maxsize)
        self._track = track  # it, and with it its client, must not be collected while read
        self._arrived = -math.inf

    @property
    def age(self) -> float:
        """Seconds since the newest frame arrived here; ``inf`` before the first."""
        return time.monotonic() - self._arrived

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the next frame and return it.

        Args:
            timeout: Seconds to wait; ``None`` waits for a frame, the end or Ctrl-C; 0 polls.

        Raises:
            MeteredTimeoutError: Nothing came in time.
            ClosedError: Closed or ended, and everything queued has been read.
            MeteredError: What ended the track's connection, and everything queued has been read.
        """
        return self._own(super().get(timeout))

    def get_nowait(self) -> Any:
        """Return the next frame if there is one.

        Raises:
            queue.Empty: There is none now.
            ClosedError: There is none, and there will be none; or the error of :meth:`get`.
        """
        return self._own(super().get_nowait())

    def __next__(self) -> Any:
        try:
            return self.get()
        except ClosedError:
            raise StopIteration from None

    def put(self, item: AudioFrame | VideoFrame) -> None:
        """Queue a frame."""
        self._arrived = time.monotonic()
        super().put(item)

    def close(self) -> None:
        """Stop receiving. What is queued can still be read; blocked readers wake."""
        super().close()
        self._track._incoming.remove(self)

    def _own(self, frame: Any) -> Any:
        return self._track._twins.of(frame) if isinstance(frame, VideoFrame) else frame
