"""Write pictures of an encoder of one's own: what is taken, and what is refused at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from metered_sync import ClosedError, EncodedSource, KeyFrameWanted, MediaError
from tests.support.encoded import packets, units


@pytest.mark.parametrize("codec", ["h264", "vp8"])
def test_what_cannot_be_decoded_is_dropped_and_a_key_frame_asked_for(codec: Any) -> None:
    made = units(codec, 12, gop=10)
    with EncodedSource(codec, 240) as source, source.feedback() as feedback:
        for unit in made[1:10]:
            source.write(unit)
        assert (source.dropped, len(feedback)) == (9, 1)  # at most once a second
        assert feedback.get(timeout=20) == KeyFrameWanted()
        for unit in made[10:]:
            source.write(unit)
        assert source.dropped == 9
    with pytest.raises(ClosedError):
        feedback.get(timeout=20)


def test_packets_are_taken_as_bytes_are() -> None:
    with EncodedSource("h264", 240) as source:
        for packet in packets("h264", 3):
            source.write(packet)
        assert source.dropped == 0
        assert str(getattr(source.track, "format")).startswith("H.264 (High profile")  # noqa: B009


def test_b_frames_are_refused() -> None:
    with EncodedSource("h264", 240) as source, pytest.raises(MediaError, match="has B-frames"):
        for unit in units("h264", 8, bf="2", b_adapt="0"):
            source.write(unit)


def test_another_codec_is_refused() -> None:
    with EncodedSource("h264", 240) as h264, EncodedSource("vp8", 240) as vp8:
        with pytest.raises(MediaError, match=r"is H\.265 \(HEVC\).*VideoSource"):
            h264.write(units("hevc", 1)[0])
        with pytest.raises(ValueError, match=r"not H\.264 in Annex B.*start code"):
            h264.write(units("vp8", 1)[0])
        with pytest.raises(ValueError, match=r"no VP8, whose key frames have 9d 01 2a"):
            vp8.write(units("h264", 1)[0])
        with pytest.raises(ValueError, match="without a byte"):
            vp8.write(b"")
        with pytest.raises(TypeError, match=r"not ndarray: .* VideoSource"):
            vp8.write(np.zeros((4, 4, 3), np.uint8))
        assert h264.dropped == vp8.dropped == 0
