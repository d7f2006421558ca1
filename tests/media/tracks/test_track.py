"""Frames and arrays of tracks that arrive."""

from __future__ import annotations

import queue
import threading
from typing import Any

import numpy as np
import pytest
from av import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter

from metered_sync import ClosedError, MediaError, MeteredTimeoutError
from metered_sync.media.pixels import EVEN_SIZE_FORMATS, ONE_THREAD, PIXEL_FORMATS
from tests.conftest import run_script
from tests.support.far_end import Far, picture, shown, sound, tone

# --- read() ---------------------------------------------------------------------------


def right(frame: VideoFrame, format: str) -> Any:
    # (On several threads FFmpeg 8 makes mistakes with gray16le in odd sizes, now and then.)
    return VideoReformatter().reformat(frame, format=format, **ONE_THREAD).to_ndarray()


@pytest.mark.parametrize("size", [(64, 48), (158, 120), (161, 121)])
@pytest.mark.parametrize("format", PIXEL_FORMATS)
def test_read_gives_what_ffmpeg_gives_in_memory_of_its_own(
    format: str, size: tuple[int, int]
) -> None:
    far = Far()
    with far.track.frames(mode="fifo") as others:
        if format in EVEN_SIZE_FORMATS and size[0] % 2:
            far.track.frames()
            with pytest.raises(MeteredTimeoutError):
                far.track.read(0, format)
            far.send(picture(1, *size))
            with pytest.raises(MediaError, match=f"161x121 pixels.*{format}.*bgr24"):
                far.track.read(0, format)
            return
        sent = [picture(number, *size) for number in (1, 2)]
        for frame in sent:  # with what is kept from the first, too
            with pytest.raises(MeteredTimeoutError):
                far.track.read(0, format)
            far.send(frame)
            image = far.track.read(1, format)
            same = right(frame, format)
            assert (image.shape, image.dtype) == (same.shape, same.dtype)
            assert np.array_equal(image, same)
            assert image.flags.c_contiguous
            assert image.flags.writeable
            image[...] = 0
        for frame in sent:
            same = right(frame, "bgr24")
            assert np.array_equal(right(others.get(timeout=1), "bgr24"), same)


@pytest.mark.parametrize("format", ["bgr24", "gray", "yuv420p"])
def test_a_picture_that_has_the_format_already_is_copied(format: str) -> None:
    far = Far()
    frames = far.track.frames()
    with pytest.raises(MeteredTimeoutError):
        far.track.read(0, format)
    far.send(picture(7, format=format))
    far.track.read(1, format)[...] = 0
    same = picture(7, format=format).to_ndarray()
    assert np.array_equal(frames.get(timeout=1).to_ndarray(), same)


def test_grey_goes_from_black_to_white() -> None:
    far = Far()
    frames = far.track.frames(mode="fifo")
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
        with pytest.raises(MeteredTimeoutError):
            far.track.read(0)
        far.send(frame)
        image = far.track.read(1, "gray")
        assert image.min() == image.max() == pytest.approx(grey, abs=1)
        grey_too = far.track._core.converter.convert(frame, "bgr24")
        assert grey_too.mean() == pytest.approx(grey, abs=1.5)
        assert frames.get(timeout=1).color_range == range_


def test_read_gives_the_newest_and_none_twice() -> None:
    far = Far()
    with pytest.raises(MeteredTimeoutError, match="no first frame of video track 'far' within 0 s"):
        far.track.read(0)
    for number in range(0, 100, 20):
        far.send(picture(number))
    assert shown(far.track.read(1)) == 80
    with pytest.raises(MeteredTimeoutError, match="nothing arrived"):
        far.track.read(timeout=0)
    far.send(picture(60, 32, 32))  # another size
    assert far.track.read(timeout=1).shape == (32, 32, 3)
    far.incoming.end()
    with pytest.raises(ClosedError):
        far.track.read()


