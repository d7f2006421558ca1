"""Test the bounded queue that blocking callers read."""

from __future__ import annotations

import math
import queue
import sys
import threading
import time
from typing import Any

import pytest

from metered_sync import (
    ClosedError,
    Connected,
    DisconnectedError,
    Event,
    Message,
    MeteredTimeoutError,
)
from metered_sync.bridge.event_hub import EventQueue
from metered_sync.bridge.reader import Reader
from tests.conftest import wait_until


def reader(**options: Any) -> Reader[int]:
    return Reader("a reader", **options)


def test_first_in_first_out() -> None:
    inbox = reader()
    for number in range(3):
        inbox.put(number)
    assert len(inbox) == 3
    assert (inbox.get(), inbox.get_nowait(), inbox.get(timeout=0)) == (0, 1, 2)
    with pytest.raises(queue.Empty):
        inbox.get_nowait()
    with pytest.raises(MeteredTimeoutError, match="a reader"):
        inbox.get(timeout=0.01)


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "9"])
def test_sizes(bad: Any) -> None:
    with pytest.raises(ValueError, match="maxsize"):
        reader(maxsize=bad)


def test_full_readers_drop_by_policy_and_count() -> None:
    oldest, newest = reader(maxsize=2), reader(maxsize=2, overflow="drop_newest")
    for number in range(5):
        oldest.put(number)
        newest.put(number)
    assert (oldest.dropped, newest.dropped) == (3, 3)
    assert [oldest.get(), oldest.get()] == [3, 4]
    assert [newest.get(), newest.get()] == [0, 1]


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
@pytest.mark.parametrize("bound", [{"maxsize": 5}, {"max_bytes": 50}, {}])
@pytest.mark.parametrize("count", [0, 1, 3, 5, 6, 12])
def test_many_at_once_are_queued_as_one_by_one(overflow: Any, bound: Any, count: int) -> None:
    class Sized(Reader[int]):
        def _size(self, item: int) -> int:
            return 10

    one_by_one, together = (Sized("a reader", overflow=overflow, **bound) for _ in range(2))
    for begin in range(0, 3 * count, max(count, 1)):
        items = range(begin, begin + count)
        for item in items:
            one_by_one.put(item)
        together.put_all(items)
    assert together.dropped == one_by_one.dropped
    together.end()
    together.put_all([1, 2])  # too late
    one_by_one.end()
    assert list(together) == list(one_by_one)
    assert together._came == together._went


def test_many_at_once_wake_all_who_sleep() -> None:
    inbox = reader()
    taken: list[int] = []
    threads = [threading.Thread(target=lambda: taken.append(inbox.get(timeout=20))) for _ in "123"]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(inbox._sleepers) == 3)
    inbox.put_all([1, 2, 3])
    for thread in threads:
        thread.join(20)
    assert sorted(taken) == [1, 2, 3]


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
def test_lifecycle_events_are_never_dropped(overflow: Any) -> None:
    events = EventQueue("events", (Event,), maxsize=2, overflow=overflow)
    message = Message("c", "p", 1)
    connected = [Connected("p", 0, None, False, n) for n in range(4)]
    for event in (
        message,
        connected[0],
        message,
        connected[1],
        connected[2],
        message,
        connected[3],
    ):
        events.put(event)
    events.end()
    kept = list(events)
    assert [e for e in kept if isinstance(e, Connected)] == connected
    assert len(kept) + events.dropped == 7


def test_closing_drains_then_ends() -> None:
    inbox = reader()
    inbox.put(1)
    inbox.close()
    inbox.close()
    inbox.put(2)  # too late
    assert list(inbox) == [1]
    with pytest.raises(ClosedError):
        inbox.get()
    with pytest.raises(ClosedError):
        inbox.get_nowait()
    assert "closed" in repr(inbox)


def test_an_error_at_the_end_reaches_every_call_as_its_own_object() -> None:
    inbox = reader()
    inbox.put(1)
    error = DisconnectedError("gone", code=4001, reason="why")
    inbox.end(error)
    inbox.end()  # the first end counts
    assert inbox.get() == 1
    seen = []
    for _ in range(2):
        with pytest.raises(DisconnectedError) as caught:
            next(inbox)
        assert (caught.value.code, caught.value.reason, str(caught.value)) == (4001, "why", "gone")
        seen.append(caught.value)
    assert error not in seen
    assert seen[0] is not seen[1]


@pytest.mark.parametrize("full", [False, True])
def test_closing_from_another_thread_wakes_a_reader(full: bool) -> None:
    for _ in range(20):
        inbox = reader(maxsize=1)
        if full:
            inbox.put(1)
            inbox.get()
        blocked = threading.Event()
        took: list[float] = []

        thread = threading.Thread(target=_read_to_the_end, args=(inbox, blocked, took))
        thread.start()
        blocked.wait(5)
        closed = time.monotonic()
        inbox.close()
        thread.join(20)
        assert took
        assert took[0] - closed < 4


