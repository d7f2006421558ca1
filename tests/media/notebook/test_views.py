"""Render pictures and levels."""

from __future__ import annotations

import io
import math

import av
import numpy as np
import pytest

from metered_sync.media.notebook import views
from metered_sync.media.notebook.views import LevelView, PictureView, loudness
from tests.support.far_end import picture


def sine(peak: float, format: str = "s16", samples: int = 4800) -> av.AudioFrame:
    wave = np.sin(np.arange(samples) * 2 * math.pi * 10 / samples) * peak
    if format == "s16":
        wave = np.round(wave * 32767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(
        wave[None].astype(np.int16 if format == "s16" else np.float32), format, "mono"
    )
    frame.sample_rate = 48000
    return frame


@pytest.mark.parametrize("format", ["s16", "flt"])
def test_loudness(format: str) -> None:
    level, peak = loudness([sine(1, format), sine(1, format)])
    assert (level, peak) == (pytest.approx(-3.01, abs=0.01), pytest.approx(0, abs=0.01))
    level, peak = loudness([sine(0.1, format)])
    assert (level, peak) == (pytest.approx(-23.01, abs=0.01), pytest.approx(-20, abs=0.01))
    assert loudness([sine(0, format)]) == (-math.inf, -math.inf)
    assert loudness([]) == (-math.inf, -math.inf)


def test_the_meters_peak_falls_late(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = LevelView()
    now = [100.0]
    monkeypatch.setattr(views, "monotonic", lambda: now[0])
    texts = []
    for peak, moment in ((1, 0.0), (0.1, 1.0), (0.1, 1.6), (0.5, 1.7), (0, 4.0)):
        now[0] = 100 + moment
        texts.append(meter.render([sine(peak)]).text)
    assert texts == [
        " -3.0 dBFS, peak  -0.0",
        "-23.0 dBFS, peak  -0.0",
        "-23.0 dBFS, peak -20.0",
        " -9.0 dBFS, peak  -6.0",
        "   -∞ dBFS, peak    -∞",
    ]


def test_before_the_first_picture() -> None:
    state = PictureView("video track '<&>'", 320, 70).render_empty()
    assert (state.mime, state.text) == ("image/svg+xml", "no picture of the video track '<&>' yet")
    assert b'width="320" height="180"' in state.data
    assert b"&lt;&amp;&gt;" in state.data
    assert state.bundle()["image/svg+xml"].startswith("<svg")


def test_the_newest_picture_is_shown_in_the_size_that_was_asked_for() -> None:
    view = PictureView("video track 'x'", 32, 70)
    state = view.render([picture(20), picture(180)])
    assert (state.mime, state.text) == ("image/jpeg", "a picture of the video track 'x'")
    with av.open(io.BytesIO(state.data)) as file:
        image = next(file.decode(video=0)).to_ndarray(format="gray")
    assert image.shape == (24, 32)
    assert float(image[:10].mean()) == pytest.approx(180, abs=8)


def test_silence_is_the_meters_left_end() -> None:
    meter = LevelView()
    for state in (meter.render_empty(), meter.render([])):
        assert state.mime == "text/html"
        assert b"width:0.0%" in state.data
        assert state.text == "   -∞ dBFS, peak    -∞"
