"""Close peer connections, whoever else closes them and gives up on it."""

from __future__ import annotations

import asyncio

from metered_sync.engine.webrtc.peer_connection import close_quietly, peer_connection
from tests.support.local_tracks import run


def test_one_closer_that_gives_up_cancels_no_other() -> None:
    async def test() -> None:
        pc = peer_connection(())
        pc.addTransceiver("audio")
        await pc.setLocalDescription(await pc.createOffer())
        held = asyncio.Event()
        stop = pc.getTransceivers()[0].stop

        async def slow() -> None:
            await held.wait()
            await stop()

        pc.getTransceivers()[0].stop = slow  # type: ignore[method-assign]
        closers = [asyncio.ensure_future(close_quietly(pc, 20)) for _ in range(3)]
        await asyncio.sleep(0.01)
        await close_quietly(pc, 0.01)  # aiortc's closers wait for one future, which this cancels
        held.set()
        assert await asyncio.gather(*closers, return_exceptions=True) == [None] * 3

    run(test())
