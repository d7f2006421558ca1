"""Rule 5: callbacks may call anything. (And parts of rule 3: any thread.)"""

from __future__ import annotations

import contextvars
import logging
import queue
import threading
import time
from typing import Any

import pytest

from metered_sync import ClosedError, Message, SignallingClient, StateChange, WrongThreadError
from metered_sync.local import LocalCloud
from tests.conftest import wait_until

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture
def pair(shared_cloud: LocalCloud) -> Any:
    options = {**shared_cloud.client_options(), "rate_limit": None}
    with SignallingClient(**options) as alice, SignallingClient(**options) as bob:
        yield alice, bob


def test_a_thousand_publishes_from_inside_the_message_callback(pair: Any) -> None:
    alice, bob = pair
    done = threading.Event()
    alice.subscribe("ping")
    bob.subscribe("pong")

    def answer(message: Message) -> None:
        alice.publish("pong", message.data, timeout=10)

    def again(message: Message) -> None:
        if message.data < 1000:
            bob.publish("ping", message.data + 1, timeout=10)
        else:
            done.set()

    alice.on(Message, answer)
    bob.on(Message, again)
    bob.publish("ping", 0)
    assert done.wait(60)


def test_what_a_callback_raises_is_logged_once_and_stops_nothing(
    pair: Any, caplog: pytest.LogCaptureFixture
) -> None:
    alice, bob = pair
    seen: queue.Queue[Any] = queue.Queue()
    told: queue.Queue[Any] = queue.Queue()
    alice.subscribe("bad")
    alice.on_error = lambda event, error: told.put((event.data, error))

    def bad(message: Message) -> None:
        seen.put(message.data)
        if message.data == 1:
            raise LookupError("in the callback")

    alice.on(Message, bad)
    for number in (1, 2):
        bob.publish("bad", number)
    assert [seen.get(timeout=20), seen.get(timeout=20)] == [1, 2]
    data, error = told.get(timeout=20)
    assert data == 1
    assert isinstance(error, LookupError)
    records = [r for r in caplog.records if r.exc_info and r.exc_info[1] is error]
    assert len(records) == 1
    assert records[0].levelno == logging.ERROR
    assert "in the callback" in caplog.text


def test_on_error_may_raise_too(pair: Any, caplog: pytest.LogCaptureFixture) -> None:
    alice, bob = pair
    seen: queue.Queue[int] = queue.Queue()
    alice.subscribe("worse")

    def fail(*_: Any) -> None:
        raise LookupError("again")

    alice.on_error = fail

    def bad(message: Message) -> None:
        seen.put(message.data)
        raise SystemExit(3) if message.data == 1 else KeyError

    alice.on(Message, bad)
    for number in range(3):
        bob.publish("worse", number)
    assert [seen.get(timeout=20) for _ in range(3)] == [0, 1, 2]
    wait_until(lambda: "on_error, told of a callback of SignallingClient" in caplog.text)


def test_a_callback_may_close_its_own_client(shared_cloud: LocalCloud) -> None:
    for _ in range(10):
        with SignallingClient(**shared_cloud.client_options()) as alice:
            closed = threading.Event()

            @alice.on(Message)
            def close(message: Message, alice: Any = alice, closed: Any = closed) -> None:
                alice.close()
                closed.set()

            alice.subscribe("close-me")
            with SignallingClient(**shared_cloud.client_options()) as bob:
                bob.publish("close-me", 1)
            assert closed.wait(20)
            assert alice.state == "closed"


def test_a_callback_may_register_and_remove(pair: Any) -> None:
    alice, bob = pair
    seen: queue.Queue[tuple[str, int]] = queue.Queue()
    alice.subscribe("change")

    def second(message: Message) -> None:
        seen.put(("second", message.data))

    def first(message: Message) -> None:
        seen.put(("first", message.data))
        alice.on(Message, second)
        alice.off(Message, first)

    alice.on(Message, first)
    bob.publish("change", 1)
    assert seen.get(timeout=20) == ("first", 1)
    bob.publish("change", 2)
    assert seen.get(timeout=20) == ("second", 2)
    assert seen.empty()


