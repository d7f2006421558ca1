"""Place frames in time: drift, jitter, stalls and jumps."""

from __future__ import annotations

import random

import pytest

from metered_sync.media.recording.clock import TrackClock


def follow(clock: TrackClock, media: float, arrived: float) -> float:
    """Place a frame as a recording does, but with no others held."""
    if not clock.fits(media, arrived):
        clock.anchor([(media, arrived)])
    return clock.place(media, arrived)


def test_drift_is_followed_and_jitter_is_not() -> None:
    clock, draw = TrackClock(), random.Random(1)
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
    clock = TrackClock()
    for number in range(50):
        follow(clock, number * 0.1, 100 + number * 0.1)
    late = [(n * 0.1, max(100 + n * 0.1, 109.0)) for n in range(50, 95)]
    assert not clock.fits(*late[0])  # four seconds late
    clock.anchor(late)
    for media, arrived in late:
        assert abs(clock.place(media, arrived) - (100 + media)) < 0.001


@pytest.mark.parametrize("jump", [-3.0, 30.0])
def test_a_clock_that_jumps_is_placed_anew(jump: float) -> None:
    clock = TrackClock()
    for number in range(50):
        follow(clock, number * 0.1, 100 + number * 0.1)
    for number in range(50, 100):
        at = 100 + number * 0.1
        assert follow(clock, number * 0.1 + jump, at) == pytest.approx(at)
