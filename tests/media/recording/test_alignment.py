"""Placing tracks in time."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest
from av import AudioFrame, VideoFrame

from metered_sync.media.recording.alignment import Clock, Fitter, Mixer, Voice

RATE = 48000


def follow(clock: Clock, media: float, arrived: float) -> float:
    """Place a frame as a recording does, but with no others held."""
    if not clock.fits(media, arrived):
        clock.anchor([(media, arrived)])
    return clock.place(media, arrived)


def test_drift_is_followed_and_jitter_is_not() -> None:
    clock, draw = Clock(), random.Random(1)
    drift, last = 1.0002, -1.0
    clock.anchor([(n * 0.1, 500 + n * 0.1 + draw.expovariate(50)) for n in range(5)])
    for number in range(36000):  # an hour
        media = number * 0.1
        right = 500 + media * drift
        placed = clock.place(media, right + draw.expovariate(50))
        assert abs(placed - right) < (0.04 if number < 100 else 0.01), number
        assert placed - last > 0.09
        last = placed


def test_a_stall_that_is_caught_up_with_moves_nothing() -> None:
    clock = Clock()
    for number in range(50):
        follow(clock, number * 0.1, 100 + number * 0.1)
    late = [(n * 0.1, max(100 + n * 0.1, 109.0)) for n in range(50, 95)]
    assert not clock.fits(*late[0])  # four seconds late
    clock.anchor(late)
    for media, arrived in late:
        assert abs(clock.place(media, arrived) - (100 + media)) < 0.001


@pytest.mark.parametrize("jump", [-3.0, 30.0])
def test_a_clock_that_jumps_is_placed_anew(jump: float) -> None:
    clock = Clock()
    for number in range(50):
        follow(clock, number * 0.1, 100 + number * 0.1)
    for number in range(50, 100):
        at = 100 + number * 0.1
        assert follow(clock, number * 0.1 + jump, at) == pytest.approx(at)


def sound(samples: int, level: int = 1000, rate: int = RATE) -> AudioFrame:
    frame = AudioFrame.from_ndarray(np.full((1, samples), level, np.int16), "s16", "mono")
    frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
    return frame


def test_sound_is_joined_whatever_rounding_does_to_its_place() -> None:
    mixer = Mixer()
    voice = Voice(mixer)
    for number in range(100):
        voice.write(sound(960), number * 0.02, number * 0.02 + (number % 3) * 0.0005)
    assert voice.end == 96000
    assert (mixer.take(96000) == 1000).all()


def test_gaps_are_silent_and_overlaps_are_cut() -> None:
    mixer = Mixer()
    voice = Voice(mixer)
    voice.write(sound(960), 5.0, -0.01)  # half of it before the beginning
    voice.write(sound(960), 5.03, 0.02)
    voice.write(sound(960), 5.04, 0.03)
    mixed = mixer.take(3000)[:, 0]
    assert [int(mixed[i]) for i in (0, 479, 480, 959, 960, 2399, 2400)] == [1000] * 2 + [0] * 2 + [
        1000
    ] * 2 + [0]


def test_drift_stretches_sound() -> None:
    mixer = Mixer()
    voice = Voice(mixer)
    for number in range(1000):  # 20 s, in which it falls behind by 100 ms
        voice.write(sound(960), number * 0.02, number * 0.02 * 1.005)
        assert (mixer.take(voice.end) == 1000).all()
    assert voice.end == pytest.approx(20.1 * RATE, abs=0.003 * RATE)


def test_rates_and_layouts_may_change() -> None:
    mixer = Mixer()
    voice = Voice(mixer)
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


@pytest.mark.parametrize(
    "size", [(640, 360), (90, 160), (33, 17), (2, 200), (161, 121), (160, 120)]
)
@pytest.mark.parametrize("format", ["yuv420p", "rgb24", "yuvj422p", "gray"])
def test_every_size_and_format_fits(size: tuple[int, int], format: str) -> None:
    frame = VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 255, np.uint8), "rgb24")
    fitted = Fitter(160, 120).fit(frame.reformat(format=format))
    image = fitted.to_ndarray(format="gray")
    assert (fitted.width, fitted.height, fitted.format.name) == (160, 120, "yuv420p")
    assert image[60, 79] > 230
    width = min(size[0] * min(160 / size[0], 120 / size[1]), 160)
    assert abs(int((image[60] > 128).sum()) - width) <= 2
