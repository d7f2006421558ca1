"""Compare the short way for text frames with the library's own parser."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections import deque

import pytest
import trustme
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import CLOSED, OPEN
from websockets.uri import parse_uri

from metered_sync.bridge.event_loop import new_event_loop, uvloop_wanted
from metered_sync.engine.messaging.websocket import CLOSE_ABNORMAL, UpgradeRefusedError, WebSocket
from metered_sync.wire.limits import MAX_INBOUND_FRAME
from tests.support.open_websocket import (
    Transport,
    all_into,
    answer_to,
    frames_in,
    upgraded,
    upgrading,
)

SIDES = (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)


def through_us(pieces: list[bytes]) -> tuple[list[bytes | None], bytes, int | None]:
    """Return the messages, what was written in answer, and how it was closed."""

    async def run() -> tuple[list[bytes | None], bytes, int | None]:
        connection, transport = upgraded()
        messages: list[bytes | None] = []
        connection.listen(all_into(messages))
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
    return b"".join(bytes([f.opcode]) + bytes(f.data) for f in frames_in(written))


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


@settings(max_examples=120, deadline=None, derandomize=True)
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
        connection.listen(all_into(messages))
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

        def once(arrived: deque[bytes | None]) -> None:
            first.append(arrived.popleft())
            connection.listen(None)

        connection.listen(once)
        connection.data_received(frame(1, b"3"))
        rest: list[bytes | None] = []
        connection.listen(all_into(rest))
        assert (first, rest) == ([b"1"], [b"2", b"3"])

    asyncio.run(run())


def test_what_a_receiver_leaves_comes_in_the_next_steps() -> None:
    class Paused(Transport):
        reading = True

        def pause_reading(self) -> None:
            self.reading = False

        def resume_reading(self) -> None:
            self.reading = True

    async def run() -> None:
        connection, _ = upgraded()
        connection.transport = transport = Paused()
        messages: list[bytes | None] = []

        def one(arrived: deque[bytes | None]) -> None:
            messages.append(arrived.popleft())

        connection.listen(one)
        connection.data_received(frame(1, b"1") + frame(1, b"2") + frame(1, b"3") + b"\x81")
        assert (messages, transport.reading) == ([b"1"], False)
        connection.data_received(b"\x014")  # (TLS may bring more all the same)
        await asyncio.sleep(0)
        assert (messages, transport.reading) == ([b"1", b"2"], False)
        for _ in range(3):
            await asyncio.sleep(0)
        assert (messages, transport.reading) == ([b"1", b"2", b"3", b"4"], True)
        connection.data_received(b"".join(frame(1, b"%d" % number) for number in range(5, 9)))
        connection.eof_received()  # the end waits for nothing
        assert messages == [b"%d" % number for number in range(1, 9)]

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


# --- the upgrade ----------------------------------------------------------------------


async def shaking(answer: bytes | None) -> tuple[WebSocket, asyncio.Task[None]]:
    """Return a connection whose handshake has been answered; ``None`` loses it instead."""
    connection = WebSocket(ClientProtocol(parse_uri("ws://localhost/")), close_timeout=60)
    transport = Transport()
    connection.connection_made(transport)
    task = asyncio.create_task(connection.handshake({"X-One": "1"}, "us/1"))
    await asyncio.sleep(0)
    assert b"User-Agent: us/1\r\n" in transport.written
    assert b"X-One: 1\r\n" in transport.written
    if answer is None:
        connection.connection_lost(None)
    else:
        connection.data_received(answer or answer_to(transport.written))
    await asyncio.wait([task], timeout=20)
    return connection, task


def test_the_handshake_succeeds() -> None:
    async def run() -> None:
        connection, task = await shaking(b"")
        task.result()
        assert connection.is_open

    asyncio.run(run())


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 4\r\n",
        b"",  # a body that ends with the connection, which stays open
        b"Content-Length: 400\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"no colon\r\nRetry-After: 5\r\n" * 300,
    ],
    ids=["whole", "without a length", "less than promised", "chunked", "odd"],
)
def test_a_refused_handshake_says_with_which_status(fields: bytes) -> None:
    async def run() -> None:
        _, task = await shaking(b"HTTP/1.1 429 Wait\r\nRetry-After: 5\r\n" + fields + b"\r\nlate")
        if b"no colon" in fields:  # the library refuses it at once
            with pytest.raises(Exception, match="HTTP"):
                task.result()
            return
        with pytest.raises(UpgradeRefusedError) as caught:
            task.result()
        assert caught.value.status == 429
        assert caught.value.headers["retry-after"] == "5"
        assert caught.value.body == b"late"

    asyncio.run(run())


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", None], ids=["nonsense", "lost"])
def test_a_handshake_without_an_answer_fails(answer: bytes | None) -> None:
    async def run() -> None:
        _, task = await shaking(answer)
        with pytest.raises(Exception, match=r"HTTP|lost|closed|EOF"):
            task.result()

    asyncio.run(run())


# --- the end --------------------------------------------------------------------------


def test_a_close_waits_for_the_server() -> None:
    async def run() -> None:
        connection, transport = upgraded()
        closing = asyncio.create_task(connection.close(1000, "bye"))
        await asyncio.sleep(0)
        (close,) = frames_in(transport.written)
        assert (close.opcode, bytes(close.data)) == (Opcode.CLOSE, b"\x03\xe8bye")
        assert not connection.is_open
        connection.data_received(frame(8, b"\x03\xe8bye"))
        assert not closing.done()
        connection.eof_received()
        connection.connection_lost(None)
        await closing
        assert (connection.close_code, connection.close_reason) == (1000, "bye")
        assert transport.half_closed
        await connection.close(1001, "again")  # does nothing
        assert connection.close_code == 1000

    asyncio.run(run())


def test_a_close_that_the_server_does_not_finish_is_cut_off() -> None:
    async def run() -> None:
        cut_off = asyncio.Event()

        class Cut(Transport):
            def abort(self) -> None:
                cut_off.set()

        protocol, answer = upgrading()
        connection = WebSocket(protocol, close_timeout=0.01)
        connection.connection_made(Cut())
        connection.data_received(answer)
        closing = asyncio.create_task(connection.close(1000, ""))
        await asyncio.wait_for(cut_off.wait(), 20)
        connection.connection_lost(None)
        await closing

    asyncio.run(run())


def test_a_connection_that_is_lost_has_the_code_for_it() -> None:
    async def run() -> None:
        connection, _ = upgraded()
        connection.connection_lost(OSError("reset"))
        await connection.wait_closed()
        assert (connection.close_code, connection.close_reason) == (CLOSE_ABNORMAL, "")
        assert connection.protocol.state is CLOSED

    asyncio.run(run())


def test_a_full_transport_says_when_there_is_room() -> None:
    async def run() -> None:
        connection, _ = upgraded()
        rooms: list[bool] = []
        connection.on_room = lambda: rooms.append(connection.full)
        connection.pause_writing()
        assert connection.full
        connection.resume_writing()
        assert rooms == [False]

    asyncio.run(run())


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_all_that_comes_at_once_over_tls_is_read(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METERED_SYNC_LOOP", kind)
    if kind == "uvloop" and not uvloop_wanted():
        pytest.skip("uvloop is not installed")
    authority = trustme.CA()
    here, there = (ssl.SSLContext(side) for side in SIDES)
    authority.configure_trust(there)
    authority.issue_cert("localhost").configure_cert(here)
    texts = [b"%d " % number + b"x" * number for number in range(0, 3000, 37)]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer_to(await reader.readuntil(b"\r\n\r\n")))
        for text in texts:
            writer.write(frame(1, text))  # a record of TLS each
        try:
            await reader.read()
        except OSError:
            pass
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            pass
        served.set()

    async def run() -> None:
        server = await asyncio.start_server(serve, "localhost", 0, ssl=here)
        protocol = ClientProtocol(parse_uri("wss://localhost/"), max_size=MAX_INBOUND_FRAME)
        port = server.sockets[0].getsockname()[1]
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: WebSocket(protocol, close_timeout=5), "localhost", port, ssl=there
        )
        messages: list[bytes | None] = []
        done = asyncio.Event()

        def receive(arrived: deque[bytes | None]) -> None:
            messages.extend(arrived)
            arrived.clear()
            if len(messages) == len(texts):
                done.set()

        connection.listen(receive)
        await connection.handshake()
        try:
            await asyncio.wait_for(done.wait(), 20)
        finally:
            connection.abort()
            await asyncio.wait_for(asyncio.gather(connection.wait_closed(), served.wait()), 20)
            server.close()
        assert messages == texts

    loop = new_event_loop()
    served = asyncio.Event()
    try:
        loop.run_until_complete(run())
    finally:
        loop.close()
