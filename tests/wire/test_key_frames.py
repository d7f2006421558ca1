"""Test that starts of pictures and key frames are recognised, with real encoders too."""

import fractions

import av
import numpy as np
import pytest
from aiortc.codecs import get_encoder
from aiortc.rtcrtpparameters import RTCRtpCodecParameters

from metered_sync.wire.key_frames import detector, size_in_payload, starts_picture, stream_detector


@pytest.mark.parametrize("name", ["VP8", "H264"])
def test_frames_of_a_real_encoder(name):
    encoder = get_encoder(
        RTCRtpCodecParameters(mimeType=f"video/{name}", clockRate=90000, payloadType=96)
    )
    is_key = detector(name)
    assert is_key is not None
    found = []
    for count in range(12):
        image = np.full((240, 320, 3), count * 10, np.uint8)
        frame = av.VideoFrame.from_ndarray(image, "bgr24")
        frame.pts = count * 3000
        frame.time_base = fractions.Fraction(1, 90000)
        payloads, _ = encoder.encode(frame, force_keyframe=count == 7)
        found.append(any(is_key(payload) for payload in payloads))
    assert [count for count, key in enumerate(found) if key] == [0, 7]


@pytest.mark.parametrize("name", ["VP8", "H264"])
@pytest.mark.parametrize(("width", "height"), [(320, 240), (322, 182), (640, 360)])
def test_the_size_of_a_picture_of_a_real_encoder(name, width, height):
    encoder = get_encoder(
        RTCRtpCodecParameters(mimeType=f"video/{name}", clockRate=90000, payloadType=96)
    )
    for count, sizes in enumerate([{(width, height)}, set()]):
        frame = av.VideoFrame(width, height, "yuv420p")
        frame.pts = count * 3000
        frame.time_base = fractions.Fraction(1, 90000)
        payloads, _ = encoder.encode(frame, force_keyframe=count == 0)
        assert {size_in_payload(name, one) for one in payloads} - {None} == sizes
        for payload in payloads[:2]:  # whatever is cut off
            for length in range(40):
                assert size_in_payload(name, payload[:length]) in (None, (width, height))
    assert size_in_payload("AV1", b"\x08") is None


@pytest.mark.parametrize(
    ("name", "payload", "expected"),
    [
        # VP8: start of the first partition, then the frame's own first bit.
        ("vp8", "10 00", True),
        ("vp8", "10 01", False),
        ("vp8", "11 00", False),
        ("vp8", "00 00", False),
        ("vp8", "90 80 12 00", True),
        ("vp8", "90 80 12 01", False),
        ("vp8", "90 80 9234 00", True),
        ("vp8", "90 e0 9234 05 20 00", True),
        ("vp8", "90 e0 9234 05 20 01", False),
        ("vp9", "8c", True),
        ("vp9", "cc", False),
        ("vp8", "90 00 00", True),
        ("vp8", "90 40 07 00", True),
        ("vp8", "90 80 07 00", True),
        ("vp8", "90 80 87 07 01", False),
        ("vp9", "84", False),
        ("av1", "18", True),
        ("av1", "10", False),
        ("h264", "67 42", True),
        ("h264", "65", True),
        ("h264", "41", False),
        ("h264", "78 0010 67", True),
        ("h264", "78 0002 0910 0002 6742 0002 68ce", True),  # a delimiter first
        ("h264", "78 0002 06ff 0002 6588", True),
        ("h264", "78 0002 0910 0002 419a", False),
        ("h264", "78 0000 0000 0001 65", True),
        ("h264", "7c 85", True),
        ("h264", "7c 05", False),
        ("h264", "7c 81", False),
        ("h265", "40 01", True),
        ("h265", "26 01", True),
        ("h265", "02 01", False),
        ("h265", "60 01 0018 40", True),
        ("h265", "62 01 93", True),
        ("h265", "62 01 13", False),
    ],
)
def test_first_bytes(name, payload, expected):
    is_key = detector(name)
    assert is_key is not None
    assert is_key(bytes.fromhex(payload)) is expected


@pytest.mark.parametrize("name", ["VP8", "vp9", "AV1", "H264", "H265"])
@pytest.mark.parametrize("payload", [b"", b"\x90", b"\x78", b"\x7c", b"\x62", b"\0\0\0\4"])
def test_short_payloads_are_no_key_frames(name, payload):
    is_key = detector(name)
    assert is_key is not None
    assert is_key(payload) in (False, True)
    assert not is_key(b"")


@pytest.mark.parametrize(
    ("name", "payload", "picture", "stream"),
    [
        ("vp8", "10 00", True, True),
        ("vp8", "10 01", True, False),
        ("vp8", "90 80 12 01", True, False),
        ("vp8", "11 00", False, False),
        ("vp8", "00 00", False, False),
        ("h264", "67 42", True, True),
        ("h264", "68 ce", True, False),
        ("h264", "65 88", True, False),
        ("h264", "65 08", False, False),
        ("h264", "41 9a", True, False),
        ("h264", "41 1a", False, False),
        ("h264", "78 0010 67 42", True, True),
        ("h264", "78 0002 0910 0002 6742", True, True),
        ("h264", "78 0010 41 1a", False, False),
        ("h264", "7c 85 88", True, False),
        ("h264", "7c 85 08", False, False),
        ("h264", "7c 05 88", False, False),
    ],
)
def test_where_a_picture_and_where_a_stream_may_start(name, payload, picture, stream):
    assert starts_picture(name, bytes.fromhex(payload)) is picture
    can_start = stream_detector(name)
    assert can_start is not None
    assert can_start(bytes.fromhex(payload)) is stream


def test_other_codecs_are_not_known():
    assert detector("opus") is None
    assert starts_picture("opus", b"")
    assert stream_detector("opus") is None
    assert not starts_picture("h264", b"\x7c\x05")
    can_start = stream_detector("VP8")
    assert can_start is not None
    assert not can_start(b"")
