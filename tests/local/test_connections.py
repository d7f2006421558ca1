"""Test when the frames of a connection leave, in which order, and when it is cut off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from metered_sync.local import connections
from metered_sync.local.connections import SendScheduler, text_frame
from metered_sync.wire.events import PresencePeer
from metered_sync.wire.frames import build_ack, build_pong
from metered_sync.wire.limits import MESSAGE_BURST, MESSAGE_RATE
from tests.support.recorded_connection import Connection, turn

Story = Callable[[SendScheduler, Connection], Awaitable[None]]


def tell(story: Story) -> None:
    async def run() -> None:
        scheduler = SendScheduler()
        await story(scheduler, Connection(scheduler))
        scheduler.close()

    asyncio.run(run())


def ack(number: int) -> bytes:
    return text_frame(build_ack(str(number)))


def ids(connection: Connection) -> list[str]:
    return [frame.get("requestId", "") for frame in connection.frames()]


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_a_text_is_one_unmasked_frame(size: int) -> None:
    frame = text_frame("x" * size)
    assert frame.endswith(b"x" * size)
    assert frame[0] == 0x81
    assert frame[1] & 0x80 == 0


def test_frames_of_one_turn_are_one_write() -> None:
    async def story(scheduler: SendScheduler, connection: Connection) -> None:
        other = Connection(scheduler, "bob")
        for number in range(3):
            connection.send(ack(number))
        other.send(ack(9))
        assert connection.recorded.written == []
        await turn()
        assert len(connection.recorded.written) == 1
        assert ids(connection) == ["0", "1", "2"]
        assert ids(other) == ["9"]

    tell(story)


def test_held_acknowledgements_leave_in_order_and_presence_behind_them() -> None:
    async def story(scheduler: SendScheduler, connection: Connection) -> None:
        scheduler.hold(0.05)
        scheduler.announce(connection, text_frame(build_pong("before")))
        scheduler.acknowledge(connection, ack(1))
        scheduler.announce(connection, text_frame(build_pong("snapshot")))
        scheduler.acknowledge(connection, ack(2))
        connection.send(text_frame(build_pong("message")))
        await turn()
        assert ids(connection) == ["before", "message"]
        scheduler.hold(0)  # ends it
        await asyncio.sleep(0.01)
        assert ids(connection) == ["1", "snapshot", "2"]
        scheduler.acknowledge(connection, ack(3))
        await turn()
        assert ids(connection) == ["3"]

    tell(story)


def test_delayed_frames_keep_their_order_when_the_delay_ends() -> None:
    async def story(scheduler: SendScheduler, connection: Connection) -> None:
        scheduler.delay(0.03)
        started = time.monotonic()
        connection.send(ack(1))
        scheduler.delay(0)
        assert scheduler.slow
        connection.send(ack(2))  # may not overtake
        await turn()
        assert ids(connection) == []
        await scheduler.drained(connection)
        await turn()
        assert time.monotonic() - started >= 0.025
        assert ids(connection) == ["1", "2"]
        assert not scheduler.slow

    tell(story)


def test_the_end_of_the_server_sends_what_is_delayed_and_held() -> None:
    async def story(scheduler: SendScheduler, connection: Connection) -> None:
        scheduler.delay(60)
        connection.send(ack(1))
        scheduler.hold(60)
        scheduler.acknowledge(connection, ack(2))
        scheduler.close()
        await turn()
        assert ids(connection) == ["1", "2"]

    tell(story)


def test_a_client_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(scheduler: SendScheduler, connection: Connection) -> None:
        monkeypatch.setattr(connections, "_WRITE_CHECK_INTERVAL", 100)
        connection.recorded.waiting = connections.MAX_UNSENT
        connection.send(text_frame("x" * 200))
        await turn()
        assert not connection.recorded.aborted
        connection.recorded.waiting += 1
        connection.send(text_frame("x" * 50))  # too little to look again
        await turn()
        assert not connection.recorded.aborted
        connection.send(text_frame("x" * 200))
        await turn()
        assert connection.recorded.aborted
        count = len(connection.recorded.written)
        connection.send(ack(1))
        await turn()
        assert len(connection.recorded.written) == count

    tell(story)


def test_a_client_that_is_silent_for_two_pings_is_cut_off() -> None:
    async def story(scheduler: SendScheduler, connection: Connection) -> None:
        connection.ping()
        assert connection.recorded.written == [b"\x89\x00"]
        connection.heard = True
        connection.ping()
        assert not connection.recorded.aborted
        connection.ping()
        assert connection.recorded.aborted

    tell(story)


def test_the_rate_of_frames_is_a_token_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(scheduler: SendScheduler, connection: Connection) -> None:
        now = time.monotonic()
        monkeypatch.setattr(connections, "monotonic", lambda: now)
        connection.within_rate()  # the clock stands from here on
        connection._tokens = float(MESSAGE_BURST)
        assert all(connection.within_rate() for _ in range(MESSAGE_BURST))
        assert not connection.within_rate()
        now += 2.5 / MESSAGE_RATE  # (one that was refused counts as well)
        assert connection.within_rate()
        assert not connection.within_rate()
        monkeypatch.undo()

    tell(story)


def test_a_connection_shows_its_peer_and_its_rights() -> None:
    async def story(scheduler: SendScheduler, connection: Connection) -> None:
        other = Connection(scheduler, "bob", ("publish",), {"name": "Bob"})
        assert other.presence() == PresencePeer("bob", {"name": "Bob"})
        assert (other.may("publish"), other.may("subscribe")) == (True, False)

    tell(story)
