"""Bring pictures of every format, range, matrix, shape and direction into the one that is sent."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av import VideoFrame

from metered_sync.engine.webrtc.pictures import MAX_SIDE, PictureNormalizer
from tests.support.colours import (
    FILES,
    HEIGHT,
    PATCHES,
    WIDTH,
    apart,
    bt601,
    colour_files,
    colours,
    filtered,
    first_frame,
    patches,
    set_matrix,
)


@pytest.mark.parametrize("name", FILES)
def test_pictures_have_the_colours_that_ffmpeg_gives_them(name: str) -> None:
    files = colour_files()
    frame = PictureNormalizer().normal(first_frame(files.path(name)))
    shown = files.shown(name)
    assert apart(bt601(frame), shown) <= 4
    if not name.startswith("gray"):
        assert np.abs(colours(shown) - PATCHES).max() <= 4  # (what FFmpeg shows is right)


@pytest.mark.parametrize("size", [(64, 48), (33, 17), (1, 1), (1022, 2)])
@pytest.mark.parametrize("pixels", ["yuv420p", "rgb24", "gray", "pal8", "yuvj422p", "nv12"])
def test_a_picture_may_be_stamped(size: tuple[int, int], pixels: str) -> None:
    original = VideoFrame(*size, pixels)
    for plane in original.planes:
        plane.update(bytes([200]) * plane.buffer_size)
    original.pts, original.time_base = 7, Fraction(1, 30)
    normal = PictureNormalizer().normal(original)
    assert normal is not original
    assert normal.format.name == "yuv420p"
    assert (normal.width, normal.height) == tuple(max(side & ~1, 2) for side in size)
    normal.pts, normal.pict_type = 9, 1  # type: ignore[assignment]
    assert (original.pts, original.time_base) == (7, Fraction(1, 30))
    assert original.pict_type != 1


def test_a_picture_that_is_right_already_stays_the_same() -> None:
    image = np.random.default_rng(1).integers(0, 256, (72, 64), np.uint8)
    normalizer = PictureNormalizer()
    once = normalizer.normal(VideoFrame.from_ndarray(image, format="yuv420p"))
    again = normalizer.normal(once)
    assert (once.to_ndarray() == image).all()
    assert (again.to_ndarray() == image).all()


SHAPES_ARE_SEEN = av.library_versions["libavfilter"][0] >= 11
"""Whether the scaler heeds what each frame says of its pixels' shape: from FFmpeg 8 on."""
MARKED = np.full((48, 64, 3), 60, np.uint8)
MARKED[:16, :24] = 220  # broad, at the top left
DIRECTIONS = {
    (1, 0, 0, 1): MARKED,
    (-1, 0, 0, 1): MARKED[:, ::-1],
    (1, 0, 0, -1): MARKED[::-1],
    (-1, 0, 0, -1): MARKED[::-1, ::-1],
    (0, 1, 1, 0): MARKED.swapaxes(0, 1),
    (0, 1, -1, 0): np.rot90(MARKED, -1),
    (0, -1, 1, 0): np.rot90(MARKED),
    (0, -1, -1, 0): np.rot90(MARKED.swapaxes(0, 1), 2),
}
"""What is to be seen, by display matrix (a point (x, y) goes to (a x + c y, b x + d y))."""


@pytest.mark.parametrize("matrix", DIRECTIONS)
def test_pictures_are_upright_and_mirrored_as_they_say(
    tmp_path: Path, matrix: tuple[int, int, int, int]
) -> None:
    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"qp": "4"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(VideoFrame.from_ndarray(MARKED, "rgb24")))
        container.mux(stream.encode(None))
    set_matrix(path, *matrix)
    normalizer = PictureNormalizer()
    frame = normalizer.normal(first_frame(path))
    for _ in range(2):  # once is enough
        shown = frame.to_ndarray(format="rgb24").astype(int)
        assert shown.shape == DIRECTIONS[matrix].shape
        assert np.abs(shown - DIRECTIONS[matrix]).mean() < 4
        frame = normalizer.normal(frame)


@pytest.mark.parametrize(
    ("size", "aspect", "square"),
    [
        ((720, 576), (64, 45), (1024, 576)),
        ((720, 576), (16, 15), (768, 576)),
        ((640, 480), (3, 4), (640, 640)),
        ((1440, 1080), (4, 3), (1920, 1080)),
        ((64, 48), (1, 1), (64, 48)),
        ((64, 48), (1000, 1), (64, 48)),  # nonsense
        ((MAX_SIDE, 4), (2, 1), (MAX_SIDE, 4)),  # too large
    ],
)
def test_pixels_are_square(
    size: tuple[int, int], aspect: tuple[int, int], square: tuple[int, int]
) -> None:
    plain = VideoFrame(*size, "yuv420p")
    frame = filtered(plain, "setsar", f"{aspect[0]}/{aspect[1]}")
    normalizer = PictureNormalizer()
    if not SHAPES_ARE_SEEN:
        frame = plain
    for given in (frame, plain, frame):  # what comes changes its shape
        normal = normalizer.normal(given)
        assert (normal.width, normal.height) == (size if given is plain else square)
        again = normalizer.normal(normal)
        assert (again.width, again.height) == (normal.width, normal.height)
    told = PictureNormalizer(aspect[0] / aspect[1])  # by the container
    assert [(f.width, f.height) for f in map(told.normal, (plain, frame))] == [square] * 2


@pytest.mark.skipif(not SHAPES_ARE_SEEN, reason="FFmpeg's filters take no notice of it")
def test_pixels_are_square_wherever_in_memory_a_picture_lies() -> None:
    normalizer = PictureNormalizer()
    for _ in range(200):  # (the rows of one in twenty seem to end where the memory does)
        frame = filtered(VideoFrame(72, 58, "yuv420p"), "setsar", "16/9")
        assert normalizer.normal(frame).width == 128


def test_pixels_of_pictures_that_lie_on_their_side(tmp_path: Path) -> None:
    path = tmp_path / "lying.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        container.mux(stream.encode(VideoFrame(96, 48, "yuv420p")))
        container.mux(stream.encode(None))
    set_matrix(path, 0, 1, -1, 0)
    for aspect in (1.0, 4 / 3)[0 if SHAPES_ARE_SEEN else 1 :]:
        normal = PictureNormalizer(aspect).normal(first_frame(path))
        assert (normal.width, normal.height) == (48, 128)


@pytest.mark.parametrize("pixels", ["yuv420p", "bgr24", "gray"])
def test_rows_that_run_upwards(pixels: str) -> None:
    frame = filtered(VideoFrame.from_ndarray(MARKED, "rgb24").reformat(format=pixels), "vflip")
    assert frame.planes[0].line_size < 0
    shown = PictureNormalizer().normal(frame).to_ndarray(format="gray")
    assert np.abs(shown.astype(int) - MARKED[::-1, :, 0]).mean() < 4


def test_a_picture_that_cannot_be_converted_harms_no_other() -> None:
    normalizer = PictureNormalizer()
    with pytest.raises(Exception):  # noqa: B017 - whatever FFmpeg says
        normalizer.normal(VideoFrame())
    frame = normalizer.normal(VideoFrame.from_ndarray(patches(), "rgb24"))
    assert (frame.width, frame.height) == (WIDTH, HEIGHT)
    assert np.abs(colours(bt601(frame)) - PATCHES).max() <= 4
