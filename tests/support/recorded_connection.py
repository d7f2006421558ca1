"""Record what a connection of the local cloud writes, without a network."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

from aiohttp import web

from metered_sync.local.connections import SendScheduler, Socket
from metered_sync.local.keys import Identity
from metered_sync.wire.limits import ACTIONS
from metered_sync.wire.tokens import Grant


class RecordedTransport:
    """The part of an asyncio transport that a connection writes to."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.waiting = 0
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def get_extra_info(self, name: str) -> None:
        return None


class OpenWebSocket:
    """The part of aiohttp's WebSocket that a connection asks whether it is closed."""

    closed = False


class Connection(Socket):
    """A connection whose frames are kept."""

    def __init__(
        self,
        scheduler: SendScheduler,
        peer_id: str = "ann",
        actions: tuple[str, ...] = ACTIONS,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        identity = Identity(peer_id, Grant(actions=frozenset(actions)), peer_metadata=metadata)
        self.recorded = RecordedTransport()
        super().__init__(
            identity,
            cast("web.WebSocketResponse", OpenWebSocket()),
            cast("asyncio.Transport", self.recorded),
            scheduler,
        )

    def frames(self) -> list[dict[str, Any]]:
        """Return the JSON frames written so far, and forget them."""
        data, self.recorded.written = b"".join(self.recorded.written), []
        found = []
        while data:
            assert data[0] == 0x81  # a whole text message
            size, start = data[1], 2
            if size >= 126:
                width = 2 if size == 126 else 8
                size, start = int.from_bytes(data[2 : 2 + width], "big"), 2 + width
            found.append(json.loads(data[start : start + size]))
            data = data[start + size :]
        return found


async def turn() -> None:
    """Let the loop end its turn, at whose end frames are written."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)
