"""A track that arrives, with frames that a test makes up."""

from __future__ import annotations

import threading
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from av import AudioFrame, VideoFrame

from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.media.tracks.track import RemoteTrack
from tests.conftest import wait_until


class Far:
    """The far end of a ``RemoteTrack``."""

    def __init__(self, kind: str = "video", owner: object = None) -> None:
        self.incoming = IncomingTrack(kind, id="far")
        self.track = RemoteTrack(self.incoming, owner)

    def send(self, *frames: Any) -> None:
        for frame in frames:
            self.incoming._spread(frame)

    def send_one_by_one(self, reader: Any, *frames: Any) -> threading.Thread:
        """Send each frame once the one before has been taken from ``reader``; then end."""

        def run() -> None:
            for frame in frames:
                self.send(frame)
                wait_until(lambda: not len(reader), 20)
            self.incoming.end()

        thread = threading.Thread(target=run)
        thread.start()
        return thread


def picture(
    number: int, width: int = 64, height: int = 48, *, fps: int = 30, format: str = "yuv420p"
) -> VideoFrame:
    """Return a frame whose brightness tells its number (up to 200), with some noise in it."""
    noise = np.random.default_rng(number).integers(16, 240, (height, width, 3), np.uint8)
    noise[: height // 2] = number
    frame = VideoFrame.from_ndarray(noise, "bgr24").reformat(format=format)
    frame.pts, frame.time_base = number * 90000 // fps, Fraction(1, 90000)
    return frame


def shown(image: Any) -> Any:
    """Return about which number a picture shows, as BGR, RGB or grey."""
    return pytest.approx(float(image[:16].mean()), abs=6)


def sound(
    wave: Any, start: float = 0.0, rate: int = 48000, layout: str = "stereo", format: str = "s16"
) -> list[AudioFrame]:
    """Return frames of 20 ms: ``wave`` has the shape (samples,) or (samples, 2)."""
    channels = {"mono": 1, "stereo": 2}[layout]
    wave = np.asarray(wave)
    if wave.ndim == 1:
        wave = np.repeat(wave[:, None], channels, axis=1)
    frames = []
    size = rate // 50
    for first in range(0, len(wave) - size + 1, size):
        piece = wave[first : first + size]
        if format == "fltp":
            data = np.ascontiguousarray((piece.T / 32768).astype(np.float32))
        else:
            data = np.ascontiguousarray(piece.astype(np.int16).reshape(1, -1))
        frame = AudioFrame.from_ndarray(data, format=format, layout=layout)
        frame.sample_rate = rate
        frame.pts, frame.time_base = round(start * rate) + first, Fraction(1, rate)
        frames.append(frame)
    return frames


def tone(
    frequency: float, seconds: float, rate: int = 48000, peak: int = 8000, phase: float = 0.0
) -> Any:
    time = np.arange(round(seconds * rate)) / rate
    return (np.sin(2 * np.pi * frequency * time + phase) * peak).astype(np.int16)
