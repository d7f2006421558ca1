"""Send pictures that would cost a decoder far more than they cost their sender."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import pytest
from aiortc.rtp import RtpPacket

from metered_sync import MeteredPeer, SfuClient
from metered_sync.bridge.reader import Reader
from metered_sync.engine.webrtc import jitter
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.wire.key_frames import UNREADABLE, largest_size
from tests.support.receivers import FRAME, VP8, Receiver, encoded, packets
from tests.support.victim import cpu_of

HUGE_VP8 = b"\x10\x00\x00\x00\x9d\x01\x2a\xff\x3f\xff\x3f" + bytes(1000)
"""A key frame that claims 16383 x 16383 pixels."""


def vp8(payload: bytes, number: int, picture: int, *, last: bool = True) -> RtpPacket:
    return RtpPacket(
        payload_type=VP8.payloadType,
        marker=int(last),
        sequence_number=number & 0xFFFF,
        timestamp=picture * FRAME,
        ssrc=1,
        payload=payload,
    )


@pytest.mark.parametrize("codec", ["libx264", "vp8"])
@pytest.mark.parametrize("size", [(64, 48), (320, 240), (1280, 720), (1920, 1088)])
def test_the_size_that_encoders_write_is_read(codec: str, size: tuple[int, int]) -> None:
    context: Any = av.CodecContext.create("libvpx" if codec == "vp8" else codec, "w")
    context.width, context.height = size
    context.pix_fmt, context.time_base = "yuv420p", Fraction(1, 30)
    (picture, *_) = [
        bytes(packet)
        for frame in (av.VideoFrame(*size, "yuv420p"), None)
        for packet in context.encode(frame)
    ]
    assert largest_size("vp8" if codec == "vp8" else "H264", picture) == size


def test_parameters_that_cannot_be_read_are_larger_than_any() -> None:
    assert largest_size("h264", b"\0\0\x01\x67") == UNREADABLE
    assert largest_size("h264", b"\0\0\x01\x67" * 100) == UNREADABLE
    assert largest_size("h264", b"\0\0\x01\x65" + bytes(100)) is None
    assert largest_size("vp8", b"\x01") is None
    assert largest_size("av1", b"") is None
    for length in range(12):
        size = largest_size("h264", b"\0\0\x01\x67\x42\0\x33" + b"\xff" * length)
        assert size is not None


@pytest.mark.parametrize("unit", [b"\0\0\x01\x67", b"\0\0\x01\x65", b"\0\0\x01", b"\0"])
def test_reading_a_size_costs_little(unit: bytes) -> None:
    picture = unit * (jitter.MAX_PICTURE_BYTES // len(unit))
    assert cpu_of(lambda: largest_size("h264", picture)) < 0.5


def test_a_picture_of_a_kilobyte_that_claims_gigabytes(caplog: pytest.LogCaptureFixture) -> None:
    """It never reaches the decoder; nor does what refers to it; the next key frame does."""
    receiver = Receiver()
    track, reader = IncomingTrack("video", id="t"), Reader[Any]("a reader")
    track.add(reader)
    jitter.take_over(receiver.raw, track)
    for number in range(100):
        payload = HUGE_VP8 if number % 10 == 0 else b"\x10\x01" + bytes(50)
        assert receiver.take(vp8(payload, number, number)) == []
    assert (track.stats()["oversized"], track.frames) == (10, 100)
    assert caplog.text.count("max_pixels") == 1
    good = packets("vp8", encoded("vp8", 1))[0]
    handed: list[Any] = []
    for index, packet in enumerate(good):
        packet.sequence_number, packet.timestamp, packet.ssrc = 100 + index, 100 * FRAME, 1
        handed += receiver.take(packet)
    assert len(handed) == 1


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_a_track_that_nobody_has_read_costs_no_decoder(kind: str) -> None:
    """Nor is a key frame asked for; the first reader gets one."""
    receiver, track = Receiver(kind), IncomingTrack(kind, id="t")
    jitter.take_over(receiver.raw, track)
    video = kind == "video"
    pictures = [[bytes([0x10, number % 15 > 0, *range(9)])] for number in range(20)]
    sent = packets("vp8" if video else "pcmu", pictures)  # the 1st and the 16th are key frames
    for picture in sent[:10]:
        assert receiver.take(*picture) == []
    assert (track.frames, track.decoded, receiver.plis) == (10, 0, 0)
    reader = Reader[Any]("a reader")
    track.add(reader)
    taken = [len(receiver.take(*picture)) for picture in sent[10:]]
    assert taken == ([0] * 5 if video else [1] * 5) + [1] * 5
    assert receiver.plis == int(video)


def test_max_pixels_is_an_area() -> None:
    track = IncomingTrack("video", id="t", max_pixels=100 * 100)
    assert track.admits(10, 1000)
    assert not track.admits(101, 100)
    assert IncomingTrack("video", id="t").admits(2304, 4096)
    assert not IncomingTrack("video", id="t").admits(2304, 4097)


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "many", None])
def test_max_pixels_is_checked_where_it_is_given(bad: Any) -> None:
    with pytest.raises(ValueError, match="max_pixels"):
        MeteredPeer(api_key="pk_test_1", max_pixels=bad)
    with pytest.raises(ValueError, match="max_pixels"):
        SfuClient(app_id="a", secret="s", url="http://localhost", max_pixels=bad)


def test_a_picture_that_never_ends_is_dropped() -> None:
    """And a key frame asked for; packets of it are not kept, pictures after it are decoded."""
    receiver = Receiver()
    buffer = receiver.raw._RTCRtpReceiver__jitter_buffer
    part = bytes(1200)
    for number in range(12000):
        first = b"\x10\x00" if number == 0 else b"\x00"
        assert receiver.take(vp8(first + part, number, 0, last=False)) == []
        assert len(buffer._parts) * len(part) <= jitter.MAX_PICTURE_BYTES
    assert receiver.consumer.left_out == 1
    assert receiver.plis
    assert not buffer._parts
    good = packets("vp8", encoded("vp8", 1))[0]
    handed: list[Any] = []
    for index, packet in enumerate(good):
        packet.sequence_number, packet.timestamp, packet.ssrc = 12000 + index, FRAME, 1
        handed += receiver.take(packet)
    assert len(handed) == 1
