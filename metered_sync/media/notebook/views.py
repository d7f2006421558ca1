"""What a preview shows of a track's frames."""

from __future__ import annotations

import math
import time
from html import escape
from typing import Any, Protocol

import numpy as np
from av import AudioFrame

from metered_sync.media.notebook.output import Look
from metered_sync.media.snapshot import jpeg

__all__ = ["Drawing", "LevelMeter", "Picture", "loudness"]

SILENCE = 0.5
"""Seconds without sound after which the meter shows that."""
HOLD = 1.5
"""Seconds for which the meter's peak stays."""
FLOOR = -60.0
"""The meter's left end, in dBFS."""


class Drawing(Protocol):
    """Makes what is shown of a track's frames."""

    patience: float | None
    """Seconds to wait for frames; ``None``: until there are some."""

    def first(self) -> Look:
        """Return what is shown before there are frames."""

    def draw(self, frames: list[Any]) -> Look:
        """Return what is shown for these frames, which have come since the last time."""


class Picture:
    """Pictures, as JPEG."""

    patience: float | None = None

    def __init__(self, label: str, width: int, quality: int) -> None:
        self._label, self._width, self._quality = label, width, quality

    def first(self) -> Look:
        width, height = self._width, self._width * 9 // 16
        text = f"no picture of the {self._label} yet"
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
            '<rect width="100%" height="100%" fill="#888" fill-opacity=".25"/>'
            '<text x="50%" y="50%" text-anchor="middle" font-family="sans-serif" '
            f'font-size="13" fill="#888">{escape(text)}</text></svg>'
        )
        return Look("image/svg+xml", svg.encode(), text)

    def draw(self, frames: list[Any]) -> Look:
        data = jpeg(frames[-1], width=self._width, quality=self._quality)
        return Look("image/jpeg", data, f"a picture of the {self._label}")


class LevelMeter:
    """How loud sound is: a bar for its energy, and a mark for its peak, which falls late."""

    patience: float | None = SILENCE

    def __init__(self) -> None:
        self._peak = -math.inf
        self._since = -math.inf  # when the peak was (time.monotonic())

    def first(self) -> Look:
        return self._look(-math.inf)

    def draw(self, frames: list[AudioFrame]) -> Look:
        level, peak = loudness(frames)
        now = time.monotonic()
        if peak >= self._peak or now - self._since > HOLD:
            self._peak, self._since = peak, now
        return self._look(level)

    def _look(self, level: float) -> Look:
        bar, mark = (100 * min(max(1 - value / FLOOR, 0.0), 1.0) for value in (level, self._peak))
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
        return Look("text/html", html.encode(), text)


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
