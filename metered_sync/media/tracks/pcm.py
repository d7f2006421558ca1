"""Cut a track's sound into arrays of samples, all of one length."""

from __future__ import annotations

import math
import queue
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn, TypeVar

import numpy as np
from av import AudioFrame

from metered_sync.bridge import guard
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.process import keep_in_child
from metered_sync.bridge.reader import check_no_block
from metered_sync.errors import (
    ClosedError,
    MeteredError,
    MeteredTimeoutError,
    WrongThreadError,
)
from metered_sync.media.resampling import Resampler, check_rate
from metered_sync.media.tracks.frame_queue import FrameQueue
from metered_sync.wire.arguments import plain_number, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PcmReader"]

Self = TypeVar("Self", bound="PcmReader")

CHANNEL_COUNTS = {"mono": 1, "stereo": 2}
"""The layouts that sound can be had in, and their channels."""
MAX_CHUNK = 10
"""Seconds of the longest chunk: as much as is kept, and who asks for more means samples."""
MIN_GAP = 0.002
"""Seconds of the source's time that must be missing to be filled with silence."""
MIN_PAUSE = 1.0
"""Seconds from which a gap is a pause, and left out."""


class PcmReader(guard.LiveObject, Iterator["NDArray[np.int16]"]):
    """Read a track's sound as int16 arrays of one length. Made by :meth:`RemoteTrack.pcm`.

    Safe to use from many threads at once; each chunk goes to one of them.
    """

    def __init__(
        self, frames: FrameQueue[AudioFrame], label: str, rate: int, layout: str, chunk: float
    ):
        """Read from a queue; see :meth:`RemoteTrack.pcm`."""
        rate = check_rate("rate", rate)
        samples = chunk_samples(rate, layout, chunk)
        self._label = label
        self._frames = frames
        self._cutter = _ChunkCutter(rate, layout, samples)
        self._lost = 0
        self._born = guard.generation()
        self._reading = guard.CallLock()

    def __repr__(self) -> str:
        state = "closed" if self._frames.ended else "open"
        return f"<{self._label}: {state}, {self.dropped} dropped>"

    @property
    def dropped(self) -> int:
        """Frames of the track (20 ms each, as a rule) that were dropped, being too many."""
        return self._frames.dropped

    def get(
        self, timeout: float | None = None, *more: NoReturn, block: None = None
    ) -> NDArray[np.int16]:
        """Wait for the next chunk and return it.

        Args:
            timeout: Seconds to wait; ``None`` waits for sound, the end or Ctrl-C; 0 polls.
            more: As ``block``: there is no such argument; the error says what to do instead.
            block: Likewise.

        Raises:
            MeteredTimeoutError: Not a whole chunk in time; what there is of it is kept.
            ClosedError: Closed or ended, and everything queued has been read.
            MeteredError: What ended the track's connection, and everything queued has been read.
        """
        check_no_block(timeout, more, block)
        deadline = Deadline.of(timeout)
        guard.check_blocking(self._born, self._label)
        late = MeteredTimeoutError(f"{self._label}: no whole chunk within {deadline}")
        with self._reading.held(deadline, self._label):
            while (chunk := self._cutter.chunk()) is None:
                try:
                    frame = self._frames.get(timeout=deadline.left())
                except MeteredTimeoutError:
                    raise late from None
                except MeteredError:  # the end
                    self._cutter.finish()
                    if (chunk := self._cutter.chunk()) is None:
                        raise
                    return chunk
                dropped = self._frames.dropped
                self._cutter.add(frame, follows=dropped == self._lost)
                self._lost = dropped
            return chunk

    def get_nowait(self) -> NDArray[np.int16]:
        """Return the next chunk if there is one.

        Raises:
            queue.Empty: There is none now.
            ClosedError: There is none, and there will be none; or the error of :meth:`get`.
        """
        try:
            return self.get(timeout=0)
        except (MeteredTimeoutError, WrongThreadError):  # (the latter: another call is at it)
            raise queue.Empty from None

    def __next__(self) -> NDArray[np.int16]:
        try:
            return self.get()
        except ClosedError:
            raise StopIteration from None

    def close(self) -> None:
        """Stop receiving. What is queued can still be read; blocked readers wake."""
        self._frames.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def chunk_samples(rate: int, layout: object, chunk: float) -> int:
    """Return the number of samples of a chunk; refuse arguments that make no sense."""
    if layout not in CHANNEL_COUNTS:
        raise ValueError(f'layout must be "mono" or "stereo", not {shown(layout)}')
    given, number = chunk, plain_number(chunk)
    if number is None:
        raise TypeError(f"chunk must be a number of seconds, not {shown(given)}")
    chunk = number
    if not 0 < chunk < math.inf or round(chunk * rate) < 1:
        raise ValueError(
            f"chunk must be seconds enough for one sample at least, not {shown(chunk)}"
        )
    if chunk > MAX_CHUNK:
        raise ValueError(
            f"chunk is in seconds, at most {MAX_CHUNK}, and not {chunk!r}: for {chunk:g} samples "
            f"pass chunk={chunk:g} / {rate}"
        )
    return round(chunk * rate)


class _ChunkCutter:
    """Cut frames into chunks of one length; on one thread at a time."""

    def __init__(self, rate: int, layout: str, samples: int) -> None:
        self._rate, self._layout, self._samples = rate, layout, samples
        self._width = 2 * CHANNEL_COUNTS[layout]  # bytes of a sample
        self._ready = bytearray()
        self._resampler = Resampler(rate, CHANNEL_COUNTS[layout])
        self._due: float | None = None  # when the next frame should begin, in the source's time
        keep_in_child(self)

    def chunk(self) -> NDArray[np.int16] | None:
        """Return a chunk if one is complete."""
        size = self._samples * self._width
        if len(self._ready) < size:
            return None
        array = np.frombuffer(self._ready[:size], np.int16)
        del self._ready[:size]
        return array if self._layout == "mono" else array.reshape(-1, 2)

    def add(self, frame: AudioFrame, *, follows: bool) -> None:
        """Add a frame; ``follows``: none between it and the one before was dropped."""
        missing = 0.0
        if frame.time is not None and self._due is not None and follows:
            missing = frame.time - self._due
        if missing > MIN_GAP or not follows:
            self._ready += self._resampler.flush().tobytes()
        if MIN_GAP < missing < MIN_PAUSE:
            self._ready += bytes(round(missing * self._rate) * self._width)
        self._ready += self._resampler.convert(frame).tobytes()
        if frame.time is not None:
            self._due = frame.time + frame.samples / frame.sample_rate

    def finish(self) -> None:
        """Fill the last chunk up with silence."""
        self._ready += self._resampler.flush().tobytes()
        missing = -len(self._ready) % (self._samples * self._width)
        self._ready += bytes(missing)
