"""Codecs of senders, and tracks that are queued elsewhere."""

from __future__ import annotations

import aiortc.rtcrtpreceiver
from aiortc.contrib.media import MediaRelay

from metered_sync.engine.webrtc.aiortc_private.sending import (
    fills_a_queue,
    first_codec,
    put_codec_first,
)
from metered_sync.engine.webrtc.peer_connection import close_quietly, peer_connection
from metered_sync.testing import PatternSource
from tests.support.connections import run


def test_a_codec_is_put_first() -> None:
    async def test() -> None:
        near, far = peer_connection(()), peer_connection(())
        near.addTransceiver("video")
        await near.setLocalDescription(await near.createOffer())
        await far.setRemoteDescription(near.localDescription)
        (transceiver,) = far.getTransceivers()
        assert first_codec(transceiver) == "vp8"
        for codec in (None, "h264", "unknown"):
            put_codec_first(transceiver, codec)
        assert first_codec(transceiver) == "h264"
        await close_quietly(near, 20)
        await close_quietly(far, 20)

    run(test())


def test_tracks_that_queue_by_themselves() -> None:
    async def test() -> None:
        with PatternSource(160, 120, 15) as source:
            assert source.video is not None
            relay = MediaRelay().subscribe(source.video)
            assert fills_a_queue(relay)
            assert not fills_a_queue(source.video)
            relay.stop()
        remote = aiortc.rtcrtpreceiver.RemoteStreamTrack("audio")
        assert fills_a_queue(remote)

    run(test())