def test_no_lock_is_held_while_a_callback_runs(pair: Any) -> None:
    alice, bob = pair
    inside, leave = threading.Event(), threading.Event()
    alice.subscribe("lock")

    @alice.on(Message)
    def block(message: Message) -> None:
        inside.set()
        leave.wait(20)

    bob.publish("lock", 1)
    assert inside.wait(20)
    try:
        started = time.monotonic()
        # Everything else goes on, from another thread.
        alice.publish("lock", 2)
        alice.on(StateChange, print)
        alice.off(StateChange, print)
        alice.subscribe("more").close()
        alice.unsubscribe("lock")
        assert alice.state == "connected"
        with alice.events(Message):
            pass
        assert time.monotonic() - started < 15
    finally:
        leave.set()


def test_callbacks_of_one_client_run_one_at_a_time_on_one_thread(pair: Any) -> None:
    alice, bob = pair
    alice.subscribe("one")
    running, threads = 0, set()
    overlaps = 0
    done = threading.Event()

    def slow(message: Message) -> None:
        nonlocal running, overlaps
        running += 1
        overlaps += running > 1
        threads.add(threading.current_thread().name)
        time.sleep(0.001)
        running -= 1
        if message.data == 99:
            done.set()

    alice.on(Message, slow)
    for number in range(100):
        bob.publish("one", number)
    assert done.wait(20)
    assert overlaps == 0
    (name,) = threads
    assert "callbacks" in name


def test_context_variables_of_the_registering_code_are_visible(pair: Any) -> None:
    alice, bob = pair
    seen: queue.Queue[str] = queue.Queue()
    alice.subscribe("context")
    token = variable.set("registered")
    alice.on(Message, lambda _: seen.put(variable.get()))
    variable.reset(token)
    bob.publish("context", 1)
    assert seen.get(timeout=20) == "registered"


def test_a_call_on_the_loop_thread_is_told_the_remedy(pair: Any) -> None:
    alice, _ = pair
    errors: queue.Queue[BaseException] = queue.Queue()
    inbox = alice.subscribe("wrong")

    def on_the_loop() -> None:
        for call in (
            lambda: alice.publish("wrong", 1),
            lambda: alice.subscribe("wrong-too"),
            lambda: alice.unsubscribe("wrong"),
            inbox.get,
            alice.close,
            lambda: alice.wait_for(Message),
        ):
            try:
                call()
            except BaseException as error:
                errors.put(error)

    alice._engine.post(on_the_loop)
    for _ in range(6):
        error = errors.get(timeout=20)
        assert isinstance(error, WrongThreadError)
        assert "callback" in str(error)
    assert alice.state == "connected"


def test_32_threads_lose_nothing_double_nothing_and_keep_their_order(pair: Any) -> None:
    alice, bob = pair
    inbox = alice.subscribe("threads", maxsize=100_000)
    errors: list[BaseException] = []

    def publish(thread: int) -> None:
        try:
            for number in range(50):
                bob.publish("threads", [thread, number], timeout=60)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=publish, args=(n,)) for n in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert not errors
    got = [inbox.get(timeout=20).data for _ in range(32 * 50)]
    assert len(inbox) == 0
    for thread in range(32):
        assert [number for t, number in got if t == thread] == list(range(50))


def test_connecting_subscribing_and_closing_from_many_threads_at_once(
    shared_cloud: LocalCloud,
) -> None:
    for _ in range(5):
        client = SignallingClient(**shared_cloud.client_options(), rate_limit=None)
        errors: list[BaseException] = []

        def use(number: int, client: Any = client, errors: Any = errors) -> None:
            try:
                client.connect()
                client.subscribe(f"channel-{number % 4}")
                client.publish(f"channel-{number % 4}", number)
                if number % 8 == 7:
                    client.close()
            except ClosedError:
                pass
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=use, args=(n,)) for n in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        client.close()
        assert not errors


def test_what_is_freed_with_a_callback_may_remove_others(pair: Any) -> None:
    alice, _ = pair

    class Callback:
        """A callback that cleans up when it is let go."""

        def __call__(self, event: object) -> None:
            pass

        def __del__(self) -> None:
            alice.off(Message, print)
            freed.append(threading.get_ident())

    freed: list[int] = []
    for let_go in (
        lambda: alice.off(Message),
        lambda: alice.close(),  # and here it is the loop's thread that frees it
    ):
        alice.on(Message, Callback())
        thread = threading.Thread(target=let_go, daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
        alice.on_error = None
    wait_until(lambda: len(freed) == 2)
