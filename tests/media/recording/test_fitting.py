"""Fit pictures into a size: every shape, every pixel format."""

from __future__ import annotations

import numpy as np
import pytest
from av import VideoFrame

from metered_sync.media.recording.fitting import PictureFitter


@pytest.mark.parametrize(
    "size", [(640, 360), (90, 160), (33, 17), (2, 200), (161, 121), (160, 120)]
)
@pytest.mark.parametrize("format", ["yuv420p", "rgb24", "yuvj422p", "gray"])
def test_every_size_and_format_fits(size: tuple[int, int], format: str) -> None:
    frame = VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 255, np.uint8), "rgb24")
    fitted = PictureFitter(160, 120).fit(frame.reformat(format=format))
    image = fitted.to_ndarray(format="gray")
    assert (fitted.width, fitted.height, fitted.format.name) == (160, 120, "yuv420p")
    assert image[60, 79] > 230
    width = min(size[0] * min(160 / size[0], 120 / size[1]), 160)
    assert abs(int((image[60] > 128).sum()) - width) <= 2
