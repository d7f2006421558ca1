"""Write media files whose content tells its time, and play them as a sender does."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from metered_sync import FileSource

FPS = 25
LEVEL = 150
"""The amplitude that the sound of a test file gains each 20 ms."""


def picture(number: int, size: tuple[int, int] = (64, 48)) -> av.VideoFrame:
    """Return a grey frame that shows its number as its brightness, up to 117."""
    image = np.full((size[1] * 3 // 2, size[0]), 128, np.uint8)
    image[: size[1]] = 20 + number % 118 * 2
    return av.VideoFrame.from_ndarray(image, format="yuv420p")


def number_of(frame: Any) -> int:
    """Return the number that a picture shows."""
    luma = np.frombuffer(frame.planes[0], np.uint8).reshape(-1, frame.planes[0].line_size)
    return round((float(luma[10 : frame.height - 10, 10 : frame.width - 10].mean()) - 20) / 2)


def write(
    path: Path,
    *,
    seconds: float = 1.0,
    video: str | None = "ffv1",
    audio: str | None = "pcm_s16le",
    times: Iterable[int] | None = None,
    rate: int = 48000,
    layout: str = "stereo",
    audio_seconds: float | None = None,
    keyframes: int = 5,
) -> Path:
    """Write a file whose content tells its time: frame n is n, and so is sound n * 20 ms."""
    with av.open(str(path), "w") as container:
        packets: list[Any] = []
        if video is not None:
            stream: Any = container.add_stream(video, rate=FPS)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
            stream.codec_context.gop_size = keyframes
            if video == "libx264":
                stream.codec_context.options = {"qp": "4"}
            stamps = times or range(0, round(seconds * 1000), 1000 // FPS)
            for number, stamp in enumerate(stamps):
                frame: Any = picture(number)
                frame.pts, frame.time_base = stamp, Fraction(1, 1000)
                packets += stream.encode(frame)
            packets += stream.encode(None)
        if audio is not None:
            stream = container.add_stream(audio, rate=rate)
            stream.layout = layout
            channels = len(stream.layout.channels)
            total = round((seconds if audio_seconds is None else audio_seconds) * rate)
            levels = (np.arange(total) * 50 // rate * LEVEL).astype(np.int16)
            piece = rate // 50
            for at in range(0, total, piece):
                samples = np.repeat(levels[at : at + piece], channels)[None]
                sound: Any = av.AudioFrame.from_ndarray(samples, "s16", layout)
                sound.sample_rate, sound.pts, sound.time_base = rate, at, Fraction(1, rate)
                packets += stream.encode(sound)
            packets += stream.encode(None)
        for packet in sorted(packets, key=lambda p: float(p.dts * p.time_base)):
            container.mux(packet)
    return path


async def consume(track: MediaStreamTrack | None, count: float = math.inf) -> list[Any]:
    assert track is not None
    frames: list[Any] = []
    try:
        while len(frames) < count:
            frames.append(await track.recv())
    except MediaStreamError:
        pass
    return frames


def play(source: FileSource, pieces: float = math.inf, timeout: float = 20) -> dict[str, list[Any]]:
    """Consume all tracks, up to a number of pieces of sound and half as many pictures."""
    tracks = source.tracks

    async def main() -> list[list[Any]]:
        tasks = (consume(t, pieces if t.kind == "audio" else pieces / 2) for t in tracks)
        return await asyncio.wait_for(asyncio.gather(*tasks), timeout)

    return dict(zip((track.kind for track in tracks), asyncio.run(main()), strict=True))


def level_of(frame: Any) -> int:
    """Return which 20 ms of its file a piece of sound comes from."""
    return round(float(np.median(frame.to_ndarray()[0, :960])) / LEVEL)


def steps(frames: list[Any]) -> set[int]:
    return {b.pts - a.pts for a, b in itertools.pairwise(frames)}
