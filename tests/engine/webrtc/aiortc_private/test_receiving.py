"""Receivers that are stopped before they have begun."""

from __future__ import annotations

import asyncio
import threading

from aiortc.mediastreams import MediaStreamTrack

from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.engine.webrtc.peer_connection import close_quietly, peer_connection
from tests.support.connections import run, until


def decoders() -> int:
    return sum(thread.name.endswith("-decoder") for thread in threading.enumerate())


def test_a_track_ends_whose_receiver_never_began() -> None:
    async def test() -> None:
        near, far = peer_connection(()), peer_connection(())
        tracks: list[MediaStreamTrack] = []
        far.on("track", tracks.append)
        near.addTransceiver("video", direction="sendonly")
        await near.setLocalDescription(await near.createOffer())
        await far.setRemoteDescription(near.localDescription)
        received = IncomingTrack("video", id="t")
        received.take_over(far.getTransceivers()[0].receiver, ())
        run_to_its_end = asyncio.ensure_future(received.run(tracks[0]))
        before = decoders()
        await close_quietly(far, 20)  # nothing was answered: it has not begun
        await until(run_to_its_end.done, what="it ends")
        assert decoders() == before
        await close_quietly(near, 20)

    run(test())


def test_a_receiver_that_never_got_a_track_does_not_keep_its_connection_open() -> None:
    async def test() -> None:
        pc = peer_connection(())
        receiver = pc.addTransceiver("audio", direction="recvonly").receiver
        IncomingTrack("audio", id="t").take_over(receiver, ())
        await pc.setLocalDescription(await pc.createOffer())
        await close_quietly(pc, 20)
        assert (pc.connectionState, receiver.transport.transport.state) == ("closed", "closed")

    run(test())
