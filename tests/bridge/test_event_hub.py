"""Test an object's events on their way to queues and callbacks."""

from __future__ import annotations

import gc
import queue
import threading
import weakref
from typing import Any

import pytest

from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.event_hub import EventHub, Registration
from metered_sync.errors import ClosedError, DisconnectedError, MeteredTimeoutError
from metered_sync.wire.events import Event, Message, StateChange
from tests.conftest import wait_until


@pytest.fixture
def hub() -> Any:
    hub = EventHub("the object")
    yield hub
    hub.end()


def change(new: str) -> StateChange:
    return StateChange("idle", new)


class Owner:
    """The object whose events these are."""


def test_an_ended_hub_keeps_no_callback_alive(hub: EventHub) -> None:
    owner = Owner()
    seen: list[Event] = []

    def callback(event: Event) -> None:
        seen.append(event)

    gone = weakref.ref(callback)
    hub.add(Registration(StateChange, callback, False), owner)
    hub.emit(change("last"))
    hub.end()
    wait_until(lambda: seen)  # what was emitted before is still handed over
    del callback

    def collected() -> bool:
        gc.collect()
        return gone() is None

    wait_until(collected)


def test_a_queue_gets_the_classes_that_it_asked_for(hub: EventHub) -> None:
    with hub.queue((StateChange,)) as some, hub.queue(()) as everything:
        hub.emit(change("a"))
        hub.emit(Event())
        assert some.get(timeout=20) == change("a")
        assert len(some) == 0
        assert len(everything) == 2
        assert "events of the object (StateChange)" in repr(some)
        assert "events of the object (all)" in repr(everything)


def test_each_queue_and_callback_has_an_event_of_its_own(hub: EventHub) -> None:
    queues = [hub.queue((Message,)) for _ in range(2)]
    seen: queue.Queue[Message] = queue.Queue()

    def change(event: Message) -> None:
        event.data["who"].append("a callback")
        seen.put(event)

    def change_too(event: Message) -> None:
        change(event)

    hub.add(Registration(Message, change, once=False), None)
    hub.add(Registration(Message, change_too, once=False), None)
    message = Message("c", "b", {"who": []}, {"of": ["b"]})
    assert hub.wants(message)
    assert not hub.wants(StateChange("idle", "connecting"))
    hub.emit(message)
    for _ in range(2):
        assert seen.get(timeout=20).data == {"who": ["a callback"]}
    for one in queues:
        event = one.get_nowait()
        assert event == Message("c", "b", {"who": []}, {"of": ["b"]})
        event.data["who"].append("a queue")
        assert event.sender_metadata is not None
        event.sender_metadata["of"].clear()
    hub.end()


def test_the_only_queue_gets_the_event_itself(hub: EventHub) -> None:
    events = hub.queue((Message,))
    hub.queue((Message,))  # (collected at once)
    hub.queue((StateChange,))
    message = Message("c", "b", [[]])
    hub.emit(message)
    assert events.get_nowait() is message


def test_what_is_no_class_of_events_is_refused(hub: EventHub) -> None:
    for bad in (int, "Message", change("a")):
        with pytest.raises(TypeError, match="is not a class of events"):
            hub.queue((bad,))  # type: ignore[arg-type]


def test_a_queue_that_is_forgotten_or_closed_is_left_out(hub: EventHub) -> None:
    closed = hub.queue(())
    closed.close()
    forgotten = hub.queue(())
    del forgotten
    gc.collect()
    hub.emit(change("a"))
    assert len(closed) == 0
    left = hub.queue(())
    assert [ref() for ref in hub._listeners.value.queues] == [left]


def test_callbacks_get_what_comes_after_their_registration(hub: EventHub) -> None:
    seen: queue.Queue[Any] = queue.Queue()
    hub.emit(change("before"))
    hub.add(Registration(StateChange, seen.put, once=False), Owner())
    hub.add(Registration(Message, seen.put, once=False), Owner())
    hub.emit(change("after"))
    assert seen.get(timeout=20) == change("after")
    assert seen.empty()


def test_a_callback_for_one_event_gets_one_though_more_are_queued(hub: EventHub) -> None:
    seen: queue.Queue[Any] = queue.Queue()
    hold = threading.Event()
    hub.add(Registration(StateChange, lambda _: hold.wait(10), once=False), Owner())
    hub.add(Registration(StateChange, seen.put, once=True), Owner())
    for name in "abc":
        hub.emit(change(name))
    hold.set()
    assert seen.get(timeout=20) == change("a")
    wait_until(lambda: len(hub._listeners.value.registrations) == 1)
    done = threading.Event()
    hub.deferred(lambda _: done.set())(None)  # comes after all that is queued
    assert done.wait(20)
    assert seen.empty()


