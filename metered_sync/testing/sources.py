"""Make pictures that can be counted, and sound that can be recognised."""

from __future__ import annotations

import binascii
import itertools
import math
from collections import deque
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from metered_sync.wire.arguments import check_number, plain_number

try:
    import numpy as np
    from aiortc.mediastreams import MediaStreamTrack
    from av import AudioFrame, VideoFrame

    from metered_sync.engine.sending.feed import Feed
    from metered_sync.engine.webrtc.media_frames import AUDIO_RATE, SAMPLES_PER_FRAME
    from metered_sync.media.sources.base import TrackSource
except ModuleNotFoundError as error:
    if error.name is None or error.name.split(".")[0] not in ("aioice", "aiortc", "av", "numpy"):
        raise
    raise ImportError(
        f"metered_sync.testing needs WebRTC ({error.name} is missing): "
        "run  pip install 'metered_sync[webrtc]'"
    ) from error

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PatternSource", "ToneSource", "dominant_frequency", "read_number"]

BLOCK_COLUMNS, BLOCK_ROWS = 8, 5
"""The blocks that show a number: 24 bits of it, and 16 of a checksum."""
BLOCK_COUNT = BLOCK_COLUMNS * BLOCK_ROWS
"""The bits that are shown."""
BLACK, WHITE = 16, 235
"""The brightness of a block, as video has it."""
PREPARED_AHEAD = {"video": 3, "audio": 5}
"""Frames prepared ahead: as few as keep the pace, for what is sent shall be new."""
MAX_STAMPS = 1024
"""Frames whose time of capture is remembered."""


class PatternSource(TrackSource[None, MediaStreamTrack]):
    """Show pictures that carry their running number, from 0, in their pixels.

    The upper half shows the number as black and white blocks, which survive lossy coding
    and scaling: :func:`read_number` gets it back. The lower half is colourful and moves.
    """

    def __init__(
        self,
        width: int = 320,
        height: int = 240,
        fps: float = 30,
        *,
        duration: float | None = None,
    ) -> None:
        """Make the source.

        Args:
            width: In pixels, even, at least 32.
            height: In pixels, even, at least 32.
            fps: Frames per second, above 0 and at most 240.
            duration: Seconds after which it ends; ``None``: it goes on until stopped.
        """
        for name, size in (("width", width), ("height", height)):
            number = plain_number(size)
            if number is None or not (32 <= number < math.inf and number % 2 == 0):
                raise ValueError(f"{name} must be an even number of pixels from 32, not {size!r}")
        width, height = int(width), int(height)
        fps = check_number("fps", fps, 0, 240, above=True)
        count = _count(duration, fps)
        painter = PatternPainter(width, height)
        self._fps = fps

        def produce(feed: Feed) -> None:
            _produce(feed, "video", painter.frame, 90000, 1 / fps, count)

        super().__init__(
            f"PatternSource({width}, {height}, {fps:g})",
            {"video": PREPARED_AHEAD["video"]},
            produce,
        )
        self._stamps = self._feed.queues["video"].stamps = deque(maxlen=MAX_STAMPS)

    def captured(self, number: int) -> float | None:
        """Return the ``time.monotonic()`` at which a frame was handed to the encoder.

        ``None`` where it was not, or is no longer among the latest 1,024.
        """
        for position, moment in tuple(self._stamps):
            if round(position * self._fps) == number:
                return moment
        return None


class ToneSource(TrackSource[MediaStreamTrack, None]):
    """Play a sine: 48 kHz, stereo, 20 ms a frame."""

    def __init__(
        self, frequency: float = 440.0, *, level: float = -12.0, duration: float | None = None
    ) -> None:
        """Make the source.

        Args:
            frequency: In Hz, above 0 and below 24,000.
            level: The sine's peak in dB below full scale (dBFS), at most 0.
            duration: Seconds after which it ends; ``None``: it goes on until stopped.
        """
        pitch, peak_level = plain_number(frequency), plain_number(level)
        if pitch is None or not 0 < pitch < AUDIO_RATE / 2:
            raise ValueError(f"frequency must be above 0 and below 24000 Hz, not {frequency!r}")
        if peak_level is None or not peak_level <= 0:
            raise ValueError(f"level must be at most 0 dBFS, not {level!r}")
        frequency, level = pitch, peak_level
        count = _count(duration, AUDIO_RATE / SAMPLES_PER_FRAME)
        peak = 32767 * 10 ** (level / 20)
        step = 2 * math.pi * frequency / AUDIO_RATE

        def tone(number: int) -> AudioFrame:
            phase = math.fmod(step * SAMPLES_PER_FRAME * number, 2 * math.pi)
            wave = (np.sin(phase + step * np.arange(SAMPLES_PER_FRAME)) * peak).astype(np.int16)
            frame = AudioFrame.from_ndarray(np.repeat(wave, 2)[None], "s16", "stereo")
            frame.sample_rate = AUDIO_RATE
            return frame

        def produce(feed: Feed) -> None:
            _produce(feed, "audio", tone, AUDIO_RATE, SAMPLES_PER_FRAME / AUDIO_RATE, count)

        super().__init__(f"ToneSource({frequency:g})", {"audio": PREPARED_AHEAD["audio"]}, produce)


