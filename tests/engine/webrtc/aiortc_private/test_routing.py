"""Packets of ever more streams, and those whose receiver has stopped, beside another one."""

from __future__ import annotations

import asyncio
from typing import Any

from aiortc import RTCRtpReceiver, RTCRtpSender
from aiortc.mediastreams import MediaStreamTrack
from aiortc.rtp import RtpPacket

from metered_sync.bridge.reader import Reader
from metered_sync.engine.webrtc.aiortc_private.negotiation import bundle_all
from metered_sync.engine.webrtc.aiortc_private.routing import (
    MAX_ROUTED,
    MAX_STREAMS,
    MAX_STREAMS_OVER,
    STREAM_TABLES,
    readmit_streams,
    stop_receiver,
)
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.engine.webrtc.peer_connection import close_quietly, peer_connection
from tests.support.connections import run, until
from tests.support.peer_connections import TwoEnds, negotiate


class TwoTracks(TwoEnds):
    """Two peer connections, with two tracks of pictures from one to the other."""

    def __init__(self) -> None:
        super().__init__()
        self.received: list[IncomingTrack] = []
        self.readers: list[Reader[Any]] = []
        self.far.on("track", self._on_track)

    def _on_track(self, track: MediaStreamTrack) -> None:
        received = IncomingTrack("video", id="t")
        self.readers.append(Reader("reader"))
        received.add(self.readers[-1])
        received.take_over(self.receivers[len(self.received)], ())
        self.received.append(received)
        self.tasks.append(asyncio.ensure_future(received.run(track)))

    @property
    def senders(self) -> list[RTCRtpSender]:
        return [transceiver.sender for transceiver in self.near.getTransceivers()]

    @property
    def receivers(self) -> list[RTCRtpReceiver]:
        return [transceiver.receiver for transceiver in self.far.getTransceivers()]

    def streams(self, index: int) -> set[int]:
        """Return the SSRCs of all packets that a receiver has taken."""
        return {one.source for one in self.receivers[index].getSynchronizationSources()}

    async def connect(self) -> None:
        for _ in range(2):
            outlet = self.local.outlet(own_id=True)
            outlet.attach(self.near.addTransceiver(outlet, direction="sendonly").sender)
        bundle_all(self.near)
        bundle_all(self.far)
        await negotiate(self.near, self.far)
        for index in range(2):
            await self.sees(index)

    async def sees(self, index: int, more: int = 5) -> None:
        frames = self.received[index].decoded
        await until(lambda: self.received[index].decoded >= frames + more, what="pictures")


def test_what_comes_late_for_a_receiver_that_has_stopped_is_for_nobody() -> None:
    async def test() -> None:
        ends = TwoTracks()
        await ends.connect()
        await stop_receiver(ends.receivers[0])  # while the other side sends on
        await ends.sees(1)
        over, kept = ends.senders
        await over.stop()  # with its BYE
        await ends.sees(1)
        assert not ends.tasks[1].done()
        assert ends.streams(1) == {kept._ssrc}
        await ends.close()

    run(test())


def test_a_stream_that_is_not_named_may_begin_again() -> None:
    async def test() -> None:
        ends = TwoTracks()
        await ends.connect()
        await stop_receiver(ends.receivers[0])
        readmit_streams(ends.receivers[1].transport)
        over, _ = ends.senders
        await until(lambda: over._ssrc in ends.streams(1), what="it goes to the only receiver")
        await ends.close()

    run(test())


def test_the_streams_that_are_over_are_bounded() -> None:
    async def test() -> None:
        pc = peer_connection(())
        receiver = pc.addTransceiver("video").receiver
        streams: dict[int, Any] = receiver.transport._rtp_router.ssrc_table
        for first in range(0, 3000, 100):
            streams |= dict.fromkeys(range(first, first + 100), receiver)
            await stop_receiver(receiver)
        assert list(streams) == list(range(3000 - MAX_STREAMS_OVER, 3000))
        await close_quietly(pc, 20)

    run(test())


def test_a_member_that_begins_a_stream_with_each_packet_fills_nothing() -> None:
    async def test() -> None:
        ends = TwoTracks()
        await ends.connect()
        await stop_receiver(ends.receivers[0])
        receiver: Any = ends.receivers[1]
        transport, routed = ends.senders[1].transport, receiver.transport._rtp_router.ssrc_table
        payload_type = next(iter(receiver._RTCRtpReceiver__codecs))
        for ssrc in range(MAX_ROUTED + 1000):
            packet = RtpPacket(payload_type, sequence_number=ssrc % 65536, ssrc=ssrc, payload=b"x")
            await transport._send_rtp(packet.serialize())
            if ssrc % 50 == 0:
                await asyncio.sleep(0)  # (there is a socket in between)
        newest = MAX_ROUTED + 500
        await until(lambda: any(ssrc > newest for ssrc in routed), what="the packets come")
        assert len(routed) <= MAX_ROUTED
        assert all(len(getattr(receiver, name)) <= MAX_STREAMS for name in STREAM_TABLES)
        assert len(receiver._RTCRtpReceiver__remote_bitrate_estimator.ssrcs) <= MAX_STREAMS
        await ends.sees(1)
        assert not receiver._RTCRtpReceiver__rtcp_task.done()
        await ends.close()

    run(test())
