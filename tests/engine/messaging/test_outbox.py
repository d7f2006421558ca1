from __future__ import annotations

import asyncio
import math
import queue
from collections.abc import Callable

import pytest

from metered_sync import (
    AckTimeoutError,
    CancelledError,
    ClosedError,
    DisconnectedError,
    NotConnectedError,
    OversizedPayloadError,
)
from metered_sync.engine.messaging import outbox as outboxes
from metered_sync.engine.messaging.outbox import FRAMES_PER_WRITE, Outbox, TokenBucket
from metered_sync.engine.messaging.request import OutagePolicy, Request
from tests.support.interrupted import interrupted
from tests.support.open_websocket import json_in, upgraded


def request(number: int, *, outage: OutagePolicy = "wait", timeout: float | None = None) -> Request:
    return Request(str(number), str(number), f"request {number}", outage=outage, timeout=timeout)


def run(test: Callable[[], object]) -> None:
    """Run a test inside a loop."""

    async def inside() -> None:
        test()

    asyncio.run(inside())


# --- the token bucket -----------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(outboxes, "monotonic", lambda: now[0])
    return now


def test_a_burst_and_then_the_rate(clock: list[float]) -> None:
    bucket = TokenBucket((10, 3))
    assert (bucket.take(2), bucket.take(5), bucket.take(1)) == (2, 1, 0)
    assert bucket.delay() == pytest.approx(0.1)
    clock[0] += 0.25
    assert bucket.take(5) == 2
    assert bucket.delay() == pytest.approx(0.05)
    clock[0] += 1000
    assert bucket.take(50) == 3


def test_a_new_connection_has_a_full_bucket(clock: list[float]) -> None:
    bucket = TokenBucket((10, 3))
    assert bucket.take(3) == 3
    bucket.fill()
    assert bucket.take(3) == 3


@pytest.mark.parametrize("limit", [None, (10, math.inf)])
def test_no_limit(clock: list[float], limit: tuple[float, float] | None) -> None:
    bucket = TokenBucket(limit)
    assert bucket.take(100_000) == 100_000
    assert bucket.delay() == 0.0


# --- sending --------------------------------------------------------------------------


def test_a_burst_wakes_the_loop_once_and_leaves_in_order_with_few_writes() -> None:
    def test() -> None:
        posted: list[Callable[[], None]] = []
        outbox = Outbox(None, posted.append)
        connection, transport = upgraded()
        outbox.up(connection)
        requests = [request(number) for number in range(100)]
        for one in requests:
            outbox.put(one)
        assert len(posted) == 1
        assert transport.written == b""
        before = transport.writes
        posted[0]()
        assert json_in(transport.written) == list(range(100))
        assert transport.writes - before == math.ceil(100 / FRAMES_PER_WRITE)
        assert all(one.sent and one.frame == b"" for one in requests)
        outbox.put(request(100))
        assert len(posted) == 2

    run(test)


def test_the_rate_limit_is_kept_to() -> None:
    async def inside() -> None:
        outbox = Outbox((5, 2), [].append)
        connection, transport = upgraded()
        outbox.up(connection)
        requests = [request(number) for number in range(4)]
        for one in requests:
            outbox.put(one)
        outbox.flush()
        assert json_in(transport.written) == [0, 1]

        async def rest() -> None:
            while not requests[3].sent:
                await asyncio.sleep(0.001)

        await asyncio.wait_for(rest(), 20)
        assert json_in(transport.written) == [0, 1, 2, 3]
        outbox.stop()

    asyncio.run(inside())


def test_a_full_transport_is_left_alone_until_it_has_room() -> None:
    def test() -> None:
        outbox = Outbox(None, [].append)
        connection, transport = upgraded()
        outbox.up(connection)
        connection.pause_writing()
        outbox.put(request(1))
        outbox.flush()
        assert transport.written == b""
        connection.resume_writing()
        assert json_in(transport.written) == [1]

    run(test)


def test_nothing_is_written_before_the_connection_is_up_or_after_it_has_stopped() -> None:
    def test() -> None:
        outbox = Outbox(None, [].append)
        connection, transport = upgraded()
        outbox.put(request(1))
        outbox.flush()
        outbox.up(connection)
        outbox.stop()
        outbox.flush()
        assert transport.written == b""

    run(test)


