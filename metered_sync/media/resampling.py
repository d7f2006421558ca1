"""Resample sound of any kind to samples of one rate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from av import AudioFrame, AudioResampler

from metered_sync.engine.webrtc.media_frames import interleaved, mixed_down, sound_kind
from metered_sync.media.pyav import OPEN_ERRORS
from metered_sync.wire.arguments import check_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Resampler", "check_rate"]


def check_rate(name: str, rate: object) -> int:
    """Return a rate of samples; ``ValueError`` for what is none."""
    return check_whole(name, rate, 1000, 384000, unit="samples per second")


class Resampler:
    """Resample frames, whose format, layout and rate may change; on one thread at a time."""

    def __init__(self, rate: int, channels: int) -> None:
        """Prepare to make samples of one rate, of one channel or two."""
        self._rate, self._channels = rate, channels
        self._resampler: AudioResampler | None = None
        self._kind: tuple[str, str, int] | None = None

    def convert(self, frame: AudioFrame) -> NDArray[np.int16]:
        """Return the samples that are ready, of shape (samples, channels); mono is repeated.

        Raises:
            FFmpegError, ValueError: This kind of sound cannot be converted; others can.
        """
        before = np.zeros((0, self._channels), np.int16)
        frame = mixed_down(frame)
        kind = sound_kind(frame)
        if self._resampler is None or kind != self._kind:
            before = self.flush()
            mono = self._channels == 1 or frame.layout.nb_channels == 1
            self._resampler = AudioResampler("s16", "mono" if mono else "stereo", self._rate)
            self._kind = kind
        try:
            return np.concatenate((before, self._samples(self._resampler.resample(frame))))
        except OPEN_ERRORS:
            self._resampler = None
            raise

    def flush(self) -> NDArray[np.int16]:
        """Return the samples that were held back; the next frame begins anew."""
        resampler, self._resampler = self._resampler, None
        return self._samples(() if resampler is None else resampler.resample(None))

    def _samples(self, frames: Iterable[Any]) -> NDArray[np.int16]:
        # (A resampler that has nothing to do answers ``None`` when flushed.)
        parts = [interleaved(frame, self._channels) for frame in frames if frame is not None]
        return np.concatenate((np.zeros(0, np.int16), *parts)).reshape(-1, self._channels)
