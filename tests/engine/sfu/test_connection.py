"""The peer connection of a session: what the SFU may do with its sections."""

from __future__ import annotations

from aiortc.mediastreams import AudioStreamTrack

from metered_sync.engine.sfu.connection import Progress, SfuConnection
from metered_sync.engine.sfu.options import SfuOptions
from metered_sync.engine.webrtc import ice
from metered_sync.engine.webrtc.peer_connection import close_quietly, peer_connection
from metered_sync.wire import sfu as wire
from tests.support.connections import until
from tests.support.local_tracks import run

OPTIONS = SfuOptions(
    url="http://127.0.0.1",
    metadata=None,
    ice_servers=(),
    gather_timeout=5.0,
    recover=False,
    max_pixels=1 << 20,
)


def test_an_only_section_that_is_given_away_leaves_the_transport() -> None:
    async def test() -> None:
        connection = SfuConnection("here", OPTIONS, Progress())
        far = peer_connection(())
        far.addTransceiver(AudioStreamTrack(), direction="sendonly")
        await far.setLocalDescription(await far.createOffer())
        offer = wire.SessionDescription("offer", far.localDescription.sdp)
        await connection.apply(offer, connection.read(offer))
        await connection.answer(connection.read(offer))
        await far.setRemoteDescription(connection.pc.localDescription)
        await until(lambda: connection.pc.connectionState == "connected")
        transports = ice.transports(connection.pc)
        text = offer.sdp.replace("a=mid:0", "a=mid:1").replace("BUNDLE 0", "BUNDLE 1")
        other = wire.SessionDescription("offer", text)
        await connection.apply(other, connection.read(other))
        assert "a=mid:1" in (await connection.answer(connection.read(other))).sdp
        assert ice.transports(connection.pc) == transports
        assert not connection.ended
        for pc in (connection.pc, far):
            await close_quietly(pc, 20)

    run(test())
