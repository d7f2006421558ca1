"""Decode what a receiver is given, on its decoder's thread."""

from __future__ import annotations

import asyncio
import threading
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from aiortc import RTCRtpReceiver
from aiortc.codecs import depayload, get_encoder
from aiortc.rtcrtpreceiver import RemoteStreamTrack

from metered_sync.engine.webrtc import jitter
from metered_sync.engine.webrtc.aiortc_private.decoding import DecodingQueue
from metered_sync.testing import read_number
from tests.support.connections import run
from tests.support.far_end import picture
from tests.support.receivers import (
    CODECS,
    FRAME,
    Clock,
    FrameConsumer,
    Receiver,
    Transport,
    bitstreams,
    encoded,
    packets,
)


class Decoding:
    """A receiver that has not begun, and the thread that will take from its queue."""

    def __init__(self, kind: str = "video") -> None:
        self.raw: Any = RTCRtpReceiver(kind, Transport())  # type: ignore[arg-type]
        self.raw._track = RemoteStreamTrack(kind)
        jitter.take_over(self.raw, FrameConsumer())
        self.queue: Any = self.raw._RTCRtpReceiver__decoder_queue
        assert isinstance(self.queue, DecodingQueue)

    def put(self, codec: str, *pictures: bytes, start: int = 0) -> None:
        for number, data in enumerate(pictures, start):
            self.queue.put((CODECS[codec], SimpleNamespace(data=data, timestamp=number * FRAME)))

    async def decoded(self) -> list[Any]:
        """Decode all that was put, up to the end; return the frames."""
        self.queue.put(None)
        await asyncio.to_thread(self.queue.get)
        frames = self.raw.track._queue
        return [frames.get_nowait() for _ in range(frames.qsize())]


def reference(decoder: str, pictures: list[bytes]) -> list[Any]:
    """Return what another decoder makes of pictures."""
    codec: Any = av.CodecContext.create(decoder, "r")
    frames: list[Any] = []
    for number, data in enumerate(pictures):
        packet = av.Packet(data)
        packet.pts, packet.time_base = number * FRAME, Fraction(1, 90000)
        frames += codec.decode(packet)
    return frames


def facts(frame: Any) -> tuple[Any, ...]:
    """Return what a frame says of itself."""
    return (
        frame.pts, frame.time_base, frame.width, frame.height, frame.format.name,
        int(frame.colorspace), int(frame.color_range), int(frame.pict_type),
    )  # fmt: skip


def noisy(count: int, size: tuple[int, int]) -> list[bytes]:
    """Return pictures of VP8, of any size."""
    encoder: Any = get_encoder(CODECS["vp8"])
    return [
        b"".join(depayload(CODECS["vp8"], payload) for payload in encoder.encode(frame)[0])
        for frame in (picture(number, *size) for number in range(count))
    ]


@pytest.mark.parametrize("size", [(101, 77), (64, 48), (322, 240)])
def test_vp8_is_what_libvpx_makes_of_it(size: tuple[int, int]) -> None:
    """Of odd sizes, too; with a picture that is hidden; where the size changes in the middle."""
    pictures = [*noisy(20, size), *noisy(3, (160, 90))]
    pictures[5] = bytes([pictures[5][0] & ~0x10]) + pictures[5][1:]  # it is not to be shown

    async def test() -> None:
        decoding = Decoding()
        decoding.put("vp8", *pictures)
        ours, theirs = await decoding.decoded(), reference("libvpx", pictures)
        assert len(ours) == len(theirs) == 22
        for mine, other in zip(ours, theirs, strict=True):
            assert facts(mine) == facts(other)
            for format in ("gray", "bgr24"):
                mine_seen, seen = mine.to_ndarray(format=format), other.to_ndarray(format=format)
                assert np.array_equal(mine_seen, seen)

    run(test())


def test_a_bit_about_clamping_says_nothing_of_the_range() -> None:
    async def test() -> None:
        first = bytearray(bitstreams("vp8", 1)[0])
        assert first[10] < 64  # colours: a bit that is 0; clamping is needed: a bit that is 0
        first[10] += 64
        decoding = Decoding()
        decoding.put("vp8", bytes(first))
        (frame,) = await decoding.decoded()
        (other,) = reference("libvpx", [bytes(first)])
        assert facts(frame) == facts(other)
        assert np.array_equal(frame.to_ndarray(format="bgr24"), other.to_ndarray(format="bgr24"))

    run(test())


def test_each_picture_comes_before_the_next_is_there() -> None:
    """No decoder holds one back; the codec may change in the middle."""

    async def test() -> None:
        decoding = Decoding()
        frames = decoding.raw.track._queue
        thread = threading.Thread(target=decoding.queue.get)
        thread.start()
        pictures = [(codec, data) for codec in ("vp8", "h264") for data in bitstreams(codec, 10)]
        for number, (codec, data) in enumerate(pictures):
            decoding.put(codec, data, start=number)
            frame = await asyncio.wait_for(frames.get(), 20)
            assert frame.pts == number * FRAME
            assert read_number(frame.to_ndarray(format="gray")) == number % 10
        decoding.queue.put(None)
        await asyncio.to_thread(thread.join, 20)
        assert not thread.is_alive()

    run(test())


def test_sound_is_decoded_as_by_aiortc() -> None:
    async def test() -> None:
        decoding = Decoding("audio")
        decoding.put("pcmu", b"\xff" * 160, b"\xff" * 160)
        assert [frame.samples for frame in await decoding.decoded()] == [160, 160]

    run(test())


def test_a_key_frame_is_asked_for_after_what_cannot_be_decoded(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told of once, and the pictures that follow are decoded."""

    async def test() -> None:
        clock = Clock()
        monkeypatch.setattr(jitter, "monotonic", clock.monotonic)
        decoding = Decoding()
        receiver = Receiver(raw=decoding.raw)
        good = encoded("vp8", 12)
        bad = [b"\x10\x01\x00\x00", b"\x10\x01\x02"]
        sent = packets("vp8", [*good[:4], bad, *good[4:], bad])
        receiver.queue(*(packet for picture in sent[:6] for packet in picture))
        assert receiver.plis == 0
        assert [frame.pts // FRAME for frame in await decoding.decoded()] == [0, 1, 2, 3, 5]
        for later in sent[6:13]:
            receiver.queue(*later)
            assert receiver.plis == 1
        await decoding.decoded()  # with another one that cannot be decoded
        receiver.queue(*packets("vp8", good[:1], sequence=9, ssrc=2)[0])
        assert receiver.plis == 1  # one was asked for just now
        clock.now += 1
        receiver.queue(*packets("vp8", good[:1], sequence=9, ssrc=3)[0])
        assert receiver.plis == 2
        assert caplog.text.count("cannot be decoded") == 1

    run(test())
