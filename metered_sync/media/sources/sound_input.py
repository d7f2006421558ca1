"""Convert bytes, arrays and frames of sound to the format that is sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from av import AudioFrame, AudioLayout

from metered_sync.engine.webrtc.media_frames import AUDIO_RATE, sound_kind
from metered_sync.media.pyav import OPEN_ERRORS, reason_of
from metered_sync.media.resampling import Resampler, check_rate
from metered_sync.wire.arguments import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SoundConverter"]

CONVERTED_AT_ONCE = 0.1
"""Seconds of sound that are converted at once, so that little is held twice."""
MAX_FLOAT_SAMPLE = 4.0
"""The greatest float sample that is accepted: some exceed 1 a little, others are not scaled."""

SoundInput = Any
"""A ``memoryview``, an array or an ``av.AudioFrame``."""


class SoundConverter:
    """Convert sound to 48 kHz, stereo, signed 16 bits; on one thread at a time."""

    def __init__(self, rate: int, layout: str) -> None:
        """Prepare for bytes and arrays of this rate and layout."""
        rate = check_rate("input_rate", rate)
        if not isinstance(layout, str):
            raise TypeError(f"input_layout must be a str, not {type(layout).__name__}")
        try:
            self._channels = AudioLayout(layout).nb_channels
        except ValueError:
            raise ValueError(
                'input_layout must be "mono", "stereo" or another layout that FFmpeg knows, '
                f"not {shown(layout)}"
            ) from None
        self._rate, self._layout = rate, layout
        self.reset()

    def reset(self) -> None:
        """Forget the sound that came before."""
        self._rest = b""  # the beginning of a sample
        self._resampler = Resampler(AUDIO_RATE, 2)

    def check(self, sound: SoundInput) -> SoundInput:
        """Return sound as a memoryview, an array or a frame; refuse what cannot be played."""
        if isinstance(sound, AudioFrame):
            return sound
        if isinstance(sound, np.ndarray):
            return self._checked(sound)
        try:
            return memoryview(sound).cast("B")
        except TypeError:
            raise TypeError(
                "bytes, an array of int16 or float, or an av.AudioFrame can be played, not "
                f"{type(sound).__name__}"
                + (": numpy.array(…, numpy.int16) makes one" if isinstance(sound, Sequence) else "")
            ) from None

    def convert(self, sound: SoundInput) -> Iterator[memoryview]:
        """Convert the sound that :meth:`check` returned; yield it in pieces."""
        if isinstance(sound, memoryview):
            for samples in self._whole_samples(sound):
                yield self._resample(self._frame(samples))
            return
        self._rest = b""
        if isinstance(sound, AudioFrame):
            yield self._resample(sound)
            return
        size = round(CONVERTED_AT_ONCE * self._rate)
        for start in range(0, len(sound), size):
            yield self._resample(self._frame(sound[start : start + size]))

    def flush(self) -> memoryview:
        """Return the sound that the converter still holds, at the end."""
        return memoryview(self._resampler.flush().tobytes())

    def _checked(self, sound: NDArray[Any]) -> NDArray[Any]:
        if sound.dtype != np.int16 and sound.dtype.kind != "f":
            raise TypeError(
                f"samples must be int16, or floating point from -1 to 1, not {sound.dtype}: "
                "scale them, and convert with .astype(numpy.int16)"
            )
        if sound.ndim not in (1, 2):
            raise ValueError(
                "an array of sound has the shape (samples,) or (samples, channels), not "
                f"{sound.shape}"
            )
        fitting = (1, 2, self._channels)
        if sound.shape[0] == 1 and sound.shape[-1] not in fitting:
            columns = sound.shape[-1]
            if columns % self._channels == 0:  # packed, as PyAV has them
                sound = sound.reshape(-1, self._channels)
        if sound.ndim == 2 and sound.shape[1] not in fitting:
            hint = ": transpose it (array.T)" if sound.shape[0] <= 8 else ""
            raise ValueError(
                f"an array of the shape {sound.shape} has {sound.shape[1]} channels, and this "
                f"source is {self._layout}{hint}"
            )
        if sound.dtype.kind == "f" and not np.all(np.abs(sound) <= MAX_FLOAT_SAMPLE):
            raise ValueError(
                "floating-point samples are from -1 to 1, and these go beyond (or are NaN): "
                "divide them by their full scale, or convert with .astype(numpy.int16)"
            )
        return sound[:, None] if sound.ndim == 1 else sound

    def _whole_samples(self, data: memoryview) -> Iterator[NDArray[Any]]:
        """Yield arrays of whole samples; keep the rest of one for the next bytes."""
        width = 2 * self._channels
        lead = self._rest
        left = (len(lead) + len(data)) % width
        if left > len(data):  # not even one
            self._rest = lead + bytes(data)
            return
        end = len(data) - left
        self._rest = bytes(data[end:])
        size = round(CONVERTED_AT_ONCE * self._rate) * width
        start = 0
        while start < end:
            stop = min(start + size - len(lead), end)
            whole = lead + bytes(data[start:stop])
            yield np.frombuffer(whole, "<i2").reshape(-1, self._channels)
            start, lead = stop, b""

    def _frame(self, samples: NDArray[Any]) -> AudioFrame:
        channels = samples.shape[1]
        names = {1: "mono", 2: "stereo", self._channels: self._layout}
        format, dtype = ("flt", np.float32) if samples.dtype.kind == "f" else ("s16", np.int16)
        interleaved: NDArray[Any] = np.ascontiguousarray(samples, dtype).reshape(1, -1)
        frame = AudioFrame.from_ndarray(interleaved, format=format, layout=names[channels])
        frame.sample_rate = self._rate
        return frame

    def _resample(self, frame: AudioFrame) -> memoryview:
        try:
            return memoryview(self._resampler.convert(frame).tobytes())
        except OPEN_ERRORS as error:
            kind = sound_kind(frame)
            raise ValueError(
                f"sound of the kind {kind} cannot be converted: {reason_of(error)}"
            ) from error
