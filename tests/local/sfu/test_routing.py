"""Test which track a packet belongs to, and whom feedback reaches."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable

from aiortc import rtp as other

from metered_sync.local.sfu import rtcp
from metered_sync.local.sfu.codecs import MID
from metered_sync.local.sfu.forward import PublishedTrack, TrackSubscription
from metered_sync.local.sfu.routing import Router
from metered_sync.local.sfu.rtp import RTP_HEADER, element, extension_block
from metered_sync.wire.sdp import Codec, Extension
from metered_sync.wire.timings import DEFAULT_TIMINGS

TIMINGS = dataclasses.replace(DEFAULT_TIMINGS, source_silence=0.05, pli_throttle=10.0)
VP8 = Codec(96, "VP8", 90000, feedback=("nack",))
OPUS = Codec(111, "opus", 48000, 2)


class Path:
    """What is sent to one client."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.feedback: list[object] = []

    def send_rtp(self, packet: bytes) -> None:
        self.packets.append(packet)

    def send_rtcp(self, packet: bytes) -> None:
        self.feedback += other.RtcpPacket.parse(packet)

    def count(self, fmt: int) -> int:
        return sum(getattr(item, "fmt", None) == fmt for item in self.feedback)


class House:
    """A router with tracks, and what it has told."""

    def __init__(self) -> None:
        self.path = Path()
        self.first: list[PublishedTrack] = []
        self.router = Router(TIMINGS, self.first.append)
        self.tracks: dict[str, PublishedTrack] = {}

    def track(self, mid: str, kind: str = "video", codec: Codec = VP8) -> PublishedTrack:
        track = PublishedTrack(
            session_id="s",
            track_id=mid,
            kind=kind,
            mid=mid,
            path=self.path,
            rtcp_ssrc=self.router.ssrc,
            timings=TIMINGS,
        )
        track.configure([codec], [Extension(4, MID)])
        self.tracks[mid] = track
        return track

    def configure(
        self, hints: dict[int, str] | None = None, *subscriptions: TrackSubscription
    ) -> None:
        self.router.configure(self.tracks.values(), hints or {}, subscriptions)

    def heard(self) -> dict[str, int]:
        """Return the SSRC of each track that has one."""
        found = {mid: track.reception for mid, track in self.tracks.items()}
        return {mid: reception.ssrc for mid, reception in found.items() if reception is not None}


def packet(ssrc: int, *, number: int = 96, mid: str = "", seq: int = 1) -> bytes:
    block = extension_block([element(4, mid.encode())]) if mid else b""
    flags = 0x90 if block else 0x80
    return RTP_HEADER.pack(flags, number, seq, seq * 3000, ssrc) + block + b"\x10\x01data"


def tell(story: Callable[[House], Awaitable[None]]) -> None:
    async def run() -> None:
        house = House()
        await story(house)
        for track in house.tracks.values():
            track.end()

    asyncio.run(run())


def test_an_ssrc_of_the_description_leads_to_its_section() -> None:
    async def story(house: House) -> None:
        house.track("0"), house.track("1")
        house.configure({7: "1"})
        house.router.on_rtp(packet(7))
        assert house.heard() == {"1": 7}
        assert house.first == [house.tracks["1"]]
        assert house.router.knows_ssrc(7)
        assert not house.router.knows_ssrc(8)

    tell(story)


def test_the_mid_extension_leads_to_its_section() -> None:
    async def story(house: House) -> None:
        house.track("0"), house.track("1")
        house.configure()
        house.router.on_rtp(packet(7, mid="1"))
        house.router.on_rtp(packet(7, seq=2))  # known from now on
        house.router.on_rtp(packet(8, mid="9"))  # no such section
        assert house.heard() == {"1": 7}
        assert len(house.first) == 1

    tell(story)


def test_a_payload_type_leads_to_a_section_that_alone_uses_it() -> None:
    async def story(house: House) -> None:
        house.track("0"), house.track("1"), house.track("2", "audio", OPUS)
        house.configure()
        house.router.on_rtp(packet(7))  # two sections use it
        house.router.on_rtp(packet(8, number=111))
        house.router.on_rtp(packet(9, number=50))
        assert house.heard() == {"2": 8}

    tell(story)