def test_a_removed_callback_is_not_called_for_what_is_queued(hub: EventHub) -> None:
    seen: queue.Queue[Any] = queue.Queue()
    inside, hold = threading.Event(), threading.Event()

    def block(_: Event) -> None:
        inside.set()
        hold.wait(10)

    hub.add(Registration(StateChange, block, once=False), Owner())
    hub.add(Registration(StateChange, seen.put, once=False), Owner())
    hub.emit(change("a"))
    assert inside.wait(20)
    hub.remove(Message, None)
    hub.remove(StateChange, seen.put)
    assert hub.has_callback(StateChange)
    hub.remove(StateChange, None)
    assert not hub.has_callback(StateChange)
    hold.set()
    dispatcher = hub._listeners.value.dispatcher
    assert dispatcher is not None
    hub.end()
    dispatcher.join(Deadline(10))
    assert seen.empty()


def test_comparing_a_function_holds_no_lock(hub: EventHub) -> None:
    class Equal:
        """A callable that asks the hub for something when it is compared."""

        def __call__(self, event: Event) -> None:
            pass

        def __eq__(self, other: object) -> bool:
            hub.queue(()).close()
            return True

        __hash__ = None  # type: ignore[assignment]

    hub.add(Registration(StateChange, print, once=False), Owner())
    remover = threading.Thread(target=hub.remove, args=(StateChange, Equal()), daemon=True)
    remover.start()
    remover.join(20)
    assert not remover.is_alive()
    assert not hub.has_callback(StateChange)


def test_an_owner_with_callbacks_is_kept_and_let_go_without_the_lock(hub: EventHub) -> None:
    class Asking(Owner):
        def __del__(self) -> None:
            hub.queue(()).close()

    for let_go in (lambda: hub.remove(StateChange, None), hub.end):
        owner = Asking()
        ref = weakref.ref(owner)
        hub.add(Registration(StateChange, print, once=False), owner)
        del owner
        gc.collect()
        assert ref() is not None
        thread = threading.Thread(target=let_go, daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
        gc.collect()
        assert ref() is None


def test_slow_callbacks_drop_messages_and_never_lifecycle_events(hub: EventHub) -> None:
    assert hub.dropped == 0
    hold = threading.Event()
    states: list[Any] = []
    hub.add(Registration(StateChange, lambda event: hold.wait(10), once=True), Owner())
    hub.emit(change("first"))
    hub.add(Registration(StateChange, states.append, once=False), Owner())
    hub.add(Registration(Message, lambda _: None, once=False), Owner())
    message = Message("x", "sender", 1)
    for _ in range(5000):
        hub.emit(message)
    hub.emit(change("last"))
    hold.set()
    wait_until(lambda: states == [change("last")])
    assert hub.dropped >= 5000 - 4096


def test_the_end_reaches_queues_callbacks_and_what_comes_later(hub: EventHub) -> None:
    seen: queue.Queue[Any] = queue.Queue()
    waiting = hub.queue(())
    hub.add(Registration(StateChange, seen.put, once=False), Owner())
    hub.emit(change("last"))
    hub.end(DisconnectedError("for good"))
    assert seen.get(timeout=20) == change("last")
    assert waiting.get(timeout=20) == change("last")
    for one in (waiting, hub.queue(())):
        with pytest.raises(DisconnectedError, match="for good"):
            one.get(timeout=20)
    with pytest.raises(DisconnectedError, match="for good"):
        hub.add(Registration(StateChange, seen.put, once=False), Owner())
    other = EventHub("another")
    other.end()
    with pytest.raises(ClosedError, match="another is closed"):
        other.add(Registration(StateChange, seen.put, once=False), Owner())


def test_a_deferred_call_runs_on_the_dispatcher_or_here_after_the_end(hub: EventHub) -> None:
    seen: queue.Queue[Any] = queue.Queue()

    def note(argument: int) -> None:
        seen.put((argument, threading.current_thread()))

    post = hub.deferred(note)
    post(1)
    argument, thread = seen.get(timeout=20)
    assert argument == 1
    assert "callbacks" in thread.name
    hub.end()
    post(2)
    hub.deferred(note)(3)
    assert [seen.get_nowait() for _ in range(2)] == [
        (number, threading.current_thread()) for number in (2, 3)
    ]


def test_a_full_queue_tells_what_was_dropped(hub: EventHub) -> None:
    with hub.queue((Event,), maxsize=2) as events:
        for number in range(5):
            hub.emit(Message("x", "sender", number))
        assert events.dropped == 3
        with pytest.raises(MeteredTimeoutError):
            for _ in range(3):
                events.get(timeout=0)
