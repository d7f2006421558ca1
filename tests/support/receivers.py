"""Receivers of aiortc's that are given packets by hand, and media on its way to them."""

from __future__ import annotations

import asyncio
import functools
import heapq
import random
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import av
from aiortc import RTCRtpCodecParameters, RTCRtpReceiver
from aiortc.codecs import depayload, get_decoder, get_encoder
from aiortc.rtp import RtpPacket

from metered_sync.engine.webrtc import jitter
from metered_sync.engine.webrtc.encoded_frames import EncodedFrame
from metered_sync.engine.webrtc.picture_extensions import Colours
from metered_sync.testing.sources import PatternPainter, read_number
from metered_sync.wire.key_frames import MAX_PIXELS

VP8 = RTCRtpCodecParameters("video/VP8", 90000, payloadType=97)
H264 = RTCRtpCodecParameters("video/H264", 90000, payloadType=99)
PCMU = RTCRtpCodecParameters("audio/PCMU", 8000, payloadType=0)
OPUS = RTCRtpCodecParameters("audio/opus", 48000, channels=2, payloadType=96)
CODECS = {"vp8": VP8, "h264": H264, "pcmu": PCMU, "opus": OPUS}
FRAME = 3000
"""The time from one picture to the next, in 1/90000 s."""


class Clock:
    """Stands in for the clock of :mod:`metered_sync.engine.webrtc.jitter`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Transport:
    state = "new"


class FrameConsumer:
    """Somebody who wants frames, or does not."""

    def __init__(self) -> None:
        self.wants = True
        self.left_out = 0
        self.appearances: list[tuple[int, int, Colours | None]] = []
        self.max_pixels = MAX_PIXELS
        self.dropped = 0
        self.lacking: list[bool] = []
        self.passes_on = False
        self.passed_on: list[EncodedFrame] = []
        self.lacks_key_frame = False

    def wanted(self) -> bool:
        return self.wants or self.passes_on

    def decodes(self) -> bool:
        return self.wants

    def pass_on(self, picture: EncodedFrame) -> bool:
        self.lacks_key_frame = self.lacks_key_frame and not picture.key
        if not self.lacks_key_frame:
            self.passed_on.append(picture)
        return self.lacks_key_frame

    def leave_out(self) -> None:
        self.left_out += 1

    def appears(self, pts: int, turns: int, colours: Colours | None) -> None:
        self.appearances.append((pts, turns, colours))

    def admits(self, width: int, height: int) -> bool:
        return width * height <= self.max_pixels

    def drop(self, count: int) -> None:
        self.dropped += count

    def lack_key_frame(self, lacking: bool) -> None:
        self.lacking.append(lacking)


class Receiver:
    """A receiver of aiortc's, taken over."""

    def __init__(self, kind: str = "video", raw: Any = None) -> None:
        self.consumer = FrameConsumer()
        self.plis = 0
        self.asked: list[list[int]] = []
        """The packets that were asked for, each time."""
        self.raw = raw or RTCRtpReceiver(kind, Transport())  # type: ignore[arg-type]
        for codec in CODECS.values():
            self.raw._RTCRtpReceiver__codecs[codec.payloadType] = codec
        self.raw._RTCRtpReceiver__decoder_thread = True
        self.raw._send_rtcp_pli = self._pli
        self.raw._send_rtcp_nack = self._nack
        self.intake: Any = jitter.take_over(self.raw, self.consumer)

    async def _pli(self, _ssrc: int) -> None:
        self.plis += 1

    async def _nack(self, _ssrc: int, lost: list[int]) -> None:
        self.asked.append(lost)

    def take(self, *packets: RtpPacket) -> list[Any]:
        """Take packets; return what the decoder was handed: codec and frame."""
        self.queue(*packets)
        return self.decode()

    def queue(self, *packets: RtpPacket) -> None:
        """Take packets; leave to the decoder what comes of them."""
        for packet in packets:
            handling = self.raw._handle_rtp_packet(packet, 0)
            try:
                handling.send(None)
            except StopIteration:
                continue
            raise AssertionError("it waits")

    def begin_reading(self) -> int:
        """Take note of one more reader; return how often it made a key frame be asked for."""

        async def begin() -> None:
            self.intake.begin_reading()
            await asyncio.sleep(0)

        before = self.plis
        asyncio.run(begin())
        return self.plis - before

    def decode(self, most: int | None = None) -> list[Any]:
        """Return what the decoder was handed and has not taken; ``most`` of it."""
        queue = self.raw._RTCRtpReceiver__decoder_queue
        count = queue.qsize() if most is None else min(most, queue.qsize())
        return [queue.get_nowait() for _ in range(count)]