def test_a_hint_does_not_make_a_foreign_payload_type_fit() -> None:
    async def story(house: House) -> None:
        house.track("0")
        house.configure({7: "0"})
        house.router.on_rtp(packet(7, number=97))
        assert house.heard() == {}

    tell(story)


def test_another_source_takes_over_once_the_first_is_silent() -> None:
    async def story(house: House) -> None:
        house.track("0")
        house.configure()
        house.router.on_rtp(packet(7))
        house.router.on_rtp(packet(8))
        assert house.heard() == {"0": 7}
        await asyncio.sleep(TIMINGS.source_silence * 2)
        house.router.on_rtp(packet(8))
        assert house.heard() == {"0": 8}
        house.router.on_rtp(packet(7))  # one that comes back is no better than another
        assert house.heard() == {"0": 8}

    tell(story)


def test_unknown_sources_cost_bounded_memory() -> None:
    async def story(house: House) -> None:
        house.configure()
        for ssrc in range(1000):
            house.router.on_rtp(packet(ssrc))
        house.router.on_rtp(b"\x80")
        assert len(house.router._ignored) <= 64

    tell(story)


def test_a_track_that_is_gone_is_not_fed() -> None:
    async def story(house: House) -> None:
        gone = house.track("0")
        house.configure()
        house.router.on_rtp(packet(7))
        del house.tracks["0"]
        house.configure()
        house.router.on_rtp(packet(7, seq=2))
        assert gone.reception is not None
        assert gone.reception.report(0) is not None
        assert not house.router.knows_ssrc(7)
        gone.end()

    tell(story)


def test_feedback_of_a_subscriber_reaches_the_publisher() -> None:
    async def story(house: House) -> None:
        publisher = House()
        theirs = publisher.track("0")
        publisher.configure()
        publisher.router.on_rtp(packet(7))
        subscription = TrackSubscription(theirs, mid="s0", ssrc=9, track_id="u", path=house.path)
        subscription.configure([VP8], [])
        house.configure({}, subscription)
        house.router.on_rtcp(rtcp.pli(1, 8))  # of nobody
        assert publisher.path.count(other.RTCP_PSFB_PLI) == 0
        house.router.on_rtcp(rtcp.pli(1, 9))
        assert publisher.path.count(other.RTCP_PSFB_PLI) == 1
        theirs.attach(subscription)
        subscription.gated = False
        publisher.router.on_rtp(packet(7, seq=2))
        (sent,) = house.path.packets
        seq = int.from_bytes(sent[2:4], "big")
        house.router.on_rtcp(rtcp.nack(1, 9, [seq]))
        assert house.path.packets == [sent, sent]
        theirs.end()

    tell(story)


def test_a_full_intra_request_names_its_target_in_the_details() -> None:
    async def story(house: House) -> None:
        publisher = House()
        theirs = publisher.track("0")
        publisher.configure()
        publisher.router.on_rtp(packet(7))
        subscription = TrackSubscription(theirs, mid="s0", ssrc=9, track_id="u", path=house.path)
        house.configure({}, subscription)
        details = (9).to_bytes(4, "big") + bytes((1, 0, 0, 0))
        house.router.on_rtcp(bytes(other.RtcpPsfbPacket(other.RTCP_PSFB_FIR, 1, 0, details)))
        assert publisher.path.count(other.RTCP_PSFB_PLI) == 1
        theirs.end()

    tell(story)


def test_reports_and_a_bitrate_for_video() -> None:
    async def story(house: House) -> None:
        house.track("0"), house.track("1", "audio", OPUS)
        house.configure()
        house.router.report(house.path)
        assert house.path.feedback == []
        house.router.on_rtp(packet(7))
        house.router.on_rtp(packet(8, number=111))
        house.router.report(house.path)
        reports = [item for item in house.path.feedback if isinstance(item, other.RtcpRrPacket)]
        assert {report.ssrc for item in reports for report in item.reports} == {7, 8}
        remb = next(item for item in house.path.feedback if getattr(item, "fmt", 0) == 15)
        bitrate, ssrcs = other.unpack_remb_fci(remb.fci)
        assert (ssrcs, bitrate > 4_000_000) == ([7], True)

    tell(story)
