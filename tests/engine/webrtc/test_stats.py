"""Count packets and bytes of packets that are made by hand."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiortc import RTCRtpReceiver
from aiortc.rtp import RtpPacket

from metered_sync.engine.webrtc.aiortc_private import capabilities
from metered_sync.engine.webrtc.stats import MAX_ARRIVALS, BitrateMeter, Received, Sent

MEDIA, RTX = 97, 98


def test_a_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("metered_sync.engine.webrtc.stats.monotonic", lambda: now)
    meter = BitrateMeter()
    assert meter.rate() == 0
    for _ in range(100):  # 1000 bytes each 10 ms
        now += 0.01
        meter.add(1000, now)
    assert meter.rate() == pytest.approx(800_000, rel=0.1)
    for _ in range(400):  # half of it
        now += 0.01
        meter.add(500, now)
    assert meter.rate() == pytest.approx(400_000, rel=0.1)
    now += 1.5
    assert 0 < meter.rate() < 400_000
    now += 5
    assert meter.rate() == 0
    assert meter.total == 300_000


class Ignoring(RTCRtpReceiver):
    """A receiver of aiortc's that throws its packets away."""

    async def _handle_rtp_packet(self, packet: Any, arrival_time_ms: int) -> None:
        pass


def receiver() -> Any:
    return Ignoring("video", SimpleNamespace(state="new"))  # type: ignore[arg-type]


def take(target: Any, *packets: tuple[int, int, int, int]) -> None:
    """Give a receiver packets: payload type, sequence number, timestamp, size."""

    async def all_of_them() -> None:
        for kind, number, timestamp, size in packets:
            packet = RtpPacket(kind, 0, number, timestamp, 1, b"x" * size)
            await target._handle_rtp_packet(packet, 0)

    asyncio.run(all_of_them())


def test_packets_bytes_and_losses_are_counted() -> None:
    received, source = Received(), receiver()
    received.watch(source, {RTX})
    take(source, (MEDIA, 65534, 1, 10), (MEDIA, 65535, 1, 10), (MEDIA, 1, 2, 10))
    assert received.lost == 1  # number 0
    take(source, (MEDIA, 0, 2, 10), (MEDIA, 3, 3, 5))
    assert received.lost == 1  # number 2; that of 0 was only late
    counts = received.stats()
    assert (counts["packets_received"], counts["bytes_received"]) == (5, 45)
    assert counts["packets_missed"] == 2  # both: neither was there when a later one came


def test_retransmissions_count_as_bytes_and_not_as_media() -> None:
    received, source = Received(), receiver()
    received.watch(source, {RTX})
    take(source, (MEDIA, 1, 1, 10), (RTX, 900, 1, 12), (MEDIA, 2, 2, 10))
    assert (received.packets, received.lost, received.meter.total) == (3, 0, 32)


def test_a_packet_that_comes_twice_hides_no_loss_for_ever() -> None:
    received, source = Received(), receiver()
    received.watch(source, ())
    take(source, (MEDIA, 1, 1, 1), (MEDIA, 1, 1, 1), (MEDIA, 2, 1, 1))
    assert received.lost == 0  # never less


def test_counts_go_on_over_connections() -> None:
    received, first, second = Received(), receiver(), receiver()
    received.watch(first, ())
    take(first, (MEDIA, 10, 1, 10), (MEDIA, 12, 2, 10))
    assert received.lost == 1
    received.watch(second, ())
    take(second, (MEDIA, 5000, 9, 10), (MEDIA, 5003, 9, 10))
    assert (received.packets, received.lost) == (4, 3)


def test_the_arrival_of_a_frame_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("metered_sync.engine.webrtc.stats.monotonic", lambda: now)
    received, source = Received(), receiver()
    received.watch(source, ())
    take(source, (MEDIA, 1, 2**32 - 10, 1))
    now = 101.0
    take(source, (MEDIA, 2, 2**32 - 10, 1), (MEDIA, 3, 90, 1))
    assert received.arrived(0) is None  # nothing was decoded yet
    source._RTCRtpReceiver__timestamp_mapper.map(2**32 - 10)
    assert (received.arrived(0), received.arrived(100)) == (100.0, 101.0)
    assert received.arrived(7) is None


def test_packets_count_for_the_track_that_a_receiver_has_now() -> None:
    before, now, source = Received(), Received(), receiver()
    before.watch(source, ())
    take(source, (MEDIA, 1, 1, 1))
    now.watch(source, ())
    take(source, (MEDIA, 2, 1, 1), (MEDIA, 3, 1, 1))
    assert (before.packets, now.packets) == (1, 2)


def test_arrivals_are_bounded() -> None:
    received, source = Received(), receiver()
    received.watch(source, ())
    take(source, *((MEDIA, n & 0xFFFF, n, 1) for n in range(3 * MAX_ARRIVALS)))
    assert len(received._arrivals) == MAX_ARRIVALS


class Sender:
    """A sender's statistics, as aiortc gives them."""

    def __init__(self, sent: int, packets: int, lost: int | None = None) -> None:
        entries = [SimpleNamespace(type="outbound-rtp", bytesSent=sent, packetsSent=packets)]
        if lost is not None:
            entries.append(
                SimpleNamespace(type="remote-inbound-rtp", packetsLost=lost, roundTripTime=-0.5)
            )
        self._entries = dict(enumerate(entries))

    async def getStats(self) -> Any:  # noqa: N802
        return self._entries


def test_what_was_sent_adds_up_over_senders() -> None:
    async def test() -> None:
        sent = Sent()
        assert (await sent.stats(None))["bytes_sent"] == 0
        one: Any = Sender(1000, 10, 2)
        counts = await sent.sample(one)
        assert (counts["bytes_sent"], counts["packets_sent"], counts["packets_lost"]) == (
            1000,
            10,
            2,
        )
        assert counts["round_trip_time"] == 0.0  # never negative
        await sent.keep(one, 30)
        two: Any = Sender(500, 5)
        counts = await sent.stats(two, 7)
        assert (counts["bytes_sent"], counts["packets_sent"], counts["packets_lost"]) == (
            1500,
            15,
            2,
        )
        assert (counts["round_trip_time"], counts["frames_sent"]) == (None, 37)

    asyncio.run(test())


def test_without_access_to_packets_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "capabilities", frozenset)
    received, source = Received(), receiver()
    received.watch(source, ())
    take(source, (MEDIA, 1, 1, 1))
    assert received.stats()["packets_received"] == 0
    assert received.arrived(0) is None
