"""Change what is right in every way, and bound the time that reading it takes.

Descriptions, candidates, RTP and RTCP packets, frames: a few thousand in each run, a million in
the long one. What fails is named by its number: the same number gives the same input again.
"""

from __future__ import annotations

import json
import random
import struct
import time
from collections.abc import Callable

import pytest
from aiortc.rtp import RtcpPacket, RtpPacket

from metered_sync.engine.webrtc.sdp_repair import repair
from metered_sync.local.sfu import rtcp
from metered_sync.local.sfu.rtp import parse_packet
from metered_sync.wire import frames, sdp
from metered_sync.wire.signals import parse_signal
from tests.conftest import ROOT
from tests.hostile.test_descriptions import CANDIDATE, DATA, HEAD, VIDEO

MOST = 0.2
"""Seconds of CPU time that reading one input may cost."""
OFFER = HEAD + "".join(VIDEO % n for n in range(3)) + DATA % 3 + CANDIDATE
SAMPLES = sorted((ROOT / "tests" / "engine" / "rooms" / "samples").glob("*.json"))
FRAMES = (
    b'{"type":"message","channel":"c","from":"p","data":{"a":[1,null,"x"]},"fromMetadata":{}}',
    b'{"type":"presence","channel":"c","joined":[{"peerId":"a","metadata":{}}],"left":[]}',
    b'{"type":"welcome","peerId":"me","expiresAt":1,"serverTime":1,"maxMessageSize":65536}',
    b'{"type":"publish","channel":"c","data":[],"requestId":"1"}',
)
RTP = struct.pack("!BBHII", 0x90, 96, 1, 2, 3) + struct.pack("!HH", 0xBEDE, 1) + bytes(40)
RTCP = (
    struct.pack("!BBH", 0x80, 200, 6) + bytes(24),
    struct.pack("!BBH", 0x81, 201, 7) + bytes(28),
    struct.pack("!BBH", 0x81, 205, 3) + bytes(12),
    struct.pack("!BBH", 0x8F, 206, 5) + bytes(8) + b"REMB" + bytes(8),
    struct.pack("!BBH", 0x81, 202, 3) + struct.pack("!IBB", 1, 1, 4) + b"name" + bytes(2),
)


def changed(draw: random.Random, given: bytes) -> bytes:
    """Return an input with some of its bytes changed, cut, doubled or put elsewhere."""
    data = bytearray(given)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        at = draw.randrange(len(data) + 1)
        length = draw.choice((1, 2, 4, 16, 64, 256))
        match draw.randrange(6):
            case 0:
                del data[at : at + length]
            case 1:
                data[at:at] = data[at : at + length] * draw.choice((1, 2, 30))
            case 2:
                data[at : at + length] = draw.randbytes(length)
            case 3:
                data[at:at] = draw.choice(
                    (b"\r\n", b"m=", b"a=", b":", b"9" * 20, b"[", b'"', b" ")
                )
            case 4:
                part = data[at : at + length]
                where = draw.randrange(len(data) + 1)
                data[where:where] = part
            case _:
                if at < len(data):
                    data[at] ^= 1 << draw.randrange(8)
    return bytes(data[:65536])


def descriptions() -> list[bytes]:
    """Return what browsers have said."""
    found: list[bytes] = []
    for path in SAMPLES:
        for lines in json.loads(path.read_text()).values():
            found.append("\r\n".join((*lines, "")).encode())
    assert found
    return found


def read_description(data: bytes) -> None:
    try:
        repair(sdp.parse(data.decode("utf-8", "replace")))
    except sdp.SdpError:
        pass


def read_signal(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for signal in (
        {"type": "rtc-ice", "candidate": {"candidate": text, "sdpMid": text[:9]}},
        {"type": "rtc-description", "description": {"type": "answer", "sdp": text}},
    ):
        parse_signal(signal)


def read_frame(data: bytes) -> None:
    for parse in (frames.parse_server_frame, frames.parse_client_frame):
        try:
            parse(data)
        except frames.FrameError:
            pass


def read_rtp(data: bytes) -> None:
    parse_packet(data)
    try:
        RtpPacket.parse(data)
    except ValueError:
        pass


def read_rtcp(data: bytes) -> None:
    for message in rtcp.parse_compound(data):
        rtcp.sender_info(message)
        asked = rtcp.feedback(message)
        if asked is not None:
            list(rtcp.nacked(asked.details))
            list(rtcp.fir_targets(asked.details))
    try:
        RtcpPacket.parse(data)
    except ValueError:
        pass


KINDS: dict[str, tuple[Callable[[bytes], None], tuple[bytes, ...]]] = {
    "descriptions": (read_description, (OFFER.encode(), *descriptions())),
    "candidates": (read_signal, (CANDIDATE[2:].strip().encode(),)),
    "frames": (read_frame, FRAMES),
    "rtp": (read_rtp, (RTP,)),
    "rtcp": (read_rtcp, RTCP),
}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("count", [3000, pytest.param(200_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_comes_is_read_or_refused_in_time(kind: str, count: int) -> None:
    read, corpus = KINDS[kind]
    for number in range(count):
        draw = random.Random(f"{kind} {number}")
        data = changed(draw, draw.choice(corpus))
        begin = time.thread_time()
        try:
            read(data)
        except Exception as error:
            pytest.fail(f"number {number}: {error!r} for {data[:200]!r}")
        if time.thread_time() - begin > MOST:  # perhaps the collector went round
            begin = time.thread_time()
            read(data)
        assert time.thread_time() - begin < MOST, f"number {number}"
