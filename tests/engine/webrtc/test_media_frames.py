"""Make and copy frames of sound and pictures."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from av import AudioFrame, VideoFrame
from av.video.reformatter import VideoReformatter

from metered_sync.engine.webrtc.media_frames import (
    audio_frame,
    interleaved,
    private_copy,
    sound_kind,
)


def test_a_frame_of_sound() -> None:
    frame = audio_frame(1920, b"\x01\x00\x02\x00" * 960)
    assert (frame.samples, frame.sample_rate, frame.time) == (960, 48000, 0.04)
    assert sound_kind(frame) == ("s16", "stereo", 48000)
    assert frame.to_ndarray().ravel().tolist() == [1, 2] * 960


def test_mono_goes_to_both_channels_at_full_strength() -> None:
    mono = AudioFrame.from_ndarray(np.array([[1, -2, 3]], np.int16), "s16", "mono")
    assert interleaved(mono, 2).tolist() == [1, 1, -2, -2, 3, 3]
    assert interleaved(mono, 1).tolist() == [1, -2, 3]
    stereo = AudioFrame.from_ndarray(np.array([[1, 2, 3, 4]], np.int16), "s16", "stereo")
    assert interleaved(stereo, 2).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("size", [(64, 48), (33, 17), (1, 1), (1022, 2)])
@pytest.mark.parametrize("pixels", ["yuv420p", "rgb24", "gray"])
def test_a_copy_may_be_written_to(size: tuple[int, int], pixels: str) -> None:
    original = VideoFrame(*size, pixels)
    for plane in original.planes:
        plane.update(bytes([200]) * plane.buffer_size)
    original.pts, original.time_base = 7, Fraction(1, 30)
    before = [bytes(plane) for plane in original.planes]
    copy = private_copy(original, VideoReformatter())
    assert copy is not original
    assert copy.format.name == "yuv420p"
    assert (copy.width, copy.height) == tuple(max(side & ~1, 2) for side in size)
    for plane in copy.planes:
        plane.update(bytes(plane.buffer_size))
    copy.pts = 9
    assert [bytes(plane) for plane in original.planes] == before
    assert (original.pts, original.time_base) == (7, Fraction(1, 30))


def test_a_copy_has_the_same_picture() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (72, 64), np.uint8)
    frame = VideoFrame.from_ndarray(picture, format="yuv420p")
    assert (private_copy(frame, VideoReformatter()).to_ndarray() == picture).all()
