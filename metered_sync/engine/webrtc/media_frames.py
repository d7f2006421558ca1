"""Make and copy frames of sound and pictures, in the rates and shapes that encoders take."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from av import AudioFrame, AudioResampler, VideoFrame

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "AUDIO_RATE",
    "SAMPLES_PER_FRAME",
    "VIDEO_RATE",
    "Frame",
    "audio_frame",
    "interleaved",
    "mixed_down",
    "needs_padding",
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
MAX_OVERREAD = 64
"""Bytes that FFmpeg's scaler may read past the end of a plane (42 were seen)."""
SMALLEST_PAGE = 4096
"""Bytes of the smallest unit in which a system maps memory."""


def sound_kind(frame: AudioFrame) -> tuple[str, str, int]:
    """Return the format, layout and rate of a frame: a resampler is made for these."""
    return (frame.format.name, frame.layout.name, frame.sample_rate)


def mixed_down(frame: AudioFrame) -> AudioFrame:
    """Return sound whose channels have no places as the average of them all, left and right.

    FFmpeg guesses places for three to eight channels, takes one of them for a subwoofer, and
    leaves that out; of more it leaves out others, or refuses them.
    """
    layout = frame.layout
    if layout.nb_channels < 3 or layout.name != f"{layout.nb_channels} channels":
        return frame
    planar = frame.format.is_planar
    if planar and layout.nb_channels > 8:  # more planes than PyAV (18) can count
        packed = AudioResampler(frame.format.packed.name, layout, frame.sample_rate)
        (frame,) = packed.resample(frame)
        planar = False
    samples: NDArray[Any] = frame.to_ndarray()
    if not planar:
        samples = samples.reshape(-1, layout.nb_channels).T
    average = samples.mean(axis=0, dtype=np.float64).astype(samples.dtype)
    both = np.stack((average, average)) if planar else np.repeat(average, 2)[None]
    mixed = AudioFrame.from_ndarray(both, format=frame.format.name, layout="stereo")
    mixed.sample_rate, mixed.pts = frame.sample_rate, frame.pts
    if frame.time_base is not None:
        mixed.time_base = frame.time_base
    return mixed


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


def needs_padding(frame: VideoFrame) -> bool:
    """Return whether converting a frame may read past its memory, which may be a caller's.

    FFmpeg's scaler reads up to 42 bytes past the last pixel of a plane. Where a picture lies at
    the very end of mapped memory (an ``np.memmap``, memory that is shared) that ends the process.
    One picture in 64 seems to end there by chance.
    """
    return any(
        -(plane.buffer_ptr + plane.buffer_size) % SMALLEST_PAGE < MAX_OVERREAD
        for plane in frame.planes
        if plane.line_size > 0  # (rows that run upwards are FFmpeg's own)
    )


def _copy_rows(mine: Any, theirs: Any) -> None:
    """Copy a plane into another one, whose rows may be longer or shorter in memory."""
    if not mine.line_size:  # a palette
        memoryview(mine)[:] = memoryview(theirs)
        return
    target = np.frombuffer(memoryview(mine), np.uint8).reshape(-1, mine.line_size)
    source = np.frombuffer(memoryview(theirs), np.uint8).reshape(-1, theirs.line_size)
    row = min(target.shape[1], source.shape[1])
    target[:, :row] = source[:, :row]


def private_copy(frame: VideoFrame) -> VideoFrame:
    """Return a copy of a picture in yuv420p, in memory of its own."""
    copy = VideoFrame(frame.width, frame.height, "yuv420p")
    for mine, theirs in zip(copy.planes, frame.planes, strict=True):
        _copy_rows(mine, theirs)
    copy.color_range, copy.colorspace = frame.color_range, frame.colorspace
    return copy
