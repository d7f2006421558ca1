"""Make and copy frames of sound and pictures."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from av import AudioFrame, VideoFrame

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


def test_a_copy_may_be_written_to() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (72, 66), np.uint8)
    original = VideoFrame.from_ndarray(picture, format="yuv420p")
    original.pts, original.time_base = 7, Fraction(1, 30)
    copy = private_copy(original)
    assert (copy.to_ndarray() == picture).all()
    for plane in copy.planes:
        plane.update(bytes(plane.buffer_size))
    copy.pts = 9
    assert (original.to_ndarray() == picture).all()
    assert (original.pts, original.time_base) == (7, Fraction(1, 30))
