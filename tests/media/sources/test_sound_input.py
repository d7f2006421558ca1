"""Convert bytes, arrays and frames of sound of any rate, layout and format."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from av import AudioFrame, AudioLayout
from numpy.typing import NDArray

from metered_sync.media.sources.sound_input import SoundConverter
from metered_sync.testing import dominant_frequency
from tests.support.listening import tone


def converted(converter: SoundConverter, *sounds: Any) -> NDArray[Any]:
    """Return sounds converted: the left channel, without silence around it."""
    data = b"".join(
        bytes(piece) for sound in sounds for piece in converter.convert(converter.check(sound))
    )
    left: NDArray[Any] = np.frombuffer(data + bytes(converter.flush()), np.int16)[::2]
    (loud,) = np.nonzero(left)
    return left[loud[0] : loud[-1] + 1]


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_any_rate_and_layout(rate: int, layout: str) -> None:
    wave = tone(700, 0.3, rate)
    data = (wave if layout == "mono" else np.repeat(wave, 2)).tobytes()
    heard = converted(SoundConverter(rate, layout), data)
    assert len(heard) == pytest.approx(14400, abs=60)
    assert dominant_frequency(heard, 48000) == pytest.approx(700, abs=3)


def test_bytes_may_be_cut_anywhere() -> None:
    sound = np.stack([tone(500, 0.3), tone(900, 0.3)], axis=1)
    data = sound.tobytes()
    pieces: list[Any] = []
    at, step = 0, 1
    while at < len(data):
        pieces.append(memoryview(bytearray(data[at : at + step])))
        at, step = at + step, step % 1001 + 2
    cut = converted(SoundConverter(16000, "stereo"), *pieces, b"")
    assert np.array_equal(cut, converted(SoundConverter(16000, "stereo"), data))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("channels", [1, 2])
def test_arrays_of_floats_and_of_one_or_two_channels(dtype: str, channels: int) -> None:
    expected = converted(SoundConverter(48000, "mono"), tone(440, 0.2, 48000))
    wave = (tone(440, 0.2, 48000) / 32768).astype(dtype)
    sound = wave if channels == 1 else np.stack([wave, wave], axis=1)
    found = converted(SoundConverter(48000, "mono"), sound)
    assert np.max(np.abs(found.astype(int) - expected)) <= 1


def test_arrays_need_not_be_contiguous() -> None:
    wave = tone(440, 0.2, 48000)
    every_other = converted(SoundConverter(48000, "mono"), np.repeat(wave, 2)[::2])
    assert np.array_equal(every_other, converted(SoundConverter(48000, "mono"), wave))


def test_floats_a_little_too_loud_are_clipped() -> None:
    loud = np.full(4800, 1.5, np.float32)
    assert set(converted(SoundConverter(48000, "mono"), loud)) == {32767}


@pytest.mark.parametrize(
    ("format", "dtype", "scale", "layout", "rate"),
    [
        ("s16", "i2", 32767, "stereo", 48000),
        ("fltp", "f4", 1, "mono", 22050),
        ("s32", "i4", 2**31 - 1, "5.1", 44100),
        ("dblp", "f8", 1, "stereo", 8000),
    ],
)
def test_frames_of_any_kind(format: str, dtype: str, scale: int, layout: str, rate: int) -> None:
    channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    wave = (tone(600, 0.2, rate) / 32768 * scale).astype(dtype)
    planar = format.endswith("p")
    samples = np.stack([wave] * channels) if planar else np.repeat(wave, channels)[None]
    frame = AudioFrame.from_ndarray(samples, format, layout)
    frame.sample_rate = rate
    frame.pts, frame.time_base = 12345, Fraction(1, rate)
    heard = converted(SoundConverter(16000, "mono"), frame)
    assert (frame.pts, frame.samples) == (12345, len(wave))  # it is the caller's
    assert len(heard) == pytest.approx(9600, rel=0.02)
    assert dominant_frequency(heard, 48000) == pytest.approx(600, abs=5)


def test_kinds_may_be_mixed() -> None:
    frame = AudioFrame.from_ndarray(tone(500, 0.1, 32000)[None], "s16", "mono")
    frame.sample_rate = 32000
    heard = converted(
        SoundConverter(16000, "mono"),
        tone(500, 0.1).tobytes() + b"x",  # what is left of a sample is not one
        tone(500, 0.1) / np.float32(32768),
        frame,
        tone(500, 0.1).tobytes(),
    )
    assert len(heard) == pytest.approx(4 * 4800, abs=60)
    assert dominant_frequency(heard, 48000) == pytest.approx(500, abs=3)


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
@pytest.mark.parametrize("format", ["s16", "flt"])
def test_arrays_of_packed_frames(layout: str, format: str) -> None:
    """As PyAV has them: one row, of the channels' samples in turn."""
    channels = AudioLayout(layout).nb_channels
    wave = tone(500, 0.2)[:, None].repeat(channels, 1)
    samples = wave if format == "s16" else (wave / np.float32(32768))
    frame = AudioFrame.from_ndarray(samples.reshape(1, -1), format, layout)
    packed = frame.to_ndarray()
    assert packed.shape == (1, 3200 * channels)
    heard = converted(SoundConverter(16000, layout), packed)
    assert len(heard) == pytest.approx(9600, rel=0.02)
    assert dominant_frequency(heard, 48000) == pytest.approx(500, abs=5)


BAD_SOUND: list[tuple[Any, type[Exception], str]] = [
    ("text", TypeError, "bytes, an array of int16 or float, or an av.AudioFrame"),
    (None, TypeError, "not NoneType"),
    ([1, 2], TypeError, "not list"),
    (np.zeros(5, np.int32), TypeError, r"not int32: scale them.*astype\(numpy.int16\)"),
    (np.zeros(5, np.uint8), TypeError, "not uint8"),
    (np.zeros((5, 2, 2), np.int16), ValueError, r"shape \(samples,\)"),
    (np.zeros((3, 16000), np.int16), ValueError, r"16000 channels.*transpose"),
    (np.zeros((500, 6), np.float32), ValueError, "6 channels, and this source is mono"),
    (np.full(5, 20000.0), ValueError, "divide them"),
    (np.full(5, np.nan), ValueError, "NaN"),
    (np.full(5, np.inf, np.float32), ValueError, "divide them"),
]


@pytest.mark.parametrize(("sound", "kind", "message"), BAD_SOUND)
def test_what_cannot_be_played_is_refused(sound: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        SoundConverter(16000, "mono").check(sound)


def test_a_reset_forgets_half_a_sample() -> None:
    converter = SoundConverter(48000, "mono")
    assert b"".join(map(bytes, converter.convert(converter.check(b"x")))) == b""
    converter.reset()
    data = tone(440, 0.1, 48000).tobytes()
    heard = np.frombuffer(b"".join(map(bytes, converter.convert(converter.check(data)))), np.int16)
    assert np.array_equal(heard[::2], np.frombuffer(data, np.int16))
