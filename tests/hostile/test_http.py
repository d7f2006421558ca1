"""Call services whose HTTP answers have no end, or come a byte at a time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import repeat

import pytest

from metered_sync import ControlPlane, MeteredError, MeteredTimeoutError, SfuClient
from metered_sync.engine.http import MAX_ANSWER
from tests.conftest import wait_until
from tests.support.mallory import MAX_GROWTH, memory

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNK = b"10000\r\n" + b" " * 65536 + b"\r\n"
DRIP = 0.02
"""Seconds between two bytes."""

ENDLESS: dict[str, Callable[[], Iterator[bytes]]] = {
    "chunks": lambda: iter([HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[CHUNK] * 4000]),
    "length": lambda: iter([HEAD + b"Content-Length: 9999999999\r\n\r\n", *[b" " * 65536] * 4000]),
    "no length": lambda: iter([HEAD + b"\r\n", *[b" " * 65536] * 4000]),
    "headers": lambda: iter([HEAD, *[b"X-More: " + b"x" * 60_000 + b"\r\n"] * 4000]),
    "one header": lambda: iter([HEAD + b"X-More: ", *[b"x" * 65536] * 4000]),
}
SLOW: dict[str, Callable[[], Iterator[bytes]]] = {
    "status line": lambda: repeat(b"H"),
    "headers": lambda: _after(HEAD + b"X-More: ", repeat(b"x")),
    "body": lambda: _after(HEAD + b"Content-Length: 100000\r\n\r\n", repeat(b" ")),
    "chunks": lambda: _after(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", repeat(b"1\r\n \r\n")),
    "informational": lambda: repeat(b"HTTP/1.1 100 Continue\r\n\r\n"),
}


def _after(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from rest


@dataclass
class Sent:
    """An answer: the bytes of it that have been sent, and whether its connection has ended."""

    sent: int = 0
    ended: bool = False


@contextmanager
def answering(
    pieces: Callable[[], Iterator[bytes]], pause: float
) -> Iterator[tuple[str, list[Sent]]]:
    """Serve, and give each request this answer; yield the origin, and the answers."""
    ended = threading.Event()
    answers: list[Sent] = []

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            answers.append(this := Sent())
            try:
                for piece in pieces():
                    connection.sendall(piece)
                    this.sent += len(piece)
                    if ended.wait(pause):
                        return
            except OSError:
                this.ended = True

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                connection.settimeout(10)
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", answers
        finally:
            ended.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join(20)


def publish(origin: str, timeout: float) -> None:
    ControlPlane("key", "secret-secret", url=origin).publish("c", 1, timeout=timeout)


def connect(origin: str, timeout: float) -> None:
    with SfuClient(app_id="app", secret="secret-secret", url=origin, timeout=timeout):
        pass


CALLS = {"control plane": publish, "SFU": connect}
SFU = pytest.param("SFU", marks=pytest.mark.slow)
"""It makes its calls as the control plane does."""


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        *((kind, "control plane") for kind in ENDLESS),
        pytest.param("chunks", "SFU", marks=pytest.mark.slow),
    ],
)
def test_what_has_no_end_is_left(kind: str, call: str) -> None:
    before = memory()
    with answering(ENDLESS[kind], 0) as (origin, answers):
        with pytest.raises(MeteredError) as caught:
            CALLS[call](origin, 20)
        assert not isinstance(caught.value, MeteredTimeoutError)
        assert "secret-secret" not in str(caught.value)
        wait_until(lambda: all(one.ended for one in answers), 20, "the connection is closed")
        assert max(one.sent for one in answers) < 10 * MAX_ANSWER
    assert memory() - before < MAX_GROWTH


@pytest.mark.parametrize("call", ["control plane", SFU])
def test_what_comes_a_byte_at_a_time_is_left_at_the_deadline(call: str) -> None:
    """By the call, and soon after by the thread that reads, which closes the connection."""
    with ExitStack() as stack:
        servers = [stack.enter_context(answering(kind, DRIP)) for kind in SLOW.values()]
        for origin, _ in servers:
            begin = time.monotonic()
            with pytest.raises(MeteredTimeoutError):
                CALLS[call](origin, 0.3)
            assert time.monotonic() - begin < 15
        for name, (_, answers) in zip(SLOW, servers, strict=True):
            wait_until(lambda one=answers[0]: one.ended, 20, f"the connection is closed: {name}")
