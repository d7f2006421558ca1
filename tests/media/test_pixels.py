"""Convert frames to arrays: every format and size, in memory of their own."""

from __future__ import annotations

import io
import threading
from typing import Any

import av
import numpy as np
import pytest
from av import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter

from metered_sync import MediaError
from metered_sync.media.pixels import (
    EVEN_SIZE_FORMATS,
    PIXEL_FORMATS,
    PixelConverter,
    check_format,
)
from metered_sync.media.pyav import ONE_THREAD
from metered_sync.media.snapshot import jpeg
from tests.support.colours import FILES, apart, colour_files, colours, filtered, first_frame
from tests.support.far_end import picture


def right(frame: VideoFrame, format: str) -> Any:
    # (On several threads FFmpeg 8 makes mistakes with gray16le in odd sizes, now and then.)
    return VideoReformatter().reformat(frame, format=format, **ONE_THREAD).to_ndarray()


@pytest.mark.parametrize("size", [(64, 48), (158, 120), (161, 121)])
@pytest.mark.parametrize("format", PIXEL_FORMATS)
def test_arrays_are_what_ffmpeg_gives_in_memory_of_their_own(
    format: str, size: tuple[int, int]
) -> None:
    converter = PixelConverter()
    if format in EVEN_SIZE_FORMATS and size[0] % 2:
        with pytest.raises(MediaError, match=f"161x121 pixels.*{format}.*bgr24"):
            converter.convert(picture(1, *size), format)
        return
    for number in (1, 2):  # with what is kept from the first, too
        frame = picture(number, *size)
        image = converter.convert(frame, format)
        same = right(frame, format)
        assert (image.shape, image.dtype) == (same.shape, same.dtype)
        assert np.array_equal(image, same)
        assert image.flags.c_contiguous
        assert image.flags.writeable
        image[...] = 0
        assert np.array_equal(right(frame, "bgr24"), right(picture(number, *size), "bgr24"))


@pytest.mark.parametrize("format", ["bgr24", "gray", "yuv420p"])
def test_a_picture_that_has_the_format_already_is_copied(format: str) -> None:
    frame = picture(7, format=format)
    PixelConverter().convert(frame, format)[...] = 0
    assert np.array_equal(frame.to_ndarray(), picture(7, format=format).to_ndarray())


def test_grey_goes_from_black_to_white() -> None:
    converter = PixelConverter()
    for range_, luma, grey in (
        (ColorRange.UNSPECIFIED, 16, 0),
        (ColorRange.MPEG, 235, 255),
        (ColorRange.MPEG, 126, 128),
        (ColorRange.JPEG, 16, 16),
        (ColorRange.JPEG, 235, 235),
    ):
        frame = picture(0, 158, 50)
        for plane in frame.planes:
            plane.update(bytes([128]) * plane.buffer_size)
        frame.planes[0].update(bytes([luma]) * frame.planes[0].buffer_size)
        frame.color_range = range_
        image = converter.convert(frame, "gray")
        assert image.min() == image.max() == pytest.approx(grey, abs=1)
        grey_too = converter.convert(frame, "bgr24")
        assert grey_too.mean() == pytest.approx(grey, abs=1.5)
        assert frame.color_range == range_


@pytest.mark.parametrize("name", FILES)
def test_arrays_have_the_colours_that_ffmpeg_gives_them(name: str) -> None:
    files = colour_files()
    frame, shown = first_frame(files.path(name)), files.shown(name)
    converter = PixelConverter()
    assert apart(converter.convert(frame, "rgb24"), shown) <= 3
    assert apart(converter.convert(frame, "bgra")[..., 2::-1], shown) <= 3
    assert apart(jpeg_of(frame), shown) <= 5
    grey = converter.convert(frame, "gray")[..., None].repeat(3, 2)
    assert abs(colours(grey) - colours(shown))[:2].max() <= 3
    for format, range_ in (("yuv420p", ColorRange.MPEG), ("yuvj420p", ColorRange.JPEG)):
        image = converter.convert(frame, format)
        back = VideoFrame.from_ndarray(image, "yuv420p")
        back.color_range = range_
        assert apart(converter.convert(back, "rgb24"), shown) <= 4


def jpeg_of(frame: VideoFrame) -> Any:
    """Return what a decoder makes of a JPEG of a frame."""
    with av.open(io.BytesIO(jpeg(frame, quality=100))) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


@pytest.mark.parametrize("format", ["bgr24", "gray", "yuv420p"])
def test_rows_that_run_upwards(format: str) -> None:
    frame = picture(7, format=format)
    upwards = filtered(frame, "vflip")
    image = PixelConverter().convert(upwards, "bgr24")
    assert np.abs(image - right(frame, "bgr24")[::-1].astype(int)).mean() < 2
    same = PixelConverter().convert(upwards, format)
    assert np.array_equal(same[:48], right(frame, format)[:48][::-1])


def test_threads_convert_at_the_same_time() -> None:
    converter, wrong = PixelConverter(), []

    def convert(first: int) -> None:
        for number in range(first, 200, 4):
            frame = picture(number % 10, 64 + 2 * (number % 3))
            if not np.array_equal(converter.convert(frame, "bgr24"), right(frame, "bgr24")):
                wrong.append(number)

    threads = [threading.Thread(target=convert, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_formats_are_checked() -> None:
    check_format("rgb24")
    for wrong in ("quatsch", "pal8", "vaapi", "BGR24", "", "rgb"):
        with pytest.raises(ValueError, match=r"bgr24, rgb24, gray,.*yuv420p.*not as '"):
            check_format(wrong)
    with pytest.raises(TypeError, match="format must be a str, not int"):
        check_format(3)
