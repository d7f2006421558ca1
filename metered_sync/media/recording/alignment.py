"""Putting tracks that each count time in their own way on one clock.

A frame says when it is due on its track's own clock, which is smooth but begins anywhere;
when it arrives says when that is here, but networks and buffers delay it, each time by
something else. The least delay is nearest to the truth. So a track is placed by the most
punctual of its frames, then follows its own clock, and its drift is followed slowly.
Seconds are those of ``time.monotonic()``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from av import AudioFrame, AudioResampler, VideoFrame
from av.video.reformatter import VideoReformatter

from metered_sync.engine.webrtc.media_frames import (
    AUDIO_RATE,
    interleaved,
    private_copy,
    sound_kind,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Clock", "Fitter", "Mixer", "Voice"]

WINDOW = 10.0
"""Seconds within which a frame is sought that was not delayed."""
SLEW = 0.01
"""Seconds by which a track is moved in a second, at most, to follow its drift."""
JUMP = 1.0
"""Seconds by which a track may stray from its clock before it is placed anew."""
KEEP = 0.25
"""Seconds between an old place and a new one that are taken for the same."""
GAP = 0.005
"""Seconds between two pieces of sound that are a gap in it."""
FAR = 0.1
"""Seconds by which sound may be off its place and still be stretched, not cut."""
SLACK = 0.002
"""Seconds by which sound may be off its place without being stretched."""


class Clock:
    """Tells when the frames of one track belong."""

    def __init__(self) -> None:
        self._offset: float | None = None
        self._last = 0.0
        self._since = 0.0
        self._least = self._least_before = 0.0

    def fits(self, media: float, arrived: float) -> bool:
        """Return whether a frame can be placed at once: :meth:`anchor` has been called for it."""
        if self._offset is None:
            return False
        return media >= self._last and abs(arrived - media - self._offset) <= JUMP

    def anchor(self, frames: Iterable[tuple[float, float]]) -> None:
        """Place the track anew, by its times and arrivals of a while."""
        frames = tuple(frames)
        least = min(arrived - media for media, arrived in frames)
        if self._offset is None or abs(least - self._offset) > KEEP:
            self._offset = least
        self._least = self._least_before = self._offset
        self._last, self._since = frames[0]

    def place(self, media: float, arrived: float) -> float:
        """Return when a frame belongs."""
        assert self._offset is not None
        if arrived - self._since > WINDOW / 2:
            self._least_before, self._least = self._least, arrived - media
            self._since = arrived
        self._least = min(self._least, arrived - media)
        wanted = min(self._least, self._least_before) - self._offset
        most = max(media - self._last, 0.0) * SLEW
        self._offset += max(-most, min(most, wanted))
        self._last = media
        return media + self._offset


class Fitter:
    """Makes pictures of any size and format fit for one encoder."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._reformatter = VideoReformatter()

    def fit(self, frame: VideoFrame) -> VideoFrame:
        """Return a copy in yuv420p: as it is, or scaled, with black bars where need be."""
        width, height = self.width, self.height
        if (frame.width & ~1, frame.height & ~1) == (width, height):
            return private_copy(frame, self._reformatter)
        scale = min(width / frame.width, height / frame.height)
        inner_width = max(round(frame.width * scale / 2) * 2, 2)
        inner_height = max(round(frame.height * scale / 2) * 2, 2)
        scaled = self._reformatter.reformat(frame, inner_width, inner_height, "yuv420p")
        canvas = VideoFrame(width, height, "yuv420p")
        left, top = (width - inner_width) // 4 * 2, (height - inner_height) // 4 * 2
        for index, (target, source) in enumerate(zip(canvas.planes, scaled.planes, strict=True)):
            half = 2 if index else 1
            pixels, rows = _pixels(target), _pixels(source)[:, : source.width]
            pixels[:] = 128 if index else 16
            y, x = top // half, left // half
            pixels[y : y + source.height, x : x + source.width] = rows
        return canvas


def _pixels(plane: Any) -> NDArray[np.uint8]:
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)


class Mixer:
    """Adds the sound of several tracks, with silence where there is none. 48 kHz, stereo."""

    def __init__(self) -> None:
        self.position = 0
        """Samples taken so far."""
        self._sum = np.zeros((0, 2), np.int32)

    def add(self, position: int, samples: NDArray[np.int16]) -> None:
        """Add sound; what comes too late is left out."""
        late = max(self.position - position, 0)
        samples = samples[late:]
        start = position + late - self.position
        missing = start + len(samples) - len(self._sum)
        if missing > 0:
            self._sum = np.concatenate((self._sum, np.zeros((missing, 2), np.int32)))
        self._sum[start : start + len(samples)] += samples

    def take(self, position: int) -> NDArray[np.int16]:
        """Return the sound up to a position."""
        count = max(position - self.position, 0)
        ready, self._sum = self._sum[:count], self._sum[count:]
        self.position += count
        mixed = np.zeros((count, 2), np.int16)
        mixed[: len(ready)] = ready.clip(-32768, 32767)
        return mixed


class Voice:
    """The sound of one track, on its way into a mixer."""

    def __init__(self, mixer: Mixer) -> None:
        self.end = 0
        """Where it has come to, in samples."""
        self._mixer = mixer
        self._resampler: AudioResampler | None = None
        self._shape: tuple[str, str, int] | None = None
        self._expected: float | None = None

    def write(self, frame: AudioFrame, media: float, at: float) -> None:
        """Add a frame that belongs ``at`` seconds; its own time tells where gaps are."""
        shape = sound_kind(frame)
        if self._resampler is None or shape != self._shape:
            layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
            self._resampler = AudioResampler("s16", layout, AUDIO_RATE)
            self._shape = shape
        samples = np.zeros((0, 2), np.int16)
        for part in self._resampler.resample(frame):
            samples = np.concatenate((samples, interleaved(part, 2).reshape(-1, 2)))
        joined = self._expected is not None and abs(media - self._expected) < GAP
        self._expected = media + frame.samples / frame.sample_rate
        place = round(at * AUDIO_RATE)
        off = place - self.end
        if not joined or abs(off) > FAR * AUDIO_RATE:
            samples, self.end = samples[max(-off, 0) :], max(place, self.end)
        elif abs(off) > SLACK * AUDIO_RATE:
            most = round(len(samples) * SLEW)
            samples = _stretched(samples, len(samples) + max(-most, min(most, off)))
        self._mixer.add(self.end, samples)
        self.end += len(samples)


def _stretched(samples: NDArray[np.int16], length: int) -> NDArray[np.int16]:
    """Return the same sound in another length; for a hundredth, nobody hears it."""
    if len(samples) < 2:
        return samples
    at = np.linspace(0, len(samples) - 1, length)
    here = np.arange(len(samples))
    return np.stack([np.interp(at, here, samples[:, i]) for i in (0, 1)], axis=1).astype(np.int16)