def _read_to_the_end(inbox: Reader[int], blocked: threading.Event, took: list[float]) -> None:
    blocked.set()
    with pytest.raises(ClosedError):
        inbox.get(timeout=math.inf)
    took.append(time.monotonic())


def test_many_readers_and_writers_lose_and_double_nothing() -> None:
    inbox = reader(maxsize=1_000_000)
    got: list[list[int]] = []

    def read() -> None:
        mine = list(inbox)
        got.append(mine)

    readers = [threading.Thread(target=read) for _ in range(8)]
    writers = [
        threading.Thread(target=lambda n=n: [inbox.put(n * 1000 + i) for i in range(1000)])
        for n in range(8)
    ]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join(30)
    inbox.close()
    for thread in readers:
        thread.join(30)
    assert sorted(x for mine in got for x in mine) == list(range(8000))
    for mine in got:  # each writer's items stay in order
        for n in range(8):
            of_writer = [x for x in mine if x // 1000 == n]
            assert of_writer == sorted(of_writer)


def test_what_is_never_dropped_does_not_slow_down_what_may_be() -> None:
    events = EventQueue("events", (Event,), maxsize=4096, overflow="drop_oldest")
    began = time.monotonic()
    for event in (Connected("p", 0, None, False, 1), Message("c", "p", 1)):
        for _ in range(20_000):
            events.put(event)
    assert time.monotonic() - began < 5  # a search through all of them takes ten times that
    assert len(events) == 20_000
    assert events.dropped == 20_000
    while len(events) > 4095:
        assert isinstance(events.get_nowait(), Connected)
    for number in range(3):
        events.put(Message("c", "p", number))
    kept = [events.get_nowait() for _ in range(len(events))]
    assert [e.data for e in kept if isinstance(e, Message)] == [2]
    assert len(kept) == 4096


def test_writers_of_a_full_reader_do_not_disturb_each_other() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        events = EventQueue("events", (Event,), maxsize=100, overflow="drop_oldest")
        connected, message = Connected("p", 0, None, False, 1), Message("c", "p", 1)
        for _ in range(200):
            events.put(connected)
        wrong: list[BaseException] = []

        def write(event: Event) -> None:
            try:
                for _ in range(1000):
                    events.put(event)
            except BaseException as error:
                wrong.append(error)

        writers = [
            threading.Thread(target=write, args=(event,)) for event in (connected, message) * 2
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(30)
        assert not wrong
    finally:
        sys.setswitchinterval(interval)


def test_waiting_takes_nothing_and_sees_the_end() -> None:
    reader: Reader[int] = Reader("the reader")
    woken: queue.Queue[int] = queue.Queue()

    def wait() -> None:
        for _ in range(2):
            reader.wait()
            woken.put(len(reader))
            if len(reader):
                reader.get_nowait()

    thread = threading.Thread(target=wait)
    thread.start()
    reader.put(1)
    assert woken.get(timeout=20) == 1
    reader.end()
    assert woken.get(timeout=20) == 0
    thread.join(20)
    assert not thread.is_alive()


def test_the_arguments_of_a_queue_are_told_what_to_do_instead() -> None:
    reader: Any = Reader("inbox")
    for use in (lambda: reader.get(block=True), lambda: reader.get(block=False, timeout=20)):
        with pytest.raises(TypeError, match=r"no argument 'block': .* get_nowait\(\) not at all"):
            use()
    for args in ((True, 5), (1, None), (False, 0, 0)):
        with pytest.raises(TypeError, match=r"get\(\) takes one argument, its timeout .*nowait"):
            reader.get(*args)
    for value in (True, False):
        with pytest.raises(ValueError, match=r"timeout must be .* bool: .*get_nowait\(\)"):
            reader.get(value)


def test_who_sleeps_last_is_woken_first() -> None:
    """It may be in a signal handler that has interrupted the one before."""
    inbox = reader()
    got: queue.Queue[tuple[str, int]] = queue.Queue()
    for name in ("first", "second"):
        threading.Thread(
            target=lambda name=name: got.put((name, inbox.get(timeout=20))), daemon=True
        ).start()
        wait_until(lambda name=name: len(inbox._sleepers) == ("first", "second").index(name) + 1)
    inbox.put(1)
    assert got.get(timeout=20) == ("second", 1)
    inbox.put(2)
    assert got.get(timeout=20) == ("first", 2)


def test_the_second_close_wakes_those_whom_the_first_could_not() -> None:
    inbox = reader()
    ended: queue.Queue[str] = queue.Queue()

    def read() -> None:
        with pytest.raises(ClosedError):
            inbox.get(timeout=10)
        ended.put("woken")

    threading.Thread(target=read, daemon=True).start()
    wait_until(lambda: inbox._sleepers)
    inbox._ended = True  # as if Ctrl-C had come right after this
    inbox.close()
    assert ended.get(timeout=20) == "woken"
