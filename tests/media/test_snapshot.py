"""Take snapshots, and write them as JPEG and PNG."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange

from metered_sync import (
    ClosedError,
    MediaError,
    MeteredTimeoutError,
    RemoteTrack,
    SfuClient,
    Snapshot,
)
from metered_sync.local import LocalCloud
from metered_sync.media.snapshot import jpeg, png
from metered_sync.testing import PatternSource, ToneSource, read_number


@pytest.fixture(scope="module")
def picture() -> Iterator[RemoteTrack]:
    """A video track named "camera", in pictures of 160x120."""
    with (
        PatternSource(160, 120, fps=15) as pattern,
        LocalCloud() as cloud,
        SfuClient(**cloud.sfu_options()) as sfu,
    ):
        yield sfu.subscribe(sfu.publish(pattern.video, name="camera"))


def decoded(data: bytes) -> Any:
    """Return the pixels of a picture file, as RGB."""
    with av.open(io.BytesIO(data)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)


def gradient(width: int, height: int, format: str = "yuv420p") -> av.VideoFrame:
    across = np.linspace(0, 255, width)[None, :, None]
    down = np.linspace(0, 255, height)[:, None, None]
    pixels = np.concatenate(np.broadcast_arrays(across, down, 255 - across), axis=2)
    frame = av.VideoFrame.from_ndarray(pixels.astype(np.uint8), format="rgb24")
    return frame.reformat(format=format)


# --- a snapshot -----------------------------------------------------------------------


def test_a_snapshot_is_the_newest_picture(picture: RemoteTrack) -> None:
    first = picture.snapshot(timeout=20)
    assert isinstance(first, Snapshot)
    assert repr(first) == "<Snapshot of video track 'camera': 160x120>"
    assert (first.width, first.height, first.frame.width) == (160, 120, 160)
    assert first.array.shape == (120, 160, 3)
    assert first.array.dtype == np.uint8
    second = picture.snapshot(timeout=20)
    before, after = read_number(first.array), read_number(second.array)
    assert before is not None
    assert after is not None
    assert after > before


def test_snapshots_and_reads_do_not_take_each_others_pictures(picture: RemoteTrack) -> None:
    with picture.frames(mode="fifo") as frames:
        for _ in range(5):
            picture.snapshot(timeout=20)
        assert len(frames) >= 5
    assert len(picture._core.incoming.readers) == 0  # and snapshots leave none behind


def test_the_colours_are_opencvs() -> None:
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 255
    snapshot = Snapshot(av.VideoFrame.from_ndarray(red, format="rgb24"), "video track 'x'")
    assert snapshot.array[32, 32].tolist() == [0, 0, 255]
    assert snapshot.array is snapshot.array


def test_it_can_be_saved(picture: RemoteTrack, tmp_path: Path) -> None:
    snapshot = picture.snapshot(timeout=20)
    rgb = snapshot.array[..., ::-1].astype(int)
    for name, error in (("a.png", 0), ("b.jpg", 4), ("c.JPEG", 4)):
        path = tmp_path / name
        snapshot.save(path)
        assert abs(decoded(path.read_bytes()) - rgb).mean() <= error
    snapshot.save(str(tmp_path / "b.jpg"), quality=5)
    assert (tmp_path / "b.jpg").stat().st_size < (tmp_path / "c.JPEG").stat().st_size
    with pytest.raises(ValueError, match=r"'.*d\.gif': a picture's name ends in \.jpg"):
        snapshot.save(tmp_path / "d.gif")
    with pytest.raises(FileNotFoundError):
        snapshot.save(tmp_path / "nowhere" / "a.png")


def test_it_can_be_sent(picture: RemoteTrack) -> None:
    snapshot = picture.snapshot(timeout=20)
    data = snapshot.to_jpeg()
    assert read_number(decoded(data)) == read_number(snapshot.array)
    small = snapshot.to_jpeg(width=80, quality=20)
    assert decoded(small).shape == (60, 80, 3)
    assert len(small) < len(snapshot.to_jpeg(width=80)) < len(data)
    assert decoded(Snapshot(snapshot.frame).to_jpeg(width=1000)).shape == (120, 160, 3)
    assert repr(Snapshot(snapshot.frame)) == "<Snapshot of a frame: 160x120>"
    for wrong in ({"width": 0}, {"width": 80.5}, {"quality": 101}):
        with pytest.raises(ValueError, match="must be a whole number"):
            snapshot.to_jpeg(**wrong)  # type: ignore[arg-type]


def test_a_notebook_is_given_a_jpeg(picture: RemoteTrack) -> None:
    snapshot = picture.snapshot(timeout=20)
    data = snapshot._repr_jpeg_()
    assert data.startswith(b"\xff\xd8")
    assert read_number(decoded(data)) == read_number(snapshot.array)


def test_what_cannot_be_looked_at() -> None:
    with (
        ToneSource(440) as tone,
        PatternSource(160, 120, fps=15) as pattern,
        LocalCloud() as cloud,
        SfuClient(**cloud.sfu_options()) as sfu,
    ):
        sound = sfu.subscribe(sfu.publish(tone.audio, name="microphone"))
        with pytest.raises(MediaError, match=r"audio track 'microphone' has none: display\(\)"):
            sound.snapshot(timeout=5)
        picture = sfu.subscribe(sfu.publish(pattern.video))
        picture.snapshot(timeout=20)
        with pytest.raises(MeteredTimeoutError):
            picture.snapshot(timeout=0)
    with pytest.raises(ClosedError):
        picture.snapshot(timeout=20)


# --- picture files --------------------------------------------------------------------


@pytest.mark.parametrize("size", [(320, 240), (33, 17), (16, 400), (2, 2)])
def test_pictures_of_any_size(size: tuple[int, int]) -> None:
    frame = gradient(*size)
    rgb = frame.to_ndarray(format="rgb24").astype(int)
    assert (decoded(png(frame)) == rgb).all()
    assert decoded(jpeg(frame)).shape == rgb.shape


def test_pictures_are_made_smaller_never_larger() -> None:
    frame = gradient(320, 180)
    assert decoded(jpeg(frame, width=160)).shape == (90, 160, 3)
    assert decoded(jpeg(frame, width=640)).shape == (180, 320, 3)
    assert decoded(jpeg(gradient(400, 2), width=16)).shape == (1, 16, 3)


def test_quality() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (120, 160, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(noise, format="rgb24")
    sizes = [len(jpeg(frame, quality=quality)) for quality in (1, 50, 100)]
    assert sizes[0] < sizes[1] < sizes[2]
    for quality in (0, 101, 50.5, True):
        with pytest.raises(ValueError, match="quality must be a whole number from 1 to 100"):
            jpeg(frame, quality=quality)  # type: ignore[arg-type]


@pytest.mark.parametrize("format", ["yuv420p", "nv12", "yuvj420p"])
def test_brightness(format: str) -> None:
    for full in (False, True):
        levels = np.repeat(np.array([16, 64, 128, 235], np.uint8), 16)
        planes = np.full((72, 64), 128, np.uint8)
        planes[:48] = levels
        frame = av.VideoFrame.from_ndarray(planes, format=format)
        if full:
            frame.color_range = ColorRange.JPEG
        full_range = full or format == "yuvj420p"
        expected = [16, 64, 128, 235] if full_range else [0, 56, 130, 255]
        for data in (jpeg(frame), png(frame), jpeg(frame, width=32)):
            image = decoded(data)
            assert (
                abs(image[12, image.shape[1] // 8 :: image.shape[1] // 4, 1] - expected).max() < 4
            )


@pytest.mark.parametrize("format", ["yuv420p", "yuvj420p", "rgb24", "gray", "nv12"])
def test_a_frame_that_others_read_is_left_as_it_is(format: str) -> None:
    frame = gradient(64, 48, format)
    frame.pts, frame.time_base = 12345, Fraction(1, 90000)
    before = frame.to_ndarray().copy()
    failures: list[BaseException] = []

    def look() -> None:
        try:
            for _ in range(30):
                jpeg(frame, width=32)
                png(frame)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert (frame.pts, frame.time_base, frame.format.name) == (12345, Fraction(1, 90000), format)
    assert (frame.to_ndarray() == before).all()
