"""Encode and mux: times, key frames, and the ends of streams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av import VideoFrame

from metered_sync.media.recording.formats import FILE_FORMATS
from metered_sync.media.recording.muxing import PICTURES_PER_KEY_FRAME, Muxer
from metered_sync.media.recording.output_file import OutputFile


def picture(level: int = 128, width: int = 64, height: int = 48) -> VideoFrame:
    image = np.full((height, width, 3), level, np.uint8)
    return VideoFrame.from_ndarray(image, "rgb24")


def write(path: Path, *times: float, sound: int = 0) -> Any:
    """Write pictures at some times, and samples of silence; return the streams."""
    output = OutputFile(str(path))
    format = FILE_FORMATS[path.suffix]
    muxer = Muxer(output, format)
    streams: list[Any] = []
    if format.video is not None:
        streams.append(muxer.add_pictures(64, 48))
        for time in times:
            streams[0].write(picture(), time)
    if sound:
        streams.append(muxer.add_sound())
        streams[-1].write_until(sound)
    for stream in streams:
        stream.flush()
    muxer.close()
    output.close()
    assert output.error is None
    return streams


def packets(path: Path) -> list[Any]:
    with av.open(str(path)) as file:
        return [packet for packet in file.demux(file.streams.video[0]) if packet.size]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_pictures_keep_their_times(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    (stream,) = write(path, 0.5, 0.5, 0.4, 0.6, 1.0)  # the first is shown from 0 on
    times = [float(packet.pts * packet.time_base) for packet in packets(path)]
    assert times == pytest.approx([0, 0.5, 0.501, 0.6, 1.0], abs=0.0015)  # and none goes back
    assert (stream.kind, stream.frames) == ("video", 5)
    assert stream.end == pytest.approx(1.1, abs=0.002)  # as long as the one before, 0.1 s at most


def test_one_picture_alone_is_shown_for_a_thirtieth_of_a_second(tmp_path: Path) -> None:
    (stream,) = write(tmp_path / "a.mp4", 0.0)
    assert (stream.frames, stream.end) == (1, pytest.approx(1 / 30, abs=0.001))


def test_key_frames_come_at_a_regular_distance(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write(path, *(number / 30 for number in range(2 * PICTURES_PER_KEY_FRAME + 1)))
    keys = [number for number, packet in enumerate(packets(path)) if packet.is_keyframe]
    assert keys == [0, PICTURES_PER_KEY_FRAME, 2 * PICTURES_PER_KEY_FRAME]


def test_sound_is_written_to_the_sample(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    (stream,) = write(path, sound=12345)
    assert (stream.kind, stream.codec, stream.end) == ("audio", "pcm_s16le", 12345 / 48000)
    header, data = path.read_bytes().split(b"data", 1)
    assert header.startswith(b"RIFF")
    assert len(data) - 4 == 12345 * 4


def test_a_stream_without_frames_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    pictures, sound = write(path, sound=48000)
    assert (pictures.frames, pictures.end, sound.end) == (0, 0.0, 1.0)
    with av.open(str(path)) as file:
        assert sum(frame.samples for frame in file.decode(audio=0)) >= 48000
