"""Relays, and probes of the path in use."""

from __future__ import annotations

import asyncio

import pytest

from metered_sync.engine.webrtc import ice
from metered_sync.engine.webrtc.aiortc_private.paths import (
    can_probe,
    can_relay_only,
    nominated_pair,
    packets_received,
    probe,
    use_relays_only,
)
from metered_sync.engine.webrtc.peer_connection import close_quietly, peer_connection
from tests.support.connections import run, until
from tests.support.peer_connections import negotiate


def test_relays_need_a_server() -> None:
    async def test() -> None:
        pc = peer_connection(())
        pc.createDataChannel("chat")
        (transport,) = ice.transports(pc)
        assert can_relay_only()
        assert not use_relays_only(transport)
        assert nominated_pair(transport) is None
        await close_quietly(pc, 20)

    run(test())


def test_a_path_is_probed_and_its_packets_are_counted() -> None:
    async def test() -> None:
        near, far = peer_connection(()), peer_connection(())
        channel = near.createDataChannel("chat")
        await negotiate(near, far)
        await until(lambda: channel.readyState == "open", what="channel")
        assert can_probe()
        assert near.sctp is not None
        dtls = near.sctp.transport
        came = packets_received(dtls)
        assert came > 0
        await asyncio.wait_for(probe(dtls.transport), 20)
        channel.send("x")  # it is acknowledged
        await until(lambda: packets_received(dtls) > came, what="a packet")
        for transport in ice.transports(far):
            await transport.stop()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(probe(dtls.transport), 0.2)
        await close_quietly(near, 20)
        await close_quietly(far, 20)

    run(test())
