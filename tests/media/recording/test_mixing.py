"""Mix sound: joins, gaps, drift, and sums."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from av import AudioFrame

from metered_sync.media.recording.mixing import Mixer, MixerInput

RATE = 48000


def sound(samples: int, level: int = 1000, rate: int = RATE) -> AudioFrame:
    frame = AudioFrame.from_ndarray(np.full((1, samples), level, np.int16), "s16", "mono")
    frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
    return frame


def test_sound_is_joined_whatever_rounding_does_to_its_place() -> None:
    mixer = Mixer()
    voice = MixerInput(mixer)
    for number in range(100):
        voice.write(sound(960), number * 0.02, number * 0.02 + (number % 3) * 0.0005)
    assert voice.end == 96000
    assert (mixer.take(96000) == 1000).all()


def test_gaps_are_silent_and_overlaps_are_cut() -> None:
    mixer = Mixer()
    voice = MixerInput(mixer)
    voice.write(sound(960), 5.0, -0.01)  # half of it before the beginning
    voice.write(sound(960), 5.03, 0.02)
    voice.write(sound(960), 5.04, 0.03)
    mixed = mixer.take(3000)[:, 0]
    assert [int(mixed[i]) for i in (0, 479, 480, 959, 960, 2399, 2400)] == [1000] * 2 + [0] * 2 + [
        1000
    ] * 2 + [0]


def test_drift_stretches_sound() -> None:
    mixer = Mixer()
    voice = MixerInput(mixer)
    for number in range(1000):  # 20 s, in which it falls behind by 100 ms
        voice.write(sound(960), number * 0.02, number * 0.02 * 1.005)
        assert (mixer.take(voice.end) == 1000).all()
    assert voice.end == pytest.approx(20.1 * RATE, abs=0.003 * RATE)


def test_rates_and_layouts_may_change() -> None:
    mixer = Mixer()
    voice = MixerInput(mixer)
    for number, rate in enumerate([8000] * 50 + [44100] * 50):
        voice.write(sound(rate // 50, rate=rate), number * 0.02, number * 0.02)
    assert voice.end == pytest.approx(2 * RATE, abs=0.01 * RATE)


def test_mixing() -> None:
    mixer = Mixer()
    mixer.add(100, np.full((100, 2), 30000, np.int16))
    mixer.add(150, np.full((100, 2), 30000, np.int16))
    mixer.add(150, np.full((10, 2), -30000, np.int16))
    mixed = [int(value) for value in mixer.take(300)[:, 0]]
    assert mixed == [0] * 100 + [30000] * 60 + [32767] * 40 + [30000] * 50 + [0] * 50
    mixer.add(250, np.full((100, 2), 5, np.int16))  # half of it too late
    assert [int(value) for value in mixer.take(360)[:, 1]] == [5] * 50 + [0] * 10
