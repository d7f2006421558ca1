"""Play files whose clock jumps."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from metered_sync import from_file
from metered_sync.media.sources.demuxing import Reading
from tests.support.media_files import play

FPS = 25
SOUND = 1152
"""Samples of a packet of MPEG sound."""


def piece(path: Path, *, start: float, seconds: float, format: str) -> bytes:
    """Return a piece of a stream whose clock starts at some time."""
    with av.open(str(path), "w", format=format) as container:
        pictures: Any = container.add_stream("mpeg2video", rate=FPS)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sound: Any = container.add_stream("mp2", rate=48000)
        sound.layout = "stereo"
        packets: list[Any] = []
        for number in range(round(seconds * FPS)):
            picture = av.VideoFrame.from_ndarray(np.full((72, 64), 90, np.uint8), "yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            packets += pictures.encode(picture)
        packets += pictures.encode(None)
        for number in range(round(seconds * 48000 / SOUND)):
            samples = np.full((1, SOUND * 2), 1000, np.int16)
            frame = av.AudioFrame.from_ndarray(samples, "s16", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = (
                48000,
                number * SOUND,
                Fraction(1, 48000),
            )
            packets += sound.encode(frame)
        packets += sound.encode(None)
        for packet in sorted(packets, key=lambda one: float((one.dts or 0) * one.time_base)):
            packet.pts += round(start / packet.time_base)
            packet.dts += round(start / packet.time_base)
            container.mux(packet)
    return path.read_bytes()


def jumping(folder: Path, format: str, *starts: float) -> Path:
    """Write pieces of 2 s behind each other, as a recorder does whose stream was cut."""
    path = folder / f"jumps.{format}"
    parts = [piece(path, start=start, seconds=2, format=format) for start in starts]
    path.write_bytes(b"".join(parts))
    return path


def times_of(path: Path, kinds: tuple[str, ...] = ("video", "audio")) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    with Reading(str(path), kinds, 0.0) as reading:
        for time, kind, _ in reading:
            times[kind].append(time)
    return times


STARTS = {
    "no jump": (0, 2),
    "20 s": (0, 22),
    "one hour": (0, 3602),
    "one hour back": (7200, 3602),
    "to the start": (100, 0),
    "several": (50, 4000, 20, 20),
    "3 s": (0, 5),
}


@pytest.mark.parametrize("format", ["mpegts", "mpeg"])
@pytest.mark.parametrize("jump", STARTS)
def test_it_is_played_on_without_a_gap(tmp_path: Path, format: str, jump: str) -> None:
    starts = STARTS[jump]
    path = jumping(tmp_path, format, *starts)
    for kinds in (("video", "audio"), ("video",)):
        for kind, times in times_of(path, kinds).items():
            assert np.diff(times).min() > 0, kind
            assert np.diff(times).max() < 1.5, kind
            wanted = len(starts) * 2.0
            assert wanted - 0.5 < times[-1] - times[0] < wanted + 1.5 * (len(starts) - 1), kind


def test_sound_and_pictures_stay_together(tmp_path: Path) -> None:
    times = times_of(jumping(tmp_path, "mpegts", 0, 22, 7))
    assert abs(times["video"][-1] - times["audio"][-1]) < 0.2


def test_a_source_reaches_its_end(tmp_path: Path) -> None:
    with from_file(jumping(tmp_path, "mpegts", 0, 3602)) as source:
        frames = play(source, timeout=30)
    assert len(frames["video"]) >= 95
    assert frames["video"][-1].time < 6


def test_a_gap_that_another_container_has_is_meant(tmp_path: Path) -> None:
    path = tmp_path / "gap.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in [*range(10), *range(510, 520)]:
            picture = av.VideoFrame.from_ndarray(np.full((72, 64), 90, np.uint8), "yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    assert np.diff(times_of(path, ("video",))["video"]).max() == pytest.approx(20, abs=0.5)


def test_pictures_that_are_seldom_stay_where_they_are(tmp_path: Path) -> None:
    """A slide show with sound: the clock goes on, though its pictures do not."""
    path = tmp_path / "slides.ts"
    with av.open(str(path), "w", format="mpegts") as container:
        pictures: Any = container.add_stream("libx264", rate=FPS)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        pictures.options = {"tune": "zerolatency"}
        sound: Any = container.add_stream("mp2", rate=48000)
        sound.layout = "stereo"
        packets: list[Any] = []
        for number in (0, 100, 200, 300):
            picture = av.VideoFrame.from_ndarray(np.full((72, 64), 90, np.uint8), "yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            packets += pictures.encode(picture)
        packets += pictures.encode(None)
        for number in range(13 * 48000 // SOUND):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, SOUND * 2), np.int16), "s16", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = (
                48000,
                number * SOUND,
                Fraction(1, 48000),
            )
            packets += sound.encode(frame)
        packets += sound.encode(None)
        container.mux(sorted(packets, key=lambda one: float((one.dts or 0) * one.time_base)))
    times = times_of(path)
    assert np.diff(times["video"]) == pytest.approx([4, 4, 4], abs=0.2)
    assert times["audio"][-1] == pytest.approx(13, abs=0.3)
