"""Encode pictures that show their number, and sound; write them into files as they are."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av import CodecContext

from tests.support.media_files import number_of, picture

FPS = 25
NUMBERS = 110
"""How many numbers pictures have, before they begin anew."""
ENCODERS = {"h264": "libx264", "hevc": "libx265", "vp8": "libvpx", "mpeg4": "mpeg4"}
H264 = {"qp": "4", "bf": "0", "sc_threshold": "0"}
HEVC = {"x265-params": "log-level=error:pools=none:frame-threads=1"}
PROFILES = {
    "baseline": "cabac=0:8x8dct=0:weightp=0",
    "main": "cabac=1:8x8dct=0",
    "high": "cabac=1:8x8dct=1",
}
"""The means that x264 chooses its profile by. (PyAV 14 refuses its name.)"""
VP8 = {"deadline": "realtime", "lag-in-frames": "0"}


def set_up(encoder: Any, codec: str, gop: int, size: tuple[int, int], options: Any) -> None:
    encoder.width, encoder.height, encoder.pix_fmt = *size, "yuv420p"
    encoder.gop_size, encoder.thread_count = gop, 1
    if codec == "vp8":
        encoder.bit_rate = 300_000
    if "profile" in options:
        options = {"x264-params": PROFILES[options["profile"]]}
    encoder.options = {**{"h264": H264, "hevc": HEVC, "vp8": VP8}.get(codec, {}), **options}


def packets(
    codec: str = "h264",
    count: int = 30,
    *,
    gop: int = 10,
    size: tuple[int, int] = (64, 48),
    start: int = 0,
    **options: str,
) -> list[Any]:
    """Return packets of an encoder, 25 pictures a second; picture n shows ``start`` + n."""
    encoder: Any = CodecContext.create(ENCODERS[codec], "w")
    encoder.time_base, encoder.framerate = Fraction(1, FPS), Fraction(FPS)
    set_up(encoder, codec, gop, size, options)
    made = []
    for number in range(count):
        frame: Any = picture((start + number) % NUMBERS, size)
        frame.pts, frame.time_base = number, Fraction(1, FPS)
        made += encoder.encode(frame)
    return [*made, *encoder.encode(None)]


def units(codec: str = "h264", count: int = 30, **options: Any) -> list[bytes]:
    """Return the access units of such an encoder."""
    return [bytes(packet) for packet in packets(codec, count, **options)]


def numbers(codec: str, access_units: Iterable[bytes]) -> list[int]:
    """Return the numbers that FFmpeg's decoder sees."""
    decoder: Any = CodecContext.create(codec, "r")
    decoder.thread_count = 1
    frames = []
    for unit in access_units:
        frames += decoder.decode(av.Packet(unit))
    return [number_of(frame) for frame in (*frames, *decoder.decode(None))]


def write(
    path: Path,
    codec: str | None = "h264",
    count: int = 30,
    *,
    audio: str | None = None,
    layout: str = "stereo",
    sound: dict[str, str] | None = None,
    gop: int = 10,
    size: tuple[int, int] = (64, 48),
    **options: str,
) -> Path:
    """Write a file with such pictures, and with sound: a tone of 500 Hz.

    ``sound`` has options of its encoder.
    """
    with av.open(str(path), "w") as container:
        queued: list[Any] = []
        if codec is not None:
            stream: Any = container.add_stream(ENCODERS[codec], rate=FPS)
            set_up(stream.codec_context, codec, gop, size, options)
            for number in range(count):
                frame: Any = picture(number % NUMBERS, size)
                frame.pts, frame.time_base = number, Fraction(1, FPS)
                queued += stream.encode(frame)
            queued += stream.encode(None)
        if audio is not None:
            stream = container.add_stream(audio, rate=48000)
            stream.layout = layout
            stream.codec_context.options = sound or {}
            for at in range(0, count * 48000 // FPS, 960):
                wave = np.sin(2 * np.pi * 500 * np.arange(at, at + 960) / 48000) * 12000
                samples = np.repeat(wave.astype(np.int16), stream.layout.nb_channels)[None]
                piece: Any = av.AudioFrame.from_ndarray(samples, "s16", layout)
                piece.sample_rate, piece.pts, piece.time_base = 48000, at, Fraction(1, 48000)
                queued += stream.encode(piece)
            queued += stream.encode(None)
        for packet in sorted(queued, key=lambda p: float(p.dts * p.time_base)):
            container.mux(packet)
    return path


def opus(
    count: int = 50, *, frequency: int = 500, layout: str = "stereo", **options: str
) -> list[bytes]:
    """Return packets of Opus with a tone, of 20 ms each unless ``frame_duration`` says another."""
    encoder: Any = CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 48000, layout, "s16"
    encoder.bit_rate, encoder.options = 48_000, options
    made = []
    for at in range(0, count * 960, 960):
        wave = np.sin(2 * np.pi * frequency * np.arange(at, at + 960) / 48000) * 12000
        samples = np.repeat(wave.astype(np.int16), {"mono": 1, "stereo": 2}[layout])[None]
        piece: Any = av.AudioFrame.from_ndarray(samples, "s16", layout)
        piece.sample_rate, piece.pts, piece.time_base = 48000, at, Fraction(1, 48000)
        made += encoder.encode(piece)
    return [bytes(packet) for packet in made]
