"""Make and copy frames of sound and pictures, in the rates and shapes that encoders take."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from av import AudioFrame, VideoFrame
from av.video.reformatter import VideoReformatter

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "AUDIO_RATE",
    "SAMPLES_PER_FRAME",
    "VIDEO_RATE",
    "Frame",
    "audio_frame",
    "interleaved",
    "private_copy",
    "sound_kind",
]

Frame = AudioFrame | VideoFrame
AUDIO_RATE = 48000
"""Samples of sound a second, of each channel."""
VIDEO_RATE = 90000
"""Ticks a second of a picture's timestamp (RFC 3551)."""
SAMPLES_PER_FRAME = 960
"""Samples of each audio frame that is sent: 20 ms, the amount that an encoder takes at once."""


def sound_kind(frame: AudioFrame) -> tuple[str, str, int]:
    """Return the format, layout and rate of a frame: a resampler is made for these."""
    return (frame.format.name, frame.layout.name, frame.sample_rate)


def interleaved(frame: AudioFrame, channels: int) -> NDArray[np.int16]:
    """Return a frame's samples (packed s16) in one row; mono goes to both channels as it is.

    (FFmpeg would play it 3 dB softer on both, so it is asked for mono.)
    """
    samples: NDArray[Any] = frame.to_ndarray()
    return np.repeat(samples, 2) if frame.layout.nb_channels < channels else samples.ravel()


def audio_frame(pts: int, samples: bytes) -> AudioFrame:
    """Return a frame of 20 ms of sound (s16, stereo)."""
    frame = AudioFrame(format="s16", layout="stereo", samples=SAMPLES_PER_FRAME)
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
