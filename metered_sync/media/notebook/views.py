"""Render a track's frames for a preview: pictures, or a level meter."""

from __future__ import annotations

import math
from html import escape
from typing import Any, Protocol

import numpy as np
from av import AudioFrame

from metered_sync.bridge.clock import monotonic
from metered_sync.media.notebook.output import Rendering
from metered_sync.media.snapshot import jpeg

__all__ = ["LevelView", "PictureView", "View", "loudness"]

SOUND_TIMEOUT = 0.5
"""Seconds without sound after which the meter shows silence."""
PEAK_HOLD = 1.5
"""Seconds for which the meter's peak stays."""
METER_FLOOR = -60.0
"""The meter's left end, in dBFS."""


class View(Protocol):
    """Render a track's frames."""

    timeout: float | None
    """Seconds to wait for frames; ``None``: until some have come."""

    def render_empty(self) -> Rendering:
        """Return the state before there are frames."""

    def render(self, frames: list[Any]) -> Rendering:
        """Return the state for frames that have come since the last time."""


class PictureView:
    """Render the newest picture, as JPEG."""

    timeout: float | None = None

    def __init__(self, label: str, width: int, quality: int) -> None:
        self._label, self._width, self._quality = label, width, quality

    def render_empty(self) -> Rendering:
        width, height = self._width, self._width * 9 // 16
        text = f"no picture of the {self._label} yet"
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
            '<rect width="100%" height="100%" fill="#888" fill-opacity=".25"/>'
            '<text x="50%" y="50%" text-anchor="middle" font-family="sans-serif" '
            f'font-size="13" fill="#888">{escape(text)}</text></svg>'
        )
        return Rendering("image/svg+xml", svg.encode(), text)

    def render(self, frames: list[Any]) -> Rendering:
        data = jpeg(frames[-1], width=self._width, quality=self._quality)
        return Rendering("image/jpeg", data, f"a picture of the {self._label}")


class LevelView:
    """Render how loud sound is: a bar for its energy, a mark for its peak, which falls late."""

    timeout: float | None = SOUND_TIMEOUT

    def __init__(self) -> None:
        self._peak = -math.inf
        self._since = -math.inf  # when the peak was (monotonic())

    def render_empty(self) -> Rendering:
        return self._state(-math.inf)

    def render(self, frames: list[AudioFrame]) -> Rendering:
        level, peak = loudness(frames)
        now = monotonic()
        if peak >= self._peak or now - self._since > PEAK_HOLD:
            self._peak, self._since = peak, now
        return self._state(level)

    def _state(self, level: float) -> Rendering:
        bar, mark = (
            100 * min(max(1 - value / METER_FLOOR, 0.0), 1.0) for value in (level, self._peak)
        )
        text = f"{_decibels(level):>5} dBFS, peak {_decibels(self._peak):>5}"
        html = (
            '<div style="display:flex;align-items:center;gap:10px;font:12px monospace">'
            '<div style="position:relative;overflow:hidden;width:300px;height:12px;'
            'background:#8884">'
            f'<div style="width:{bar:.1f}%;height:100%;background:linear-gradient('
            '90deg,#2a9d4a 80%,#d9a400 80% 95%,#d03a2f 95%) 0/300px"></div>'
            f'<div style="position:absolute;top:0;left:{mark:.1f}%;margin-left:-2px;width:2px;'
            'height:100%;background:currentColor"></div></div>'
            f'<div style="white-space:pre">{text}</div></div>'
        )
        return Rendering("text/html", html.encode(), text)


def loudness(frames: list[AudioFrame]) -> tuple[float, float]:
    """Return the energy and the peak of frames of sound, in dBFS; 0 is full scale."""
    if not frames:
        return -math.inf, -math.inf
    samples = np.concatenate([frame.to_ndarray().ravel() for frame in frames])
    wave = samples / 32768.0 if samples.dtype.kind == "i" else samples
    with np.errstate(divide="ignore"):
        return (
            float(10 * np.log10(np.mean(np.square(wave)))),
            float(20 * np.log10(np.max(np.abs(wave)))),
        )


def _decibels(value: float) -> str:
    return "-∞" if math.isinf(value) else f"{value:.1f}"
