"""Resample sound whose format, layout and rate change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from av import AudioFrame

from metered_sync.media.pyav import OPEN_ERRORS
from metered_sync.media.resampling import Resampler
from metered_sync.testing import dominant_frequency
from tests.support.far_end import sound, tone


def converted(resampler: Resampler, frames: list[AudioFrame]) -> Any:
    return np.concatenate([*(resampler.convert(frame) for frame in frames), resampler.flush()])


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_rates_and_layouts(layout: str, channels: int) -> None:
    frames = sound(tone(440, 0.5, 44100), rate=44100, layout=layout)
    samples = converted(Resampler(16000, channels), frames)
    assert samples.shape == (pytest.approx(8000, abs=2), channels)
    assert samples.dtype == np.int16
    assert dominant_frequency(samples, 16000) == pytest.approx(440, abs=2)
    assert samples[:, 0].max() == pytest.approx(8000, rel=0.03)  # no softer for being mono
    assert (samples == samples[:, :1]).all()


def test_nothing_is_lost_where_the_kind_changes() -> None:
    frames = [
        *sound(tone(440, 0.2, 48000), rate=48000, layout="stereo"),
        *sound(tone(440, 0.2, 8000), rate=8000, layout="mono"),
        *sound(tone(440, 0.2, 22050), rate=22050, layout="mono", format="fltp"),
    ]
    assert len(converted(Resampler(48000, 2), frames)) == pytest.approx(28800, abs=60)


def test_flushing_makes_a_new_beginning() -> None:
    resampler = Resampler(48000, 2)
    assert resampler.flush().shape == (0, 2)
    frames = sound(tone(440, 0.1, 16000), rate=16000, layout="mono")
    first, second = converted(resampler, frames), converted(resampler, frames)
    assert np.array_equal(first, second)
    assert resampler.flush().shape == (0, 2)


def test_after_a_frame_that_cannot_be_converted_others_can() -> None:
    resampler = Resampler(48000, 2)
    impossible = AudioFrame(format="s16", layout="mono", samples=160)
    impossible.sample_rate = 0
    fine = sound(tone(440, 0.1, 16000), rate=16000, layout="mono")
    with pytest.raises(OPEN_ERRORS):
        resampler.convert(impossible)
    assert len(converted(resampler, fine)) == pytest.approx(4800, abs=2)
