"""Write pictures that end where the process's memory ends: a guard page lies behind each."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from metered_sync import VideoSource
from tests.conftest import run_script

GUARDED = """
import ctypes, faulthandler, mmap, sys
import numpy as np
from av import VideoFrame
from av.video.reformatter import VideoReformatter
from metered_sync import VideoSource
from metered_sync.engine.webrtc.pictures import PictureNormalizer
from metered_sync.media.pixels import PixelConverter
from metered_sync.media.recording.fitting import PictureFitter

faulthandler.enable()
libc = ctypes.CDLL(None, use_errno=True)
PAGE = mmap.PAGESIZE

def guarded(shape):
    '''Return an array, zeroed, whose last byte is the last before a page that nobody may read.'''
    size = int(np.prod(shape))
    pages = -(-size // PAGE)
    area = mmap.mmap(-1, (pages + 1) * PAGE)
    memory = np.frombuffer(area, np.uint8)
    behind = ctypes.c_void_p(memory.ctypes.data + pages * PAGE)
    assert libc.mprotect(behind, PAGE, 0) == 0, ctypes.get_errno()
    return memory[pages * PAGE - size : pages * PAGE].reshape(shape)

BYTES = {"bgr24": 3, "rgb24": 3, "bgra": 4, "rgba": 4, "gray": 1, "yuv420p": 0, "nv12": 0}
for format, channels in BYTES.items():
    for width in (2, 4, 6, 10, 16, 100, 426, 854, 1080, 1366):
        for height in (4, 50):
            shape = (height, width, channels)
            if channels == 1:
                shape = shape[:2]
            elif not channels:
                shape = (height * 3 // 2, width)
            picture = guarded(shape)
            print(format, width, height, sys.argv[1], flush=True)  # the last line names the culprit
            if sys.argv[1] == "bare":
                frame = VideoFrame.from_numpy_buffer(picture, format)
                VideoReformatter().reformat(frame, format="yuv420p")
                continue
            with VideoSource(width, 48, 240) as source:
                source.write(picture, format)
                frame = VideoFrame.from_numpy_buffer(picture, format)
                source.write(frame)
            PictureNormalizer().normal(frame)
            PictureFitter(64, 48).fit(frame)
            for wanted in ("bgr24", "gray", "rgba"):
                PixelConverter().convert(frame, wanted)
print("all")
"""

mapped = pytest.mark.skipif(sys.platform == "win32", reason="mprotect is POSIX")


@mapped
def test_pictures_at_the_end_of_memory() -> None:
    result = run_script(GUARDED, "ours")
    assert result.returncode == 0, (result.stdout[-200:], result.stderr[-2000:])
    assert result.stdout.endswith("all\n")


@mapped
def test_the_guard_page_catches_what_reads_beyond() -> None:
    """FFmpeg does, by itself: where this fails, it has ceased to."""
    assert run_script(GUARDED, "bare").returncode != 0


@pytest.mark.parametrize("format", ["yuv420p", "nv12"])
@pytest.mark.parametrize("shape", [(0, 16), (3, 16), (6, 0), (6, 16384), (24579, 16)])
def test_planar_pictures_too_small_or_too_large(format: str, shape: tuple[int, int]) -> None:
    with VideoSource(64, 48) as source, pytest.raises(ValueError, match="rows and 2 to"):
        source.write(np.zeros(shape, np.uint8), format)


@pytest.mark.parametrize("format", ["yuv420p", "nv12"])
def test_the_smallest_planar_picture(format: str) -> None:
    with VideoSource(64, 48, 240) as source:
        source.write(np.zeros((6, 2), np.uint8), format)
