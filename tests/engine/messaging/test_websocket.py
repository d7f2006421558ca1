"""Compare the short way for text frames with the library's own parser."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN, SERVER, Protocol
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from metered_sync.engine.messaging.websocket import WebSocket
from metered_sync.wire.limits import MAX_INBOUND_FRAME


class Transport(asyncio.Transport):
    """Takes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closing = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closing

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.closing = True


def upgrading() -> tuple[ClientProtocol, bytes]:
    """Return a client that has asked for the upgrade, and the server's answer."""
    client = ClientProtocol(parse_uri("ws://localhost/"), max_size=MAX_INBOUND_FRAME)
    client.send_request(client.connect())
    server = ServerProtocol()
    server.receive_data(b"".join(client.data_to_send()))
    (request,) = server.events_received()
    assert isinstance(request, Request)
    server.send_response(server.accept(request))
    return client, b"".join(server.data_to_send())


def upgraded() -> tuple[WebSocket, Transport]:
    """Return a connection after the upgrade."""
    protocol, answer = upgrading()
    connection, transport = WebSocket(protocol, close_timeout=60), Transport()
    connection.connection_made(transport)
    connection.data_received(answer)
    assert protocol.state is OPEN
    return connection, transport


def through_us(pieces: list[bytes]) -> tuple[list[bytes | None], bytes, int | None]:
    """Return the messages, what was written in answer, and how it was closed."""

    async def run() -> tuple[list[bytes | None], bytes, int | None]:
        connection, transport = upgraded()
        messages: list[bytes | None] = []
        connection.listen(messages.append)
        for piece in pieces:
            connection.data_received(piece)
        connection.protocol.receive_eof()
        connection.connection_lost(None)
        return messages, unmasked(transport.written), connection.protocol.close_code

    return asyncio.run(run())


def through_the_library(data: bytes) -> tuple[list[bytes | None], bytes, int | None]:
    """Return the same of ``websockets`` alone."""
    protocol, answer = upgrading()
    protocol.receive_data(answer + data)
    messages: list[bytes | None] = []
    parts: list[bytes] = []
    text = False
    for event in protocol.events_received()[1:]:
        assert isinstance(event, Frame)
        if event.opcode in (Opcode.TEXT, Opcode.BINARY):
            parts, text = [], event.opcode is Opcode.TEXT
        if event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            parts.append(bytes(event.data))
            if event.fin:
                messages.append(b"".join(parts) if text else None)
    written = b"".join(protocol.data_to_send())
    protocol.receive_eof()
    return messages, unmasked(written), protocol.close_code


def unmasked(written: bytes) -> bytes:
    """Return what a client wrote without its random masks."""
    server = Protocol(SERVER)
    server.receive_data(written)
    return b"".join(
        bytes([event.opcode]) + bytes(event.data)
        for event in server.events_received()
        if isinstance(event, Frame)
    )


def frame(opcode: int, payload: bytes, fin: bool = True, mask: bool = False) -> bytes:
    return Frame(Opcode(opcode), payload, fin).serialize(mask=mask)


payloads = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([125, 126, 127, 128, 300, 65535, 65536, 70000]).map(lambda n: b"x" * n),
)
plain = payloads.map(lambda p: frame(1, p))
others = st.one_of(
    st.builds(frame, st.sampled_from([0, 1, 2]), payloads, st.booleans()),
    st.binary(max_size=125).map(lambda p: frame(9, p)),
    st.binary(max_size=125).map(lambda p: frame(10, p)),
    st.sampled_from([b"", b"\x03\xe8bye", b"\x0f\xa2"]).map(lambda p: frame(8, p)),
    payloads.map(lambda p: frame(1, p, mask=True)),
    st.binary(min_size=1, max_size=20),  # anything at all
    st.just(b"\x81\x7f" + (MAX_INBOUND_FRAME + 1).to_bytes(8, "big") + b"x" * 100),
    st.just(b"\xc1\x02hi"),  # a reserved bit
    st.just(b"\x81\x7f\xff" + b"\xff" * 9),
)
streams = st.lists(st.one_of(plain, plain, others), max_size=8).map(b"".join)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(streams, st.lists(st.integers(0, 200_000), max_size=6))
@example(frame(1, b"a", fin=False) + frame(1, b"b") + frame(0, b"c"), [])
@example(frame(1, b"a", fin=False) + frame(9, b"!") + frame(0, b"c") + frame(1, b"d"), [1, 3])
@example(frame(8, b"\x03\xe8") + frame(1, b"late"), [2])
def test_whatever_arrives_is_understood_as_the_library_does(stream: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(edges) if b > a]
    assert through_us(pieces) == through_the_library(stream)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 400), max_size=5), st.binary(max_size=20))
def test_frames_that_come_with_the_answer_to_the_upgrade(cuts: list[int], tail: bytes) -> None:
    async def run() -> None:
        protocol, answer = upgrading()
        connection = WebSocket(protocol, close_timeout=60)
        connection.connection_made(Transport())
        stream = answer + frame(1, b"welcome") + frame(1, tail)
        messages: list[bytes | None] = []
        connection.listen(messages.append)
        edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
        for a, b in itertools.pairwise(edges):
            if b > a:
                connection.data_received(stream[a:b])
        assert protocol.state is OPEN
        assert messages == [b"welcome", tail]

    asyncio.run(run())


def test_messages_are_held_back_until_somebody_listens() -> None:
    async def run() -> None:
        connection, _ = upgraded()
        connection.data_received(frame(1, b"1") + frame(1, b"2"))
        first: list[bytes | None] = []

        def once(message: bytes | None) -> None:
            first.append(message)
            connection.listen(None)

        connection.listen(once)
        connection.data_received(frame(1, b"3"))
        rest: list[bytes | None] = []
        connection.listen(rest.append)
        assert (first, rest) == ([b"1"], [b"2", b"3"])

    asyncio.run(run())


def test_an_endless_head_is_left_to_the_library() -> None:
    async def run() -> None:
        connection = WebSocket(upgrading()[0], close_timeout=60)
        connection.connection_made(Transport())
        connection.data_received(b"HTTP/1.1 101 Switching Protocols\r\nA: ")
        for _ in range(70):
            connection.data_received(b"x" * 1024)
        assert isinstance(connection.protocol.handshake_exc, Exception)

    asyncio.run(run())