@functools.cache
def encoded(
    codec: str,
    count: int,
    keys: tuple[int, ...] = (),
    size: tuple[int, int] = (320, 240),
    start: int = 0,
) -> list[list[bytes]]:
    """Return the payloads of that many pictures; those of ``keys`` are key frames.

    Picture n shows ``start`` + n.
    """
    encoder: Any = get_encoder(CODECS[codec])
    encoder.target_bitrate = 1_500_000
    painter = PatternPainter(*size)
    result = []
    for number in range(count):
        frame = painter.frame(start + number)
        frame.pts, frame.time_base = number * FRAME, Fraction(1, 90000)
        payloads, _ = encoder.encode(frame, number in keys)
        assert payloads
        result.append(payloads)
    return result


def packets(
    codec: str,
    pictures: Iterable[list[bytes]],
    *,
    sequence: int = 65500,
    timestamp: int = 2**32 - 5 * FRAME,
    ssrc: int = 1,
) -> list[list[RtpPacket]]:
    """Put pictures into packets, as a sender does. Numbers and timestamps wrap early."""
    result = []
    for payloads in pictures:
        result.append(
            [
                RtpPacket(
                    CODECS[codec].payloadType,
                    int(payload is payloads[-1]),
                    (sequence := (sequence + 1) & 0xFFFF),
                    timestamp & 0xFFFFFFFF,
                    ssrc,
                    payload,
                )
                for payload in payloads
            ]
        )
        timestamp += FRAME
    return result


def bitstreams(codec: str, count: int, size: tuple[int, int] = (320, 240)) -> list[bytes]:
    """Return that many pictures as decoders take them."""
    return [
        b"".join(depayload(CODECS[codec], payload) for payload in payloads)
        for payloads in encoded(codec, count, (), size)
    ]


class Decoder:
    """Tells which pictures were handed over."""

    def __init__(self, codec: str) -> None:
        self._decoder: Any = get_decoder(CODECS[codec])

    def numbers(self, handed: Iterable[Any]) -> list[int | None]:
        """Return their numbers; ``None`` for one that cannot be decoded, or read."""
        result: list[int | None] = []
        for _, frame in handed:
            try:
                pictures = self._decoder.decode(frame)
            except av.FFmpegError:
                pictures = []
            found = [read_number(picture.to_ndarray(format="gray")) for picture in pictures]
            result += found or [None]
        return result


class Network:
    """Loses, delays and doubles packets; has lost ones sent again, which may be lost again."""

    def __init__(self, receiver: Receiver, clock: Clock, seed: int, fraction: float = 0.03) -> None:
        self._receiver = receiver
        self._clock = clock
        self._random = random.Random(seed)
        self._fraction = fraction
        self._sent: dict[int, RtpPacket] = {}
        self._due: list[tuple[float, int, RtpPacket]] = []
        self._count = 0
        self._served = 0

    def send(self, packet: RtpPacket) -> None:
        self._sent[packet.sequence_number] = packet
        for _ in range(2 if self._happens() else 1):
            if not self._happens():
                delay = 0.005 + (self._random.uniform(0.0, 0.08) if self._happens() else 0.0)
                self._count += 1
                heapq.heappush(self._due, (self._clock.now + delay, self._count, packet))

    def run(self, until: float) -> list[Any]:
        """Let what is due arrive; return what was handed over."""
        handed = []
        while self._due and self._due[0][0] <= until:
            self._clock.now, _, packet = heapq.heappop(self._due)
            handed += self._receiver.take(packet)
            for lost in self._receiver.asked[self._served :]:
                if not self._happens():
                    for number in lost:
                        if number in self._sent:
                            self.send(self._sent[number])
            self._served = len(self._receiver.asked)
        self._clock.now = until
        return handed

    def _happens(self) -> bool:
        return self._random.random() < self._fraction