def read_number(image: NDArray[Any]) -> int | None:
    """Return the frame number that :class:`PatternSource` painted.

    Args:
        image: Grey, BGR or RGB; uint8 of shape (height, width) or (height, width, 3), of
            any size from 16 pixels.

    Returns:
        The number (modulo 2**24), or ``None`` where none can be read with certainty.
    """
    grey = np.asarray(image)
    if grey.ndim not in (2, 3) or min(grey.shape[:2]) < 16:
        return None
    height, width = grey.shape[0] / 2 / BLOCK_ROWS, grey.shape[1] / BLOCK_COLUMNS
    levels = np.array(
        [
            # The middle of a block: its edges blur.
            grey[
                int((row + 0.3) * height) : math.ceil((row + 0.7) * height),
                int((column + 0.3) * width) : math.ceil((column + 0.7) * width),
            ].mean()
            for row in range(BLOCK_ROWS)
            for column in range(BLOCK_COLUMNS)
        ]
    )
    low, high = levels.min(), levels.max()
    if high - low < 64:
        return None
    share = (levels - low) / (high - low)
    if np.any(abs(share - 0.5) < 0.15):
        return None
    code = int("".join("1" if s > 0.5 else "0" for s in share), 2)
    number = code >> 16
    return number if code == _code(number) else None


def dominant_frequency(samples: NDArray[Any], rate: float) -> float:
    """Return the frequency of the loudest tone in Hz.

    Args:
        samples: Of shape (samples,) or (samples, channels); a second or so is precise to
            a fraction of a Hz.
        rate: Samples per second.
    """
    wave = np.asarray(samples, dtype=np.float64)
    if wave.ndim == 2:
        wave = wave.mean(axis=1)
    if wave.ndim != 1 or len(wave) < 16:
        raise ValueError(f"at least 16 samples are needed, not an array of shape {wave.shape}")
    spectrum = np.abs(np.fft.rfft((wave - wave.mean()) * np.hanning(len(wave)))) + 1e-12
    peak = int(spectrum[1:-1].argmax()) + 1
    left, middle, right = np.log(spectrum[peak - 1 : peak + 2])
    shift = (left - right) / (left - 2 * middle + right) / 2  # the parabola's top
    return float((peak + shift) * rate / len(wave))


def _count(duration: float | None, rate: float) -> int | None:
    if duration is None:
        return None
    seconds = plain_number(duration)
    if seconds is None or not 0 < seconds < math.inf:
        raise ValueError(f"duration must be a number of seconds above 0, not {duration!r}")
    return max(1, round(seconds * rate))


def _produce(
    feed: Feed, kind: str, make: Any, clock_rate: int, interval: float, count: int | None
) -> None:
    """Put frames at a constant rate; on the producer's thread."""
    queue = feed.queues[kind]
    offset = 0.0
    going = feed.take_seek() is not None
    for number in itertools.count():
        due = number * interval + offset
        if not going or number == count:
            break
        if late := feed.behind(due):
            offset += late
            due += late
        frame = make(number)
        frame.pts, frame.time_base = round(due * clock_rate), Fraction(1, clock_rate)
        going = queue.put(frame, due, number * interval)
    if going:
        feed.finish(due, number * interval)


def _code(number: int) -> int:
    number &= 0xFFFFFF
    return number << 16 | binascii.crc_hqx(number.to_bytes(3, "big"), 0xFFFF)


class PatternPainter:
    """Paint the pattern, without knowing the source."""

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        half = height // 2
        # Which block each row and column of the upper half belongs to.
        self._rows = np.minimum(np.arange(half) * BLOCK_ROWS * 2 // height, BLOCK_ROWS - 1)
        self._columns = np.arange(width) * BLOCK_COLUMNS // width
        # Waves to slide along: twice as wide as the picture.
        x = np.arange(2 * width)
        self._luma = (126 + 80 * np.sin(x * (8 * math.pi / width))).astype(np.uint8)
        x = np.arange(width)
        self._hue = (128 + 90 * np.sin(x * (4 * math.pi / width))).astype(np.uint8)

    def frame(self, number: int) -> VideoFrame:
        """Return a new frame, in yuv420p."""
        width, height = self._width, self._height
        half, quarter = height // 2, (height // 2 + 1) // 2
        luma = np.empty((height, width), np.uint8)
        bits = (
            np.array(list(f"{_code(number):0{BLOCK_COUNT}b}")).reshape(BLOCK_ROWS, BLOCK_COLUMNS)
            == "1"
        )
        blocks = np.where(bits, np.uint8(WHITE), np.uint8(BLACK))
        luma[:half] = blocks[self._rows][:, self._columns]
        shift = number * 3 % width
        luma[half:] = self._luma[shift : shift + width]
        size = half // 3
        at = abs(number * 5 % (2 * (width - size)) - (width - size))  # to and fro
        luma[half + size : half + 2 * size, at : at + size] = WHITE
        chroma = np.full((2, height // 2, width // 2), 128, np.uint8)
        shift = number * 2 % (width // 2)
        chroma[0, quarter:] = self._hue[shift : shift + width // 2]
        chroma[1, quarter:] = self._hue[width // 2 - shift : width - shift]
        planar = np.concatenate((luma.ravel(), chroma.ravel())).reshape(height * 3 // 2, width)
        return VideoFrame.from_ndarray(planar, format="yuv420p")
