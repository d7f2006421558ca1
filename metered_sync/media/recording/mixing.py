"""Mix the sound of several tracks into one stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from av import AudioFrame

from metered_sync.engine.webrtc.media_frames import AUDIO_RATE
from metered_sync.media.recording.clock import MAX_SLEW
from metered_sync.media.resampling import Resampler

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Mixer", "MixerInput"]

MIN_SOUND_GAP = 0.005
"""Seconds between two pieces of sound that are a gap in it."""
MAX_STRETCHED_OFFSET = 0.1
"""Seconds by which sound may be off its place and still be stretched, not cut."""
MAX_IGNORED_OFFSET = 0.002
"""Seconds by which sound may be off its place without being stretched."""


class Mixer:
    """Add up the sound of several tracks, 48 kHz and stereo, with silence where there is none."""

    def __init__(self) -> None:
        self.position = 0
        """Samples taken out so far."""
        self._sum = np.zeros((0, 2), np.int32)

    def add(self, position: int, samples: NDArray[np.int16]) -> None:
        """Add sound at a position in samples; the part before :attr:`position` is left out."""
        late = max(self.position - position, 0)
        samples = samples[late:]
        start = position + late - self.position
        missing = start + len(samples) - len(self._sum)
        if missing > 0:
            self._sum = np.concatenate((self._sum, np.zeros((missing, 2), np.int32)))
        self._sum[start : start + len(samples)] += samples

    def skip(self, count: int) -> None:
        """Go on from a later position, in samples from the present one."""
        self.take(self.position + count)

    def take(self, position: int) -> NDArray[np.int16]:
        """Take out the mixed sound up to a position in samples."""
        count = max(position - self.position, 0)
        ready, self._sum = self._sum[:count], self._sum[count:]
        self.position += count
        mixed = np.zeros((count, 2), np.int16)
        mixed[: len(ready)] = ready.clip(-32768, 32767)
        return mixed


class MixerInput:
    """Bring the sound of one track into a mixer, each frame in its place."""

    def __init__(self, mixer: Mixer) -> None:
        self.end = 0
        """The position, in samples, up to which sound was added."""
        self._mixer = mixer
        self._resampler = Resampler(AUDIO_RATE, 2)
        self._expected: float | None = None

    def write(self, frame: AudioFrame, media: float, at: float) -> None:
        """Add a frame that belongs ``at`` seconds; its own time tells where gaps are."""
        samples = self._resampler.convert(frame)
        joined = self._expected is not None and abs(media - self._expected) < MIN_SOUND_GAP
        self._expected = media + frame.samples / frame.sample_rate
        place = round(at * AUDIO_RATE)
        off = place - self.end
        if not joined or abs(off) > MAX_STRETCHED_OFFSET * AUDIO_RATE:
            samples, self.end = samples[max(-off, 0) :], max(place, self.end)
        elif abs(off) > MAX_IGNORED_OFFSET * AUDIO_RATE:
            most = round(len(samples) * MAX_SLEW)
            samples = _stretched(samples, len(samples) + max(-most, min(most, off)))
        self._mixer.add(self.end, samples)
        self.end += len(samples)


def _stretched(samples: NDArray[np.int16], length: int) -> NDArray[np.int16]:
    """Return the same sound in another length; a hundredth more or less is not heard."""
    if len(samples) < 2:
        return samples
    at = np.linspace(0, len(samples) - 1, length)
    here = np.arange(len(samples))
    return np.stack([np.interp(at, here, samples[:, i]) for i in (0, 1)], axis=1).astype(np.int16)
