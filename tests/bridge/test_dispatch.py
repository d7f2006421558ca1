"""Test the threads that run users' functions."""

from __future__ import annotations

import contextvars
import gc
import logging
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from metered_sync.bridge import dispatch
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.dispatch import Callback, Dispatcher
from metered_sync.bridge.reader import Reader
from metered_sync.errors import DisconnectedError, EngineError
from tests.conftest import run_script, wait_until

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class Calls:
    """A dispatcher that calls one function, or several, for each item."""

    def __init__(self, *functions: Callable[[Any], object], maxsize: int = 100) -> None:
        self.callbacks = [Callback(function) for function in functions]
        self.on_error: Any = None
        self.inbox: Reader[Any] = Reader("the inbox", maxsize=maxsize)
        self.dispatcher = Dispatcher("the object", self.inbox, self.due, lambda: self.on_error)
        self.dispatcher.start()

    def due(self, item: Any) -> Iterator[tuple[Callback, Any]]:
        for callback in self.callbacks:
            yield callback, item


@pytest.fixture
def calls() -> Iterator[Callable[..., Calls]]:
    made: list[Calls] = []

    def make(*functions: Callable[[Any], object], maxsize: int = 100) -> Calls:
        made.append(Calls(*functions, maxsize=maxsize))
        return made[-1]

    yield make
    for one in made:
        one.inbox.end()
        one.dispatcher.join(Deadline(10))


def test_functions_run_in_order_on_one_daemon_thread(calls: Any) -> None:
    seen: queue.Queue[Any] = queue.Queue()

    def note(name: str) -> Callable[[int], None]:
        return lambda item: seen.put((name, item, threading.current_thread()))

    one = calls(note("a"), note("b"))
    for number in range(3):
        one.inbox.put(number)
    got = [seen.get(timeout=20) for _ in range(6)]
    assert [entry[:2] for entry in got] == [(name, n) for n in range(3) for name in "ab"]
    (thread,) = {entry[2] for entry in got}
    assert thread.daemon
    assert thread.name == "metered-sync-callbacks (the object)"
    assert repr(one.dispatcher).startswith("<Dispatcher of the object: ")


def test_the_thread_ends_when_the_inbox_has_ended_and_is_empty(calls: Any) -> None:
    seen: list[int] = []
    go = threading.Event()
    one = calls(lambda item: (go.wait(10), seen.append(item)))
    for number in range(3):
        one.inbox.put(number)
    one.inbox.end(DisconnectedError("for good"))
    assert one.dispatcher.unfinished
    go.set()
    one.dispatcher.join(Deadline(10))
    assert seen == [0, 1, 2]
    assert not one.dispatcher.unfinished


def test_an_inbox_of_one_holds_the_newest(calls: Any) -> None:
    seen: queue.Queue[int] = queue.Queue()
    go = threading.Event()
    one = calls(lambda item: (seen.put(item), go.wait(10)), maxsize=1)
    one.inbox.put(0)
    assert seen.get(timeout=20) == 0
    for number in range(1, 10):
        one.inbox.put(number)
    go.set()
    assert seen.get(timeout=20) == 9
    assert one.inbox.dropped == 8


def test_the_functions_see_the_context_of_their_registration(calls: Any) -> None:
    seen: queue.Queue[str] = queue.Queue()
    token = variable.set("registered")
    one = calls(lambda _: seen.put(variable.get()))
    variable.reset(token)
    one.inbox.put(1)
    assert seen.get(timeout=20) == "registered"


def test_what_a_function_raises_is_logged_and_told_and_stops_nothing(
    calls: Any, caplog: pytest.LogCaptureFixture
) -> None:
    told: queue.Queue[Any] = queue.Queue()

    def fail(item: int) -> None:
        raise KeyboardInterrupt if item == 2 else LookupError(item)

    one = calls(fail)
    one.on_error = lambda item, error: told.put((item, error))
    for number in (1, 2):
        one.inbox.put(number)
    assert told.get(timeout=20)[0] == 1
    item, error = told.get(timeout=20)
    assert (item, type(error)) == (2, KeyboardInterrupt)
    assert caplog.text.count("a callback of the object for int raised an exception") == 2
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2


