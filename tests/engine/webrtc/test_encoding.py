"""Encode pictures at a given bit rate."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from av import VideoFrame

from metered_sync.engine.webrtc.encoding import PINNED

RATE = 30


def sizes(encoder: Any, seconds: int, wishes: int) -> list[int]:
    """Encode small blocks that jump, while a receiver wishes a rate; return each second's bits."""
    random = np.random.default_rng(1)
    block = np.ones((4, 4), np.uint8)
    bits = [0] * seconds
    codecs = set()
    for number in range(seconds * RATE):
        picture = np.full((360, 320), 128, np.uint8)
        picture[:120] = np.kron(random.integers(64, 192, (30, 80), dtype=np.uint8), block)
        frame = VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts, frame.time_base = number * 90000 // RATE, Fraction(1, 90000)
        encoder.target_bitrate = wishes
        payloads, _ = encoder.encode(frame)
        bits[number // RATE] += sum(map(len, payloads)) * 8
        codecs.add(encoder.codec)
    assert len(codecs) == 1  # a new one would begin with a key frame, and learn anew
    return bits


@pytest.mark.parametrize("codec", ["vp8", "h264"])
@pytest.mark.parametrize("bitrate", [300_000, 1_500_000])
def test_a_given_bit_rate_holds_from_the_first_second_on(codec: str, bitrate: int) -> None:
    first, *later = sizes(PINNED[codec](bitrate), 3, wishes=700_000)
    assert first == pytest.approx(bitrate, rel=0.4)  # it begins with a key frame
    assert later == pytest.approx([bitrate] * 2, rel=0.2)