def test_what_is_urgent_goes_first() -> None:
    def test() -> None:
        outbox = Outbox(None, [].append)
        connection, transport = upgraded()
        outbox.put(request(1))
        outbox.up(connection)
        urgent = [request(2), request(3), Request("", "0", "a ping")]
        outbox.urge(urgent)
        outbox.flush()
        assert json_in(transport.written) == [2, 3, 0, 1]
        assert outbox.take("2") is urgent[0]
        assert outbox.take("") is None  # nobody answers it

    run(test)


# --- bounds ---------------------------------------------------------------------------


def test_a_frame_that_the_server_does_not_accept_is_not_queued() -> None:
    outbox = Outbox(None, [].append)
    outbox.max_size = 5
    outbox.put(Request("1", "12345", "a test"))
    with pytest.raises(OversizedPayloadError, match="6 bytes") as caught:
        outbox.put(Request("2", "123456", "a test"))
    assert (caught.value.size, caught.value.cap) == (6, 5)
    assert outbox.take("2") is None


def test_calls_that_do_not_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outboxes, "MAX_QUEUED", 2)
    outbox = Outbox(None, [].append)
    outbox.put(request(1))  # (waits with a deadline: not bounded, but counted)
    outbox.put(request(2, timeout=1.0))
    with pytest.raises(queue.Full, match="2 frames"):
        outbox.put(request(3, timeout=1.0))
    outbox.put(request(4))


def test_ctrl_c_at_each_moment_of_a_cancellation() -> None:
    posted: list[Callable[[], None]] = []
    outbox, kept, at = Outbox(None, posted.append), request(0), 0

    def interrupt() -> None:
        raise KeyboardInterrupt

    def once() -> bool:
        """Say whether a cancellation had a moment of that number."""
        one = request(1)
        outbox.put(one)
        posted.clear()
        try:
            with interrupted(at, interrupt) as interruption:
                outbox.cancel(one)
        except KeyboardInterrupt:
            pass
        for function in posted:
            function()
        assert one.ended.is_set or outbox.cancel(one), at
        assert isinstance(one.error, CancelledError), at
        assert (list(outbox._queue), list(outbox._pending)) == ([kept], [kept.id]), at
        assert outbox._bytes == len(kept.frame), at
        return interruption.done

    outbox.put(kept)
    while once():
        at += 1
    assert 5 < at < 100


def test_they_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        monkeypatch.setattr(outboxes, "MAX_QUEUED_BYTES", 2000)
        outbox = Outbox(None, [].append)
        large = [Request(str(n), f'"{"x" * 900}"', "a test", timeout=60.0) for n in range(5)]
        outbox.put(large[0])
        outbox.put(large[1])
        with pytest.raises(queue.Full):
            outbox.put(large[2])
        assert outbox.withdraw(large[0])
        outbox.put(large[2])
        with pytest.raises(queue.Full):
            outbox.put(large[3])
        connection, _ = upgraded()
        outbox.up(connection)
        outbox.flush()
        outbox.put(large[3])
        outbox.put(large[4])
        outbox.stop()

    run(test)


# --- giving up ------------------------------------------------------------------------


def test_only_what_has_not_left_can_be_withdrawn() -> None:
    def test() -> None:
        outbox = Outbox(None, [].append)
        connection, transport = upgraded()
        outbox.up(connection)
        early, late = request(1), request(2)
        outbox.put(early)
        outbox.put(late)
        assert outbox.withdraw(early)
        assert not outbox.withdraw(early)
        outbox.flush()
        assert not outbox.withdraw(late)
        assert json_in(transport.written) == [2]

    run(test)


def test_the_acknowledgement_of_what_is_forgotten_counts_no_more() -> None:
    def test() -> None:
        outbox = Outbox(None, [].append)
        connection, transport = upgraded()
        outbox.up(connection)
        sent, queued = request(1), request(2)
        outbox.put(sent)
        outbox.flush()
        outbox.put(queued)
        for one in (sent, queued):
            outbox.forget(one)
            assert outbox.take(one.id) is None
        outbox.flush()
        assert json_in(transport.written) == [1]

    run(test)


