"""One clock for the frames of all local tracks.

Sources count time as they like: from 0 or from anywhere, in any unit, with gaps, or not
at all. What leaves must rise strictly, also when a sender is handed over from one source
to another: a receiver takes a timestamp that jumps back for one that has wrapped round.
So every frame is put on a clock of this process here. It follows the source's own time,
which is smooth, as long as that keeps near the real one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from av import AudioFrame, AudioResampler, VideoFrame
from av.video.reformatter import VideoReformatter

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "AUDIO_RATE",
    "SLACK",
    "SLICE",
    "VIDEO_RATE",
    "AudioTimeline",
    "VideoTimeline",
    "audio_frame",
    "interleaved",
    "private_copy",
    "sound_kind",
    "ticks",
]

AUDIO_RATE = 48000
VIDEO_RATE = 90000
SLICE = 960
"""Samples of each audio frame that leaves: 20 ms, what an encoder takes at once."""
SLACK = 0.5
"""Seconds by which a source may be behind the clock, and ahead of it without being held up."""
LEAD = 2.0
"""Seconds by which timestamps may be ahead of the clock."""

_started = time.monotonic()


def ticks(rate: int) -> int:
    """Return the present moment on the clock."""
    return round((time.monotonic() - _started) * rate)


class VideoTimeline:
    """Places the pictures of a source on the clock."""

    def __init__(self) -> None:
        self._offset: int | None = None
        self._last = -1

    def again(self) -> int:
        """Return a timestamp for the latest picture to be shown once more, now."""
        self._last = max(ticks(VIDEO_RATE), self._last + 1)
        return self._last

    def place(self, frame: VideoFrame) -> int:
        """Return a frame's timestamp, in 1/90000 s."""
        now = ticks(VIDEO_RATE)
        stamped = frame.pts is not None and frame.time_base
        own = round(frame.time * VIDEO_RATE) if stamped else now
        pts = now if self._offset is None else own + self._offset
        astray = not now - SLACK * VIDEO_RATE < pts < now + LEAD * VIDEO_RATE
        if pts <= self._last or astray:
            pts = max(now, self._last + 1)
        self._offset = pts - own
        self._last = pts
        return pts


class AudioTimeline:
    """Cuts the sound of a source into slices, on the clock.

    Samples are counted, which is the smoothest there is. A source that pauses leaves a gap.
    """

    def __init__(self) -> None:
        self._resampler: AudioResampler | None = None
        self._shape: tuple[str, str, int] | None = None
        self._next: int | None = None

    def slices(self, frame: AudioFrame) -> Iterator[tuple[int, bytes]]:
        """Return what is complete: timestamps in 1/48000 s; 960 samples, s16, stereo.

        An encoder of aiortc refuses a frame whose rate or layout is not that of the first.
        """
        shape = sound_kind(frame)
        if self._resampler is None or shape != self._shape:
            self._resampler = AudioResampler("s16", "stereo", AUDIO_RATE, frame_size=SLICE)
            self._shape = shape
        for part in self._resampler.resample(frame):
            now = ticks(AUDIO_RATE)
            if self._next is None or self._next < now - SLACK * AUDIO_RATE:
                self._next = now
            yield self._next, bytes(part.planes[0])[: SLICE * 4]
            self._next += SLICE


def sound_kind(frame: AudioFrame) -> tuple[str, str, int]:
    """Return what a resampler is made for: format, layout, rate."""
    return (frame.format.name, frame.layout.name, frame.sample_rate)


def interleaved(frame: AudioFrame, channels: int) -> NDArray[np.int16]:
    """Return a frame's samples (packed s16), sample by sample; mono goes to both as it is.

    (FFmpeg would play it 3 dB softer on both, so it is asked for mono.)
    """
    samples: NDArray[Any] = frame.to_ndarray()
    return np.repeat(samples, 2) if frame.layout.nb_channels < channels else samples.ravel()


def audio_frame(pts: int, samples: bytes) -> AudioFrame:
    """Return a frame of one slice."""
    frame = AudioFrame(format="s16", layout="stereo", samples=SLICE)
    frame.planes[0].update(samples)
    frame.sample_rate = AUDIO_RATE
    frame.pts, frame.time_base = pts, Fraction(1, AUDIO_RATE)
    return frame


def private_copy(frame: VideoFrame, reformatter: VideoReformatter) -> VideoFrame:
    """Return a copy, as yuv420p of even size, that may be stamped and encoded.

    An encoder writes into the frame it is given: its time base, its picture type. Nor
    may two threads convert a frame with what is kept in it for that. H264 has no odd sizes.
    """
    width, height = max(frame.width & ~1, 2), max(frame.height & ~1, 2)
    if (frame.format.name, frame.width, frame.height) != ("yuv420p", width, height):
        return reformatter.reformat(frame, width, height, "yuv420p")
    copy = VideoFrame(width, height, "yuv420p")
    for mine, theirs in zip(copy.planes, frame.planes, strict=True):
        target = np.frombuffer(memoryview(mine), np.uint8).reshape(mine.height, -1)
        source = np.frombuffer(memoryview(theirs), np.uint8).reshape(theirs.height, -1)
        row = min(target.shape[1], source.shape[1])
        target[:, :row] = source[:, :row]
    return copy