def test_what_read_cannot_do_is_said_at_once() -> None:
    far = Far()
    for format in ("quatsch", "pal8", "vaapi", "BGR24", "", "rgb"):
        with pytest.raises(ValueError, match=r"bgr24, rgb24, gray,.*yuv420p.*not as '"):
            far.track.read(None, format)
    with pytest.raises(TypeError, match="format must be a str, not int"):
        far.track.read(format=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout"):
        far.track.read(-1)
    heard = Far("audio").track
    with pytest.raises(MediaError, match=r"audio track 'far' has none: use pcm\(\)"):
        heard.read()
    with pytest.raises(MediaError, match=r"audio track 'far' has none: use pcm\(\)"):
        heard.capture()
    with pytest.raises(MediaError, match=r"video track 'far' has none: use read\(\)"):
        far.track.pcm()


# --- frames() -------------------------------------------------------------------------


def test_readers_are_on_their_own() -> None:
    far = Far()
    newest, all_, few = (
        far.track.frames(),
        far.track.frames(mode="fifo"),
        far.track.frames(mode="fifo", maxsize=3),
    )
    far.send(*(picture(number) for number in range(12)))
    assert [len(r) for r in (newest, all_, few)] == [1, 12, 3]
    assert [r.dropped for r in (newest, all_, few)] == [11, 0, 9]
    first = all_.get(timeout=1)
    assert (first.pts, next(few).pts, newest.get_nowait().pts) == (0, 27000, 33000)
    with pytest.raises(queue.Empty):
        newest.get_nowait()
    assert newest.age < 60
    all_.close()
    far.send(picture(12))
    far.incoming.end()
    assert [frame.pts // 3000 for frame in all_] == list(range(1, 12))
    assert [frame.pts // 3000 for frame in newest] == [12]
    assert [frame.pts // 3000 for frame in few] == [10, 11, 12]
    assert (first.width, first.height, first.format.name) == (64, 48, "yuv420p")
    assert first.time_base == picture(0).time_base


def test_frames_change_their_size_and_format() -> None:
    far = Far()
    frames = far.track.frames(mode="fifo")
    shapes = [(64, 48, "yuv420p"), (32, 48, "yuv420p"), (64, 48, "bgr24"), (64, 48, "yuv420p")]
    for number, (width, height, format) in enumerate(shapes):
        far.send(picture(number, width, height, format=format))
    far.incoming.end()
    assert [(f.width, f.height, f.format.name) for f in frames] == shapes


def test_sound_is_handed_on_as_it_is() -> None:
    far = Far("audio")
    frames = far.track.frames()
    sent = sound(tone(440, 0.1))
    far.send(*sent)
    assert [frames.get(timeout=1) for _ in sent] == sent


def test_readers_convert_the_same_pictures_at_the_same_time() -> None:
    # In a process of its own: converting one frame in two threads crashes it.
    done = run_script(
        """
import threading, numpy as np
from tests.support.far_end import Far, picture
FORMATS = "bgr24", "gray", "bgr24"
far = Far()
readers = [far.track.frames(mode="fifo", maxsize=120) for _ in FORMATS]
for number in range(120):
    far.send(picture(number % 10, 320, 240))
right = [[picture(n, 320, 240).to_ndarray(format=f) for n in range(10)] for f in FORMATS]
barrier = threading.Barrier(len(FORMATS))
wrong = []
def convert(index):
    for number in range(120):
        frame = readers[index].get(timeout=10)
        barrier.wait(60)
        if not np.array_equal(frame.to_ndarray(format=FORMATS[index]), right[index][number % 10]):
            wrong.append((index, number))
threads = [threading.Thread(target=convert, args=(index,)) for index in range(len(FORMATS))]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(wrong)
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_threads_that_share_read_get_each_picture_once() -> None:
    far = Far()
    with pytest.raises(MeteredTimeoutError):
        far.track.read(0)
    seen: list[int] = []

    def read() -> None:
        try:
            while True:
                seen.append(int(far.track.read(format="gray")[0, 0]))
        except ClosedError:
            pass

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    newest = far.track._newest
    far.send_one_by_one(newest, *(picture(number) for number in range(0, 200, 4))).join()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert len(seen) == len(set(seen)) == 50
