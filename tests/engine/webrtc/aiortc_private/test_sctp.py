"""Messages of data channels on their way."""

from __future__ import annotations

import asyncio

from metered_sync.engine.webrtc.aiortc_private.sctp import loop_of, max_message_size, unacknowledged
from metered_sync.engine.webrtc.peer_connection import close_quietly, peer_connection
from tests.support.connections import run, until
from tests.support.peer_connections import negotiate


def test_messages_on_their_way_are_counted() -> None:
    async def test() -> None:
        near, far = peer_connection(()), peer_connection(())
        channel = near.createDataChannel("chat")
        assert loop_of(channel) is asyncio.get_running_loop()
        assert max_message_size(channel) >= 65536
        await negotiate(near, far)
        await until(lambda: channel.readyState == "open", what="channel")
        assert unacknowledged(channel) == 0
        for _ in range(50):
            channel.send(b"x" * 10_000)
        await until(lambda: unacknowledged(channel) > 0, what="messages on their way")
        await until(lambda: unacknowledged(channel) == 0, what="messages to arrive")
        await close_quietly(near, 20)
        await close_quietly(far, 20)

    run(test())
