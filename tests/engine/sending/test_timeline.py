"""Give frames timestamps that rise, follow their source's own, and bridge its jumps."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import pytest
from av import AudioFrame, VideoFrame

from metered_sync.engine.sending import timeline
from metered_sync.engine.sending.timeline import AudioTimeline, VideoTimeline, ticks


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that a test moves: seconds since the process started."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(timeline, "monotonic", lambda: timeline._started + clock.now)
    return clock


def picture(seconds: float | None, rate: int = 1000) -> VideoFrame:
    frame = VideoFrame(16, 16, "yuv420p")
    if seconds is not None:
        frame.pts, frame.time_base = round(seconds * rate), Fraction(1, rate)
    return frame


def sound(samples: int, rate: int = 48000, layout: str = "stereo") -> AudioFrame:
    frame = AudioFrame("s16", layout, samples)
    frame.planes[0].update(bytes(frame.planes[0].buffer_size))
    frame.sample_rate = rate
    return frame


def test_the_clock_counts_from_the_start_of_the_process(clock: SimpleNamespace) -> None:
    assert (ticks(90000), ticks(48000)) == (9_000_000, 4_800_000)


def test_pictures_follow_the_time_of_their_source(clock: SimpleNamespace) -> None:
    places = VideoTimeline()
    first = places.place(picture(7.0))
    assert first == ticks(90000)  # wherever the source counts from
    clock.now += 0.070  # read late, and still smooth
    assert places.place(picture(7.04)) == first + 3600
    clock.now += 0.010
    assert places.place(picture(7.08)) == first + 7200


@pytest.mark.parametrize("jump", [-5.0, 60.0, 0.0])
def test_a_source_that_jumps_goes_on_from_the_present(clock: SimpleNamespace, jump: float) -> None:
    places = VideoTimeline()
    first = places.place(picture(7.0))
    clock.now += 0.040
    second = places.place(picture(7.0 + jump))
    assert second == ticks(90000) == first + 3600
    clock.now += 0.040
    assert places.place(picture(7.04 + jump)) == second + 3600


def test_pictures_without_a_time_get_that_of_their_arrival(clock: SimpleNamespace) -> None:
    places = VideoTimeline()
    stamps = []
    for pause in (0.0, 0.5, 0.0, 0.001):
        clock.now += pause
        stamps.append(places.place(picture(None)))
    assert stamps[1] - stamps[0] == 45_000
    assert stamps[2] == stamps[1] + 1  # two at one moment: they rise all the same
    assert stamps == sorted(set(stamps))


def test_a_picture_that_is_shown_again_is_stamped_with_the_present(
    clock: SimpleNamespace,
) -> None:
    places = VideoTimeline()
    first = places.place(picture(0.0))
    assert places.again() == first + 1
    clock.now += 1
    again = places.again()
    assert again == ticks(90000)
    clock.now += 0.001
    assert places.place(picture(0.04)) > again


def test_sound_is_counted_in_samples(clock: SimpleNamespace) -> None:
    pieces = AudioTimeline()
    got = []
    for number in range(10):
        clock.now += 0.02 if number % 2 else 0.0  # in bursts
        got += pieces.slices(sound(1000))
    stamps = [pts for pts, _ in got]
    assert stamps[0] == 4_800_000
    assert stamps == list(range(stamps[0], stamps[0] + 960 * len(got), 960))
    assert {len(samples) for _, samples in got} == {960 * 4}


def test_a_pause_leaves_a_gap(clock: SimpleNamespace) -> None:
    pieces = AudioTimeline()
    [(first, _)] = pieces.slices(sound(960))
    clock.now += 0.4  # behind by less than what is made up for
    [(second, _)] = pieces.slices(sound(960))
    assert second == first + 960
    clock.now += 3
    [(third, _)] = pieces.slices(sound(960))
    assert third == ticks(48000)


def test_sound_of_another_shape_is_converted(clock: SimpleNamespace) -> None:
    pieces = AudioTimeline()
    for rate, layout in ((8000, "mono"), (44100, "stereo"), (48000, "5.1")):
        got = [part for _ in range(50) for part in pieces.slices(sound(rate // 50, rate, layout))]
        assert len(got) >= 48
        assert {len(samples) for _, samples in got} == {960 * 4}
