"""Test what happens to events that nobody reads."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from metered_sync import (
    Connected,
    DataChannelOpened,
    Event,
    GoingAway,
    Message,
    NegotiationError,
    PeerJoined,
    PeerLeft,
    RemotePeer,
)
from metered_sync.bridge.event_hub import EventHub, EventQueue, Registration
from metered_sync.bridge.event_reader import CEILING, MAX_HELD
from metered_sync.events import OBJECT_SIZE
from metered_sync.wire.events import sized
from tests.conftest import wait_until


def queue(**options: Any) -> EventQueue:
    return EventQueue("events of a test", (Event,), **options)


def drained(events: EventQueue) -> list[Event]:
    events.end()
    return list(events)


def member(name: str) -> RemotePeer:
    return cast(RemotePeer, SimpleNamespace(id=name))


def message(size: int, number: int = 0) -> Message:
    return sized(Message("c", "p", number), size)


def test_lifecycle_events_stay_up_to_the_ceiling(caplog: pytest.LogCaptureFixture) -> None:
    events = queue(maxsize=10)
    for number in range(10 * CEILING):
        events.put(GoingAway(number))
    assert (len(events), events.dropped, caplog.text) == (10 * CEILING, 0, "")


def test_beyond_it_the_newest_of_each_kind_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    events = queue(maxsize=10)
    events.put(Connected("p", 0, None, False, 1))
    for number in range(6000):
        events.put(GoingAway(number))
    assert len(events) <= 10 * CEILING
    assert len(events) + events.dropped == 6001
    kept = drained(events)
    assert sum(isinstance(one, Connected) for one in kept) == 1
    numbers = [one.retry_after_ms for one in kept if isinstance(one, GoingAway)]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 5999
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "events of a test: 100 lifecycle events" in record.message


def test_who_joins_and_leaves_all_the_time_leaves_the_others_news_alone() -> None:
    """Coming and going count as one kind: the newest says whether a member is there."""
    events = queue(maxsize=10)
    events.put(PeerJoined(member("a")))
    events.put(PeerJoined(member("b")))
    events.put(PeerLeft(member("b")))
    for _ in range(5000):
        events.put(PeerJoined(member("mallory")))
        events.put(PeerLeft(member("mallory")))
    assert len(events) <= 10 * CEILING
    newest = {event.peer.id: event for event in drained(events) if hasattr(event, "peer")}
    assert {name: type(event) for name, event in newest.items()} == {
        "a": PeerJoined,
        "b": PeerLeft,
        "mallory": PeerLeft,
    }


def test_members_without_end_are_bounded_too() -> None:
    events = queue(maxsize=10)
    for number in range(5000):
        events.put(PeerJoined(member(str(number))))
    assert len(events) <= 10 * CEILING
    assert [event.peer.id for event in drained(events) if hasattr(event, "peer")][-1] == "4999"


def test_messages_go_before_lifecycle_events_do() -> None:
    events = queue(maxsize=10)
    for number in range(10 * CEILING + 50):
        events.put(Message("c", "p", number))
        if number < 10 * CEILING - 1:
            events.put(GoingAway(number))
    kept = drained(events)
    assert len(kept) == 10 * CEILING - 1
    assert all(isinstance(one, GoingAway) for one in kept)


def test_a_reader_is_never_told_of_an_end_while_events_are_coalesced() -> None:
    events = queue(maxsize=1)
    seen: list[int] = []

    def read() -> None:
        for event in events:
            assert isinstance(event, GoingAway)
            seen.append(event.retry_after_ms)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(20_000):
        events.put(GoingAway(number))
    events.end()
    reader.join(20)
    assert not reader.is_alive()
    assert seen == sorted(seen)
    assert seen[-1] == 19_999
    assert len(seen) + events.dropped == 20_000


def test_callbacks_that_hang_cost_bounded_memory_too(caplog: pytest.LogCaptureFixture) -> None:
    hub = EventHub("a test")
    going = threading.Event()
    told: list[Event] = []

    def slow(event: Event) -> None:
        going.wait(10)
        told.append(event)

    hub.add(Registration(Event, slow, False), None)
    for number in range(60_000):
        hub.emit(NegotiationError(ValueError(number)))
    dispatcher = hub._listeners.value.dispatcher
    assert dispatcher is not None
    assert len(dispatcher.inbox) <= 4096 * CEILING
    assert hub.dropped > 60_000 - 4096 * CEILING - 2
    going.set()
    wait_until(lambda: len(told) + hub.dropped == 60_000, 20)
    assert str(cast(NegotiationError, told[-1]).err) == "59999"
    assert sum("lifecycle events" in record.message for record in caplog.records) == 1
    hub.end()


def test_functions_of_calls_are_run_whatever_waits() -> None:
    """A ``Delivery``'s callbacks are no events: none is dropped, and they cost nothing extra."""
    hub = EventHub("a test")
    going = threading.Event()
    count = [0]

    def done(_: Any) -> None:
        going.wait(10)
        count[0] += 1

    post = hub.deferred(done)
    for number in range(4096 * CEILING + 5000):
        post(number)
    going.set()
    wait_until(lambda: count[0] == 4096 * CEILING + 5000, 20)
    hub.end()


# --- bytes ---


def test_bytes_are_bounded_too() -> None:
    oldest = queue(max_bytes=1000)
    newest = queue(max_bytes=1000, overflow="drop_newest")
    for number in range(30):
        oldest.put(message(100, number))
        newest.put(message(100, number))
    assert (oldest.dropped, newest.dropped) == (20, 20)
    assert [cast(Message, one).data for one in drained(oldest)] == list(range(20, 30))
    assert [cast(Message, one).data for one in drained(newest)] == list(range(10))


def test_what_is_read_makes_room() -> None:
    events = queue(max_bytes=1000)
    for number in range(100):
        events.put(message(600, number))
        assert cast(Message, events.get(timeout=20)).data == number
    assert events.dropped == 0


def test_a_message_that_is_larger_than_all_that_may_wait_waits_alone() -> None:
    events = queue(max_bytes=1000)
    events.put(message(10))
    events.put(message(5000, 1))
    assert (len(events), events.dropped) == (1, 1)
    events.put(GoingAway(1))
    events.put(message(10, 2))
    assert [type(one) for one in drained(events)] == [GoingAway, Message]


def test_lifecycle_events_have_no_size() -> None:
    events = queue(max_bytes=10)
    events.put(message(10))
    for number in range(50):
        events.put(GoingAway(number))
    assert (len(events), events.dropped) == (51, 0)


def test_events_that_keep_objects_alive_are_fewer(caplog: pytest.LogCaptureFixture) -> None:
    events = queue()
    opened = [DataChannelOpened(cast(Any, object())) for _ in range(10_000)]
    for one in opened:
        events.put(one)
    assert len(events) < (events._max_bytes + MAX_HELD) // OBJECT_SIZE
    assert len(events) + events.dropped == 10_000
    assert caplog.text.count("lifecycle events wait to be read") == 1
    assert drained(events)[-1] is opened[-1]


def test_what_coalescing_leaves_is_bounded_in_bytes() -> None:
    events = queue()
    started = time.thread_time()
    for number in range(30_000):  # of as many members, so that none makes another obsolete
        events.put(PeerJoined(member(str(number))))
    assert time.thread_time() - started < 5
    assert len(events) < (events._max_bytes + MAX_HELD) // OBJECT_SIZE
    assert drained(events)[-1] == PeerJoined(member("29999"))
