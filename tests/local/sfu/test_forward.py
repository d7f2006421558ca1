"""Test forwarding byte by byte: a track and its subscriptions between two recorded paths."""

import asyncio
import contextlib
import dataclasses

from aiortc import rtp as other

from metered_sync.local.sfu import rtcp
from metered_sync.local.sfu.codecs import MID
from metered_sync.local.sfu.forward import PublishedTrack, TrackSubscription
from metered_sync.local.sfu.rtp import Packet, parse_packet
from metered_sync.wire.sdp import Codec, Extension
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.support.sfu_clients import until

SEND_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
TIMINGS = dataclasses.replace(DEFAULT_TIMINGS, renack=0.02, renack_give_up=1.0, pli_throttle=0.05)
VP8 = Codec(96, "VP8", 90000, feedback=("nack", "nack pli"))
KEY, DELTA = bytes((0x10, 0x00)), bytes((0x10, 0x01))


class Wire:
    """What arrived on a client's path, read by aiortc's parser, which is not ours."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self.feedback: list[object] = []
        self._extensions = other.HeaderExtensionsMap()

    def send_rtp(self, packet: bytes) -> None:
        assert type(packet) is bytes
        self.raw.append(packet)

    def send_rtcp(self, packet: bytes) -> None:
        self.feedback += other.RtcpPacket.parse(packet)

    @property
    def packets(self) -> list[other.RtpPacket]:
        return [other.RtpPacket.parse(data, self._extensions) for data in self.raw]

    @property
    def seqs(self) -> list[int]:
        return [packet.sequence_number for packet in self.packets]

    def count(self, fmt: int) -> int:
        return sum(getattr(item, "fmt", 0) == fmt for item in self.feedback)


def make_track(wire: Wire, kind: str = "video", codec: Codec = VP8) -> PublishedTrack:
    track = PublishedTrack(
        session_id="publisher",
        track_id="t",
        kind=kind,
        mid="0",
        path=wire,
        rtcp_ssrc=5,
        timings=TIMINGS,
    )
    track.configure([codec], [Extension(4, MID), Extension(3, SEND_TIME), Extension(9, "urn:x")])
    track.accept(77, codec.payload_type)
    return track


def subscribe(
    track: PublishedTrack, wire: Wire, ssrc: int = 1000, number: int = 120
) -> TrackSubscription:
    subscription = TrackSubscription(track, mid="s12", ssrc=ssrc, track_id="u", path=wire)
    codec = dataclasses.replace(track.codecs[0], payload_type=number)
    subscription.configure([codec], [Extension(1, MID), Extension(2, SEND_TIME)])
    track.attach(subscription)
    return subscription


def packet(seq: int, payload: bytes = DELTA, elements: list | None = None, flags: int = 0x80):
    return Packet(flags, 0x80, 96, seq & 0xFFFF, seq * 3000, 77, b"", elements or [], payload)


def run(test):
    """Run an async test and end its tracks, whose timers need the loop."""

    def wrapper():
        async def main():
            with contextlib.ExitStack() as stack:
                await test(stack)

        asyncio.run(main())

    wrapper.__name__ = test.__name__
    return wrapper


@run
async def test_a_packet_is_rewritten(stack):
    out = Wire()
    track = make_track(Wire())
    stack.callback(track.end)
    subscribe(track, out)
    elements = [(4, b"0"), (3, b"abc"), (9, b"dropped")]
    track.on_packet(packet(10, KEY + b"payload", elements), 1.0)
    (data,) = out.raw
    read = parse_packet(data)
    assert read is not None
    assert (read.payload_type, read.marker, read.ssrc) == (120, 0x80, 1000)
    assert read.timestamp == 30000
    assert read.elements == [(1, b"s12"), (2, b"abc")]
    assert read.payload == KEY + b"payload"


@run
async def test_a_subscription_begins_with_a_key_frame(stack):
    up, out = Wire(), Wire()
    track = make_track(up)
    stack.callback(track.end)
    subscribe(track, out)
    track.on_packet(packet(10), 1.0)
    track.on_packet(packet(11), 1.0)
    assert not out.raw
    assert up.count(other.RTCP_PSFB_PLI) == 1
    track.on_packet(packet(12, KEY), 1.0)
    track.on_packet(packet(13), 1.0)
    assert [item.timestamp for item in out.packets] == [36000, 39000]


@run
async def test_a_key_frame_is_asked_for_until_it_comes_and_no_longer(stack):
    up, out = Wire(), Wire()
    track = make_track(up)
    stack.callback(track.end)
    subscription = subscribe(track, out)
    for _ in range(10):
        track.request_key_frame()
    assert up.count(other.RTCP_PSFB_PLI) == 1
    # If it never comes, what there is has to do.
    await until(lambda: not subscription.gated)
    before = up.count(other.RTCP_PSFB_PLI)
    assert before == 4
    track.on_packet(packet(10), 1.0)
    assert len(out.raw) == 1
    track.request_key_frame()
    track.on_packet(packet(11, KEY), 1.0)
    await asyncio.sleep(TIMINGS.pli_throttle * 3)
    assert up.count(other.RTCP_PSFB_PLI) == before + 1


@run
async def test_sequence_numbers_wrap_on_both_sides(stack):
    out = Wire()
    track = make_track(Wire())
    stack.callback(track.end)
    subscribe(track, out)
    for number in range(65530, 65530 + 70000):
        track.on_packet(packet(number, KEY), number / 1000)
    seqs = out.seqs
    first = seqs[0]
    assert 1000 <= first < 20000
    assert seqs == [(first + count) & 0xFFFF for count in range(70000)]


@run
async def test_late_packets_keep_their_place_and_older_ones_are_left_out(stack):
    out = Wire()
    track = make_track(Wire())
    stack.callback(track.end)
    subscribe(track, out)
    for number in (10, 13, 12, 11, 9, 8, 14):
        track.on_packet(packet(number, KEY), 1.0)
    first = out.seqs[0]
    assert [seq - first for seq in out.seqs] == [0, 3, 2, 1, 4]


@run
async def test_padding_goes_through(stack):
    out = Wire()
    track = make_track(Wire())
    stack.callback(track.end)
    subscribe(track, out)
    track.on_packet(packet(10, KEY), 1.0)
    track.on_packet(packet(11, bytes((0, 0, 0, 4)), flags=0xA0), 1.0)
    padding = out.packets[1]
    assert (padding.padding_size, padding.payload) == (4, b"")
    assert padding.sequence_number == out.seqs[0] + 1


@run
async def test_a_subscription_does_not_begin_with_padding(stack):
    out = Wire()
    track = make_track(Wire(), "audio", Codec(96, "opus", 48000, 2))
    stack.callback(track.end)
    subscribe(track, out)
    track.on_packet(packet(10, bytes((0, 0, 0, 4)), flags=0xA0), 1.0)
    track.on_packet(packet(11, b""), 1.0)
    assert not out.raw
    track.on_packet(packet(12, b"x\0\0\3", flags=0xA0), 1.0)
    assert [item.payload for item in out.packets] == [b"x"]


@run
async def test_unknown_payload_types_are_dropped(stack):
    out = Wire()
    track = make_track(Wire())
    stack.callback(track.end)
    subscribe(track, out)
    stray = packet(10, KEY)
    stray.payload_type = 97
    track.on_packet(stray, 1.0)
    assert not out.raw


@run
async def test_nacks_are_answered_from_the_cache(stack):
    up, one, two = Wire(), Wire(), Wire()
    track = make_track(up)
    stack.callback(track.end)
    first = subscribe(track, one, 1000)
    for number in range(10, 2000):
        track.on_packet(packet(number, KEY + number.to_bytes(2, "big")), 1.0)
    second = subscribe(track, two, 1001, 100)
    track.on_packet(packet(2000, KEY), 1.0)
    start = one.seqs[0]
    for wire, subscription in ((one, first), (two, second)):
        wire.raw.clear()
        # Number 1995 of the publisher; one that is long gone; one still to come.
        subscription.resend([start + 1985, start + 5, start + 5000])
    assert one.seqs == [start + 1985]
    assert one.packets[0].payload[1:] == KEY[1:] + (1995).to_bytes(2, "big")
    assert not two.raw  # It was not there yet.


@run
async def test_a_nack_for_a_track_that_has_ended_gets_nothing(stack):
    out = Wire()
    track = make_track(Wire())
    subscription = subscribe(track, out)
    track.on_packet(packet(10, KEY), 1.0)
    (start,) = out.seqs
    track.end()
    subscription.resend([start])
    assert out.seqs == [start]


@run
async def test_a_nack_cannot_amplify(stack):
    out = Wire()
    track = make_track(Wire())
    stack.callback(track.end)
    subscription = subscribe(track, out)
    for number in range(1000):
        track.on_packet(packet(number, KEY), 1.0)
    start = out.seqs[0]
    out.raw.clear()
    subscription.resend(range(start, start + 1000))
    assert len(out.raw) == 256


@run
async def test_missing_packets_are_asked_for_until_they_come_or_it_is_too_late(stack):
    up = Wire()
    track = make_track(up)
    stack.callback(track.end)
    loop = asyncio.get_running_loop()
    for number in (10, 13):
        track.on_packet(packet(number, KEY), loop.time())

    def lost() -> list[list[int]]:
        return [item.lost for item in up.feedback if isinstance(item, other.RtcpRtpfbPacket)]

    assert lost() == [[11, 12]]
    track.on_packet(packet(11, KEY), loop.time())
    await until(lambda: len(lost()) >= 3)
    assert lost()[1:3] == [[12], [12]]
    await asyncio.sleep(TIMINGS.renack_give_up + 2 * TIMINGS.renack)
    count = len(lost())
    await asyncio.sleep(3 * TIMINGS.renack)
    assert len(lost()) == count


@run
async def test_two_subscriptions_of_one_track(stack):
    one, two = Wire(), Wire()
    track = make_track(Wire())
    stack.callback(track.end)
    first, second = subscribe(track, one, 1000), subscribe(track, two, 1001, 100)
    track.on_packet(packet(10, KEY), 1.0)
    assert (one.packets[0].ssrc, one.packets[0].payload_type) == (1000, 120)
    assert (two.packets[0].ssrc, two.packets[0].payload_type) == (1001, 100)
    track.detach(first)
    track.on_packet(packet(11, KEY), 1.0)
    assert (len(one.raw), len(two.raw)) == (1, 2)
    track.attach(first)
    track.attach(first)
    first.start_anew()
    track.on_packet(packet(500, KEY), 1.0)
    # It goes on where it was, so the receiver sees no gap.
    assert one.seqs[1] == one.seqs[0] + 1
    assert len(one.raw) == 2
    assert second.ssrc == 1001


@run
async def test_another_source_continues_the_numbers(stack):
    out = Wire()
    track = make_track(Wire())
    stack.callback(track.end)
    subscribe(track, out)
    track.on_packet(packet(10, KEY), 1.0)
    track.accept(78, 96)
    track.on_packet(packet(40000, DELTA), 1.0)
    track.on_packet(packet(40001, KEY), 1.0)
    assert out.seqs == [out.seqs[0], out.seqs[0] + 1]


@run
async def test_sender_reports_and_the_end_reach_subscribers(stack):
    out = Wire()
    track = make_track(Wire())
    stack.callback(track.end)
    subscribe(track, out)
    info = other.RtcpSenderInfo(1 << 40, 90000, 10, 1000)
    (message,) = rtcp.parse_compound(bytes(other.RtcpSrPacket(77, info, [])))
    track.on_sender_report(message, 1 << 40)
    report, names = out.feedback
    assert (report.ssrc, report.sender_info) == (1000, info)
    assert names.chunks[0].items == [(1, b"publisher")]
    track.end()
    assert out.feedback[-1].sources == [1000]
    track.on_packet(packet(10, KEY), 1.0)
    assert not out.raw


@run
async def test_later_answers_change_no_number(stack):
    out = Wire()
    track = make_track(Wire())
    stack.callback(track.end)
    subscription = subscribe(track, out)
    subscription.configure([Codec(99, "VP8", 90000)], [])
    track.on_packet(packet(10, KEY), 1.0)
    assert out.packets[0].payload_type == 120


@run
async def test_audio_flows_at_once_and_asks_for_no_key_frame(stack):
    up, out = Wire(), Wire()
    track = make_track(up, "audio", Codec(96, "opus", 48000, 2))
    stack.callback(track.end)
    subscribe(track, out)
    track.request_key_frame()
    track.on_packet(packet(10, b"x"), 1.0)
    assert len(out.raw) == 1
    assert not up.feedback
