"""Make peer connections; close them, whoever else closes them and gives up on it."""

from __future__ import annotations

import asyncio
import socket

from metered_sync.engine.webrtc import ice
from metered_sync.engine.webrtc.aiortc_private.negotiation import discard, retire
from metered_sync.engine.webrtc.aiortc_private.paths import RECEIVE_BUFFER, nominated_pair
from metered_sync.engine.webrtc.peer_connection import close_quietly, peer_connection
from tests.support.connections import until
from tests.support.local_tracks import run
from tests.support.peer_connections import negotiate


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


def test_closing_that_takes_long_goes_on() -> None:
    async def test() -> None:
        pc = peer_connection(())
        transceivers = [pc.addTransceiver(kind) for kind in ("audio", "video")]
        await pc.setLocalDescription(await pc.createOffer())
        held = asyncio.Event()
        stop = transceivers[0].stop

        async def slow() -> None:
            await held.wait()
            await stop()

        transceivers[0].stop = slow  # type: ignore[method-assign]
        await close_quietly(pc, 0.01)
        assert not transceivers[1].stopped
        held.set()
        await until(lambda: pc.connectionState == "closed", what="the rest is closed as well")
        assert transceivers[1].stopped
        await close_quietly(pc, 20)  # once more: nothing is left to do

    run(test())


def test_a_transport_whose_sections_are_all_discarded_is_closed() -> None:
    """Else its socket stays open, with the task that watches the path."""

    async def test() -> None:
        ends = peer_connection(()), peer_connection(())
        transceiver = ends[0].addTransceiver("audio")
        await negotiate(*ends)
        await until(lambda: ends[0].connectionState == "connected")
        (transport,) = ice.transports(ends[0])
        retire(transceiver)
        discard(ends[0], transceiver)
        await transceiver.stop()
        for pc in ends:
            await close_quietly(pc, 20)
        assert transport.state == "closed"

    run(test())


def test_a_burst_of_packets_finds_room() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as plain:
        before = plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        room = plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)  # as the system permits

    async def test() -> None:
        ends = peer_connection(()), peer_connection(())
        ends[0].createDataChannel("chat")
        await negotiate(*ends)
        for pc in ends:
            await until(lambda pc=pc: pc.connectionState == "connected")
            (transport,) = ice.transports(pc)
            end = nominated_pair(transport).protocol.transport.get_extra_info("socket")
            assert end.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == room
        for pc in ends:
            await close_quietly(pc, 20)

    assert room >= before
    run(test())
