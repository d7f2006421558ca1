"""Two peer connections that are each other's peer."""

from __future__ import annotations

import asyncio
from typing import Any

from aiortc import RTCPeerConnection
from aiortc.mediastreams import MediaStreamTrack

from metered_sync.bridge.reader import Reader
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.engine.webrtc import ice
from metered_sync.engine.webrtc.aiortc_private.negotiation import bundle_all
from metered_sync.engine.webrtc.aiortc_private.paths import bound_gathering
from metered_sync.engine.webrtc.encoding import pin_bitrate
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.engine.webrtc.peer_connection import close_quietly, peer_connection
from metered_sync.testing import PatternSource
from tests.support.connections import until


async def negotiate(near: RTCPeerConnection, far: RTCPeerConnection) -> None:
    await near.setLocalDescription(await near.createOffer())
    await far.setRemoteDescription(near.localDescription)
    await far.setLocalDescription(await far.createAnswer())
    await near.setRemoteDescription(far.localDescription)


class TwoEnds:
    """Two peer connections, and pictures that one of them may send to the other."""

    def __init__(self) -> None:
        self.near, self.far = peer_connection(()), peer_connection(())
        self.source = PatternSource(160, 120, 15)
        assert self.source.video is not None
        self.local = LocalTrack(self.source.video)
        self.tasks: list[asyncio.Task[None]] = []

    async def close(self) -> None:
        for pc in (self.near, self.far):
            await close_quietly(pc, 20)
        self.local.close()
        self.source.stop()
        await asyncio.gather(*self.tasks)


class Ends(TwoEnds):
    """Two peer connections, with a track of pictures from one to the other."""

    def __init__(self) -> None:
        super().__init__()
        self.outlet = self.local.outlet()
        self.transceiver = self.near.addTransceiver(self.outlet, direction="sendonly")
        self.outlet.attach(self.transceiver.sender)
        self.channel = self.near.createDataChannel("chat")
        self.received = IncomingTrack("video", id="t")
        self.reader: Reader[Any] = Reader("reader")
        self.received.add(self.reader)
        self.far.on("track", self._on_track)

    def _on_track(self, track: MediaStreamTrack) -> None:
        (transceiver,) = self.far.getTransceivers()
        self.received.take_over(transceiver.receiver, ())
        self.tasks.append(asyncio.ensure_future(self.received.run(track)))

    async def connect(self) -> None:
        for pc in (self.near, self.far):
            for transport in ice.transports(pc):
                bound_gathering(transport, 1.0)
            bundle_all(pc)
        await negotiate(self.near, self.far)
        pin_bitrate(self.transceiver, 400_000)
        await until(lambda: self.near.connectionState == "connected", what="connection")

    async def sees(self, more: int = 5) -> None:
        frames = self.received.decoded
        await until(lambda: self.received.decoded >= frames + more, what="pictures")
