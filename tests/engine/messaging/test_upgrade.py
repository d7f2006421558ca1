"""Test what is made of other answers to the upgrade: refusals, redirects, waits."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from metered_sync import Connected, ReconnectOptions, SignallingClient, SignallingConnectError
from tests.rules.test_secrets import shown
from tests.support.scripted_service import ScriptedServer
from tests.support.seen import frames_of

KEY = "pk_live_HUSH"
FAST = ReconnectOptions(initial_delay=0.01, max_delay=0.02)


@contextmanager
def saying(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Answer each upgrade with the next of these, and keep the sockets open."""
    asked: list[bytes] = []
    kept: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):
            for answer in answers:
                client, _ = listening.accept()
                kept.append(client)
                asked.append(client.recv(65536))
                client.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"ws://127.0.0.1:{listening.getsockname()[1]}", asked
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(20)
    for client in kept:
        client.close()


def refused(url: str) -> SignallingConnectError:
    with pytest.raises(SignallingConnectError) as caught:
        SignallingClient(api_key=KEY, url=url).connect(timeout=20)
    assert "HUSH" not in frames_of(caught.value) + shown(caught.value)
    return caught.value


LATER = format_datetime(datetime(2030, 1, 1, 0, 0, 40, tzinfo=timezone.utc), usegmt=True)
DATE = b"Date: Tue, 01 Jan 2030 00:00:00 GMT\r\n"


@pytest.mark.parametrize(
    ("status", "fields", "seconds"),
    [
        (429, b"Retry-After: 7\r\n", 7.0),
        (503, b"Retry-After: " + LATER.encode() + b"\r\n" + DATE, 40.0),
        (429, b"", 0.0),
    ],
)
def test_what_a_refusal_asks_to_wait_is_in_the_error(
    status: int, fields: bytes, seconds: float
) -> None:
    # No length, and the socket stays open: where its body ends cannot be seen.
    with saying(f"HTTP/1.1 {status} No\r\n".encode() + fields + b"\r\nslow down") as (url, _):
        error = refused(url)
    assert error.close_code == status
    assert error.retry_after == seconds
    assert f"(HTTP {status}) slow down" in str(error)
    assert ("asks to wait" in str(error)) == bool(seconds)


def test_a_date_without_the_servers_clock_counts_from_ours() -> None:
    later = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=100), usegmt=True)
    answer = b"HTTP/1.1 503 No\r\nRetry-After: " + later.encode() + b"\r\n\r\n"
    with saying(answer) as (url, _):
        assert 50 < refused(url).retry_after <= 100


def test_reconnects_keep_to_it() -> None:
    refusals = {1, 2}
    times: list[float] = []

    def status(number: int) -> int | None:
        times.append(time.monotonic())
        return 503 if number in refusals else None

    with (
        ScriptedServer(status=status, headers={"Retry-After": "1"}) as server,
        SignallingClient(api_key="pk_live_x", url=server.url, reconnect=FAST) as client,
        client.events(Connected) as events,
    ):
        server.accept().drop()
        assert events.get(timeout=20).is_reconnect
    first, second, third = times[1:]
    assert second - first >= 1
    assert third - second >= 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["ws://127.0.0.1:{}/v1", "/elsewhere", "wss://evil.test/x"])
def test_redirects_are_refused(status: int, target: str) -> None:
    with saying(b"") as (other, elsewhere):
        location = target.format(other.rpartition(":")[2])
        answer = f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        with saying(answer.encode(), b"") as (url, asked):
            error = refused(url)
            assert error.close_code == status
            assert "is not followed" in str(error)
            assert len(asked) == 1
        assert elsewhere == []


def test_what_is_no_websocket_says_so() -> None:
    with saying(b"220 mail.example.test ESMTP\r\n\r\n") as (url, _):
        assert "does not speak WebSocket" in str(refused(url))
