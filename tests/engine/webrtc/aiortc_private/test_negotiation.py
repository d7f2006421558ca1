"""Sections: placed, named, given to another, left out of an offer."""

from __future__ import annotations

from aiortc import RTCSessionDescription

from metered_sync.engine.webrtc.aiortc_private.negotiation import (
    discard,
    retire,
    section_index,
    set_mid,
    set_section_index,
    set_unoffered,
)
from metered_sync.engine.webrtc.aiortc_private.sending import name_stream
from metered_sync.engine.webrtc.peer_connection import close_quietly, peer_connection
from tests.support.connections import run
from tests.support.peer_connections import negotiate


def test_a_track_without_a_section_does_not_spoil_an_answer() -> None:
    async def test() -> None:
        near, far = peer_connection(()), peer_connection(())
        near.addTransceiver("audio")
        far.addTransceiver("video")
        await near.setLocalDescription(await near.createOffer())
        await far.setRemoteDescription(near.localDescription)
        set_unoffered(far)
        await far.setLocalDescription(await far.createAnswer())
        await near.setRemoteDescription(far.localDescription)
        await close_quietly(near, 20)
        await close_quietly(far, 20)

    run(test())


def test_streams_and_sections_are_named() -> None:
    async def test() -> None:
        pc = peer_connection(())
        one, two = pc.addTransceiver("audio"), pc.addTransceiver("audio")
        name_stream(one.sender, "desk")
        await pc.setLocalDescription(await pc.createOffer())
        assert "a=msid:desk " in pc.localDescription.sdp
        indices = [section_index(each, 99) for each in (one, two)]
        assert indices == [0, 1]
        set_mid(two, "other")
        set_section_index(two, 5)
        assert (two.mid, section_index(two, 99)) == ("other", 5)
        set_section_index(two, None)
        assert section_index(two, 99) == 99
        await close_quietly(pc, 20)

    run(test())


def test_a_transceiver_is_forgotten() -> None:
    async def test() -> None:
        near, far = peer_connection(()), peer_connection(())
        kept, over = near.addTransceiver("audio"), near.addTransceiver("video")
        await negotiate(near, far)
        offer = await far.createOffer()  # one in which another section takes its place
        text = offer.sdp.replace("a=mid:1\r", "a=mid:9\r").replace("BUNDLE 0 1", "BUNDLE 0 9")
        retire(over)
        discard(near, over)
        await near.setRemoteDescription(RTCSessionDescription(text, "offer"))
        await near.setLocalDescription(await near.createAnswer())
        assert near.getTransceivers()[0] is kept
        assert [one.mid for one in near.getTransceivers()] == ["0", "9"]
        assert near.localDescription.sdp.count("m=") == 2
        await near.setLocalDescription(await near.createOffer())  # without the old one
        for pc in (near, far):
            await close_quietly(pc, 20)

    run(test())
