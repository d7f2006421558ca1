"""Read files once: what is in them, in which order, and in which form."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from metered_sync import MediaError
from metered_sync.media.sources.demuxing import MAX_KEPT_PACKETS, Reading, probe
from tests.support.media_files import FPS, level_of, number_of, picture, write


def read(path: Path, position: float = 0.0) -> list[tuple[float, str, Any]]:
    """Return all frames of a file from a position on."""
    with Reading(str(path), ["video", "audio"], position) as reading:
        return list(reading)


def test_frames_come_in_the_order_of_playing_in_the_encoders_formats(tmp_path: Path) -> None:
    path = write(tmp_path / "both.mkv", rate=44100)
    with Reading(str(path), ["video", "audio"], 0.0) as reading:
        found = list(reading)
        assert sorted(reading.ends) == [pytest.approx(1.0, abs=0.02)] * 2
    times = [time for time, _, _ in found]
    assert times == sorted(times)
    pictures = [(time, frame) for time, kind, frame in found if kind == "video"]
    assert [number_of(frame) for _, frame in pictures] == list(range(25))
    assert [time for time, _ in pictures] == pytest.approx([n / 25 for n in range(25)])
    sounds = [frame for _, kind, frame in found if kind == "audio"]
    assert {(f.samples, f.sample_rate, f.format.name, f.layout.name) for f in sounds} == {
        (960, 48000, "s16", "stereo")
    }


def test_a_position_is_gone_to_also_where_no_key_frame_is(tmp_path: Path) -> None:
    path = write(tmp_path / "both.mkv", keyframes=5)
    found = read(path, 0.5)
    video = [number_of(frame) for _, kind, frame in found if kind == "video"]
    audio = [level_of(frame) for _, kind, frame in found if kind == "audio"]
    assert (video[0], audio[0]) == (12, 25)
    assert video[-1] == 24


def test_what_is_no_media_says_why(tmp_path: Path) -> None:
    noise = tmp_path / "a.mp4"
    noise.write_bytes(bytes(range(256)) * 8)
    with pytest.raises(
        MediaError, match=r"a\.mp4' cannot be opened as media: Invalid data"
    ) as info:
        probe(str(noise))
    assert "it is no film and no sound, or a damaged one" in str(info.value)
    assert info.value.__cause__ is not None
    with pytest.raises(MediaError, match=r"gone' cannot be opened as media: No such file"):
        probe(str(tmp_path / "gone"))


def test_a_file_that_lost_its_streams_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "sound.wav", video=None)
    with pytest.raises(MediaError, match="has changed: its video is gone"):
        Reading(str(path), ["video"], 0.0)


def test_odd_sizes_become_even(tmp_path: Path) -> None:
    path = tmp_path / "odd.avi"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("rawvideo", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 63, 47, "bgr24"
        image = np.zeros((47, 63, 3), np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    [frame] = [frame for _, _, frame in read(path)]
    assert (frame.width, frame.height, frame.format.name) == (62, 46, "yuv420p")


@pytest.mark.parametrize(("quarters", "corner"), [(1, (-1, 0)), (2, (-1, -1)), (3, (0, -1))])
def test_a_film_that_lies_on_its_side_is_set_upright(
    tmp_path: Path, quarters: int, corner: tuple[int, int]
) -> None:
    """As telephones film: the file says how the picture is to be turned, counterclockwise."""
    path = tmp_path / "telephone.mp4"
    image = np.full((48, 64, 3), 40, np.uint8)
    image[:20, :20] = 200  # the corner at the top left
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=FPS, options={"qp": "4"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "bgr24")))
        container.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    cosine, sine = [(1, 0), (0, -1), (-1, 0), (0, 1)][quarters]
    matrix = struct.pack(
        ">9i", *(n << 16 for n in (cosine, sine, 0, -sine, cosine)), 0, 0, 0, 1 << 30
    )
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = matrix
    path.write_bytes(data)
    [frame] = [frame for _, _, frame in read(path)]
    assert (frame.width, frame.height) == ((64, 48) if quarters == 2 else (48, 64))
    shown = frame.to_ndarray(format="gray")
    y, x = (10 if c == 0 else -10 for c in corner)
    assert shown[y, x] > 150
    assert sorted(
        v > 150 for v in (shown[10, 10], shown[10, -10], shown[-10, 10], shown[-10, -10])
    ) == [False, False, False, True]


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic.value
        sound: Any = container.add_stream("aac", rate=48000)
        image = picture(1).reformat(format="yuvj420p")
        container.mux(cover.encode(image))
        container.mux(cover.encode(None))
        silence = av.AudioFrame.from_ndarray(np.zeros((2, 4096), np.float32), "fltp", "stereo")
        silence.sample_rate = 48000
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
    assert probe(str(path))[0] == ["audio"]


def test_packets_far_apart_are_kept_within_a_bound(tmp_path: Path) -> None:
    # The pictures end early: looking for more of them leads through all of the sound.
    path = write(tmp_path / "early.mkv", seconds=0.2, audio_seconds=30)
    kept, order = [], []
    with Reading(str(path), ["video", "audio"], 0.0) as reading:
        for at, kind, _ in reading:
            order.append((at, kind))
            kept.append(max(len(packets) for packets in reading._packets.values()))
    assert max(kept) <= MAX_KEPT_PACKETS + 1
    assert order == sorted(order, key=lambda item: item[0])
    assert len(order) == 5 + 1500