def test_a_request_that_nobody_waits_for_expires_after_it_has_left() -> None:
    async def inside() -> None:
        outbox = Outbox(None, [].append)
        connection, _ = upgraded()
        outbox.up(connection)
        ended = asyncio.Event()
        soon, later = request(1, timeout=0.02), request(2, timeout=60.0)
        soon.then(lambda _: ended.set())
        outbox.put(soon)
        outbox.put(later)
        outbox.flush()
        await asyncio.wait_for(ended.wait(), 20)
        assert isinstance(soon.error, AckTimeoutError)
        assert soon.error.sent
        assert outbox.take("1") is None
        assert outbox.take("2") is later
        assert not later.ended.is_set
        outbox.stop()

    asyncio.run(inside())


# --- outages --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outage", "sent", "error"),
    [
        ("wait", False, None),
        ("wait", True, DisconnectedError),
        ("fail", False, NotConnectedError),
        ("fail", True, DisconnectedError),
        ("repeat", False, None),
        ("repeat", True, None),
    ],
)
def test_an_outage(outage: OutagePolicy, sent: bool, error: type[BaseException] | None) -> None:
    def test() -> None:
        outbox = Outbox(None, [].append)
        connection, _ = upgraded()
        outbox.up(connection)
        one = request(1, outage=outage)
        outbox.put(one)
        if sent:
            outbox.flush()
        outbox.stop()
        outbox.down(1006, "lost")
        assert one.ended.is_set == (error is not None)
        assert type(one.error) is (error or type(None))
        assert not one.sent or error is not None
        connection, transport = upgraded()
        outbox.up(connection)
        outbox.flush()
        assert json_in(transport.written) == ([1] if error is None else [])
        assert outbox.take("1") is (one if error is None else None)

    run(test)


def test_what_is_repeated_keeps_its_place_before_what_came_later() -> None:
    def test() -> None:
        outbox = Outbox(None, [].append)
        connection, _ = upgraded()
        outbox.up(connection)
        outbox.put(request(1, outage="repeat"))
        outbox.put(request(2, outage="repeat"))
        outbox.flush()
        outbox.put(request(3))
        outbox.stop()
        outbox.down(1006, "lost")
        outbox.put(request(4))
        connection, transport = upgraded()
        outbox.up(connection)
        outbox.flush()
        assert json_in(transport.written) == [1, 2, 3, 4]

    run(test)


def test_during_an_outage_requests_wait_or_fail_as_they_say() -> None:
    def test() -> None:
        outbox = Outbox(None, [].append)
        outbox.down(1006, "lost")
        outbox.put(request(1))
        with pytest.raises(NotConnectedError, match="request 2: the connection is down"):
            outbox.put(request(2, outage="fail"))
        connection, transport = upgraded()
        outbox.up(connection)
        outbox.put(request(3, outage="fail"))
        outbox.flush()
        assert json_in(transport.written) == [1, 3]

    run(test)


def test_the_end_fails_everything_with_errors_of_its_own() -> None:
    outbox = Outbox(None, [].append)
    requests = [request(1), request(2, outage="repeat")]
    for one in requests:
        outbox.put(one)
    end = ClosedError("the end")
    outbox.close(end)
    outbox.close(DisconnectedError("a second end", code=1006, reason=""))
    errors = [one.error for one in requests]
    assert [type(error) for error in errors] == [ClosedError, ClosedError]
    assert errors[0] is not errors[1]
    with pytest.raises(ClosedError, match="the end"):
        outbox.put(request(3))
    outbox.urge([late := request(4)])
    assert outbox.take(late.id) is None


def test_ids_are_all_different() -> None:
    outboxes_ = [Outbox(None, [].append) for _ in range(2)]
    ids = [outbox.new_id() for outbox in outboxes_ for _ in range(100)]
    assert len(set(ids)) == 200


def test_a_full_outbox_says_of_what() -> None:
    outbox = Outbox(None, [].append)
    outbox.max_size = 16 << 20
    outbox.put(Request("1", "x" * (15 << 20), "a test", timeout=60.0))
    with pytest.raises(
        queue.Full, match=r"1 frames wait .* 15\.0 MiB .* 4096 .* 16 MiB: call flush"
    ):
        outbox.put(Request("2", "x" * (2 << 20), "a test", timeout=60.0))
