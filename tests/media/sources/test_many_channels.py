"""Play sound of many channels that says nothing about their places: every one is heard."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from av import AudioFrame, AudioResampler

from metered_sync.engine.sending.timeline import AudioTimeline
from metered_sync.engine.webrtc.media_frames import mixed_down
from metered_sync.media.resampling import Resampler
from metered_sync.media.sources.demuxing import Reading

LOUD = 12000
COUNTS = (3, 4, 5, 6, 7, 8, 9, 10, 16, 24, 32)


def one_loud(channels: int, loud: int, samples: int = 4800) -> np.ndarray:
    """Return sound in one of many channels: a square wave of 500 Hz."""
    sound = np.zeros((samples, channels), np.int16)
    sound[:, loud] = np.where(np.arange(samples) // 48 % 2, LOUD, -LOUD)
    return sound


def strength(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples.astype(float) ** 2)))


@pytest.mark.parametrize("channels", COUNTS)
def test_every_channel_of_a_file_is_heard(tmp_path: Path, channels: int) -> None:
    levels = []
    chosen = sorted({0, 2, 3 % channels, channels - 1})
    for loud in chosen:
        with wave.open(str(tmp_path / "x.wav"), "wb") as file:
            file.setnchannels(channels)
            file.setsampwidth(2)
            file.setframerate(48000)
            file.writeframes(one_loud(channels, loud).tobytes())
        with Reading(str(tmp_path / "x.wav"), ["audio"], 0.0) as reading:
            pieces = [frame.to_ndarray() for _, _, frame in reading]
        levels.append(strength(np.concatenate(pieces, axis=1)))
    assert levels == pytest.approx([LOUD / channels] * len(chosen), rel=0.1)


@pytest.mark.parametrize("format", ["u8", "s16", "s32", "flt", "dbl", "s16p", "fltp"])
@pytest.mark.parametrize("channels", [3, 9])
def test_in_every_format(format: str, channels: int) -> None:
    kinds = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "flt": np.float32, "dbl": np.float64}
    kind = kinds[format.rstrip("p")]
    scale = {"u8": 90, "s16": 9000, "s32": 9 << 26, "flt": 0.9, "dbl": 0.9}[format.rstrip("p")]
    rest = 128 if format == "u8" else 0
    sound = np.full((960, channels), rest, kind)
    sound[:, -1] = scale + rest
    rows = sound.T if format.endswith("p") else sound.reshape(1, -1)
    layout = f"{channels} channels"
    if channels > 8 and format.endswith("p"):  # which PyAV cannot make of an array
        packed = AudioFrame.from_ndarray(sound.reshape(1, -1), format[:-1], layout)
        packed.sample_rate = 48000
        (frame,) = AudioResampler(format, layout, 48000).resample(packed)
    else:
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(rows), format, layout)
    frame.sample_rate, frame.pts = 48000, 7
    mixed = mixed_down(frame)
    assert (mixed.layout.name, mixed.samples, mixed.pts) == ("stereo", 960, 7)
    assert mixed.to_ndarray() == pytest.approx(scale / channels + rest, rel=0.01, abs=1)


@pytest.mark.parametrize("layout", ["mono", "stereo", "2.1", "5.1", "7.1", "1 channels"])
def test_channels_that_have_places_are_left_alone(layout: str) -> None:
    frame = AudioFrame(format="s16", layout=layout, samples=8)
    frame.sample_rate = 48000
    assert mixed_down(frame) is frame


@pytest.mark.parametrize("channels", [3, 6, 9, 24])
def test_frames_of_ones_own_are_sent_and_recorded_so(channels: int) -> None:
    for loud in (0, channels - 1):
        sound = one_loud(channels, loud, 1920).reshape(1, -1)
        frame = AudioFrame.from_ndarray(sound, "s16", f"{channels} channels")
        frame.sample_rate = 48000
        sent = b"".join(part for _, part in AudioTimeline().slices(frame))
        assert strength(np.frombuffer(sent, np.int16)) == pytest.approx(LOUD / channels, rel=0.1)
        recorded = Resampler(48000, 2).convert(frame)
        assert strength(recorded) == pytest.approx(LOUD / channels, rel=0.1)
