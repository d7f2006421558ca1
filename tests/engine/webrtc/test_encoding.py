"""Encode pictures at a given bit rate."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from aiortc.codecs import get_decoder
from aiortc.codecs.vpx import VpxPayloadDescriptor
from aiortc.jitterbuffer import JitterFrame
from av import VideoFrame

from metered_sync.engine.webrtc.encoding import PINNED, ExactVp8Encoder
from metered_sync.testing.sources import PatternPainter
from tests.support.receivers import VP8

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


@pytest.mark.parametrize("bitrate", [None, 500_000])
def test_no_block_of_a_picture_is_left_as_it_was(bitrate: int | None) -> None:
    encoder: Any = PINNED["vp8"](bitrate) if bitrate else ExactVp8Encoder()
    decoder, painter = get_decoder(VP8), PatternPainter(160, 120)
    for number in range(200):
        picture = painter.frame(number)
        picture.pts, picture.time_base = number * 6000, Fraction(1, 90000)
        payloads, timestamp = encoder.encode(picture)
        data = b"".join(VpxPayloadDescriptor.parse(payload)[1] for payload in payloads)
        (seen,) = decoder.decode(JitterFrame(data=data, timestamp=timestamp))
        difference = np.abs(brightness(seen) - brightness(picture))
        blocks = difference[:112].reshape(7, 16, 10, 16).mean((1, 3))
        assert blocks.max() < 30, number


def test_another_size_or_rate_is_another_codec() -> None:
    encoder = ExactVp8Encoder()
    codecs = []
    for width, bitrate in ((160, 500_000), (160, 510_000), (160, 900_000), (320, 900_000)):
        encoder.target_bitrate = bitrate
        encoder.encode(painted(width))
        assert encoder.codec is not None
        codecs.append(encoder.codec)
    assert [a is b for a, b in itertools.pairwise(codecs)] == [True, False, False]


def painted(width: int) -> VideoFrame:
    frame = VideoFrame(width, 120, "yuv420p")
    frame.pts, frame.time_base = 0, Fraction(1, 90000)
    return frame


def brightness(frame: VideoFrame) -> Any:
    return frame.to_ndarray(format="yuv420p")[: frame.height].astype(int)
