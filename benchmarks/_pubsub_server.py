"""The server that both clients are measured against: acknowledges, and floods on request.

As lean as Python allows (no JSON is parsed for a publish), lest the clients wait for it.
Usage: ``python _pubsub_server.py [certificate.pem]``; prints its port, runs until its stdin ends.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

WELCOME = {
    "type": "welcome",
    "peerId": "bench",
    "expiresAt": None,
    "serverTime": 1_900_000_000,
    "maxMessageSize": 65536,
}
PIECE = 100


def message(channel: str) -> str:
    """Return a message of about 300 bytes."""
    data = {"sensor": 17, "celsius": [20.5, 21.25, 22.125], "note": "x" * 150}
    frame = {"type": "message", "channel": channel, "from": "somebody", "data": data}
    return json.dumps(frame, separators=(",", ":"))


class Connection(asyncio.Protocol):
    """One client's connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.protocol = ServerProtocol()
        self.room = asyncio.Event()
        self.room.set()
        self.tasks: set[asyncio.Task[None]] = set()

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()

    def data_received(self, data: bytes) -> None:
        self.protocol.receive_data(data)
        for event in self.protocol.events_received():
            if isinstance(event, Request):
                self.protocol.send_response(self.protocol.accept(event))
                self.send(json.dumps(WELCOME))
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                self.answer(bytes(event.data).decode())
        self.transport.write(b"".join(self.protocol.data_to_send()))

    def answer(self, text: str) -> None:
        # (The clients order a frame's keys differently.)
        request_id = text.partition('"requestId":')[2].split('"', 2)[1]
        self.send(f'{{"type":"ack","requestId":"{request_id}"}}')
        if '"subscribe"' in text:
            self.send('{"type":"presence","channel":"flood","joined":[],"left":[]}')
        elif '"publish"' in text and '"flood"' in text:
            task = asyncio.create_task(self.flood(json.loads(text)["data"]))
            self.tasks.add(task)

    def send(self, text: str) -> None:
        self.protocol.send_text(text.encode())

    async def flood(self, count: int) -> None:
        for _ in range(PIECE):
            self.send(message("flood"))
        piece = b"".join(self.protocol.data_to_send())
        for _ in range(count // PIECE):
            await self.room.wait()
            self.transport.write(piece)


async def main() -> None:
    """Serve until stdin ends."""
    context = None
    if len(sys.argv) > 1:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(sys.argv[1])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