def test_on_error_may_raise_and_sys_exit_ends_the_function_only(
    calls: Any, caplog: pytest.LogCaptureFixture
) -> None:
    seen: queue.Queue[int] = queue.Queue()

    def fail(item: int) -> None:
        seen.put(item)
        raise SystemExit(3) if item == 1 else LookupError

    def fail_again(*_: Any) -> None:
        raise LookupError("again")

    one = calls(fail)
    one.on_error = fail_again
    for number in (1, 2, 3):
        one.inbox.put(number)
    assert [seen.get(timeout=20) for _ in range(3)] == [1, 2, 3]
    wait_until(lambda: caplog.text.count("on_error, told of a callback of the object") == 2)


def test_nothing_is_kept_alive_between_two_items(calls: Any) -> None:
    class Item:
        pass

    one = calls(lambda _: None)
    item = Item()
    ref = weakref.ref(item)
    one.inbox.put(item)
    del item
    wait_until(lambda: gc.collect() is not None and ref() is None)


def test_what_is_not_callable_is_refused() -> None:
    with pytest.raises(TypeError, match="must be callable, not int"):
        Callback(3)  # type: ignore[arg-type]


def test_one_that_comes_after_another_waits_for_its_end(calls: Any) -> None:
    seen: queue.Queue[str] = queue.Queue()
    entered, go = threading.Event(), threading.Event()
    first = calls(lambda item: (entered.set(), go.wait(10), seen.put("first")))
    inbox: Reader[int] = Reader("the next inbox")
    callback = Callback(lambda item: seen.put("second"))
    second = Dispatcher("the object", inbox, lambda item: [(callback, item)])
    first.inbox.put(1)
    assert entered.wait(20)
    first.inbox.end()
    inbox.put(2)
    second.start(after=first.dispatcher)
    assert not second.join(Deadline(0.05))
    go.set()
    assert [seen.get(timeout=20) for _ in range(2)] == ["first", "second"]
    inbox.end()
    assert second.join(Deadline(10))


def test_one_that_cannot_start_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    inbox: Reader[int] = Reader("the inbox")
    one = Dispatcher("the object", inbox, lambda item: ())

    def fail() -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(one._thread, "start", fail)
    with pytest.raises(EngineError, match="new thread"):
        one.start()
    assert one not in dispatch._running


EXIT = """
import sys, threading, time
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.dispatch import Callback, Dispatcher
from metered_sync.bridge.reader import Reader

def dispatcher(label, function):
    callback = Callback(function)
    inbox = Reader(label)
    one = Dispatcher(label, inbox, lambda item: [(callback, item)])
    one.start()
    return inbox

def tell(item):
    sys.stdout.write(f"{item}\\n")     # as one: threads print side by side
    sys.stdout.flush()
"""


def test_callbacks_that_are_queued_run_before_the_interpreter_exits() -> None:
    done = run_script(
        EXIT
        + """
def slow(item):
    time.sleep(0.01)
    tell(item)
open_, ended, idle = (dispatcher(name, slow) for name in ("open", "ended", "idle"))
for number in range(20):
    open_.put(number)
    ended.put(number)
ended.end()
"""
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.split(), key=int) == [str(n) for n in range(20) for _ in range(2)]


def test_a_queue_of_slow_callbacks_does_not_hold_the_exit_and_is_named_once() -> None:
    done = run_script(
        EXIT
        + """
import atexit
def hang(item):
    running.set()
    time.sleep(60)
running = threading.Event()
client, track = dispatcher("a client", hang), dispatcher("a track", tell)
for number in range(3):
    client.put(number)
assert running.wait(20)
begun = time.monotonic()
atexit.register(lambda: print(f"{time.monotonic() - begun:.1f}", flush=True))
"""
    )
    assert done.returncode == 0
    assert 1.5 < float(done.stdout) < 3  # (the first run of the exit, not the second)
    assert done.stderr == (
        "the interpreter exits before all callbacks have run: a client: hang runs, 2 queued\n"
    )
