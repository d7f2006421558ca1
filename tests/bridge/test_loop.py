"""Test the engine, and calls that cross to it."""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
import time
import traceback
from typing import Any

import anyio
import pytest

from metered_sync import ClosedError, EngineError, MeteredTimeoutError, WrongThreadError
from metered_sync.bridge import loop
from metered_sync.bridge.crossing import Crossing
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.link import Link
from metered_sync.bridge.loop import Engine
from tests.conftest import wait_until


@pytest.fixture
def engine() -> Any:
    engine = Engine("engine under test").start()
    yield engine
    if engine.error is None:
        engine.post(engine.stop)
    engine.join(Deadline(5))
    assert not engine._thread.is_alive()


def call(engine: Engine, function: Any, *args: Any, timeout: float = 20) -> Any:
    return engine.call(function, *args, deadline=Deadline(timeout), what="the call")


def test_results_and_errors_come_back(engine: Engine) -> None:
    async def double(x: int) -> int:
        await anyio.sleep(0)
        return 2 * x

    async def fail() -> None:
        raise LookupError("inner")

    assert call(engine, double, 4) == 8
    with pytest.raises(LookupError, match="inner"):
        call(engine, fail)


def test_a_deadline_cancels_the_work(engine: Engine) -> None:
    cancelled = threading.Event()

    async def work() -> None:
        try:
            await anyio.sleep(60)
        finally:
            cancelled.set()

    started = time.monotonic()
    with pytest.raises(MeteredTimeoutError, match=r"the call: not finished within 0\.05 s"):
        call(engine, work, timeout=0.05)
    assert time.monotonic() - started < 10
    assert cancelled.wait(5)


def test_a_deadline_of_zero_cancels_before_the_start(engine: Engine) -> None:
    async def work() -> None:
        await anyio.sleep(60)

    for _ in range(50):
        with pytest.raises(MeteredTimeoutError):
            call(engine, work, timeout=0)

    async def tasks() -> int:
        await anyio.sleep(0.05)
        return len(asyncio.all_tasks())

    assert call(engine, tasks) == 2  # the engine's own, and the one that counts


def test_a_clean_up_that_hangs_does_not_hold_the_caller(engine: Engine) -> None:
    returned = threading.Event()
    overdue: list[bool] = []

    async def stubborn() -> None:
        try:
            await anyio.sleep(60)
        finally:
            with anyio.move_on_after(20, shield=True) as scope:
                while not returned.is_set():
                    await anyio.sleep(0.01)
            overdue.append(scope.cancel_called)

    with pytest.raises(MeteredTimeoutError):
        call(engine, stubborn, timeout=0.05)
    returned.set()
    wait_until(lambda: overdue, 20)
    assert overdue == [False]  # it was waited for a while, and then no more


def test_the_loop_may_be_busy_at_the_deadline(engine: Engine) -> None:
    async def nothing() -> None:
        pass

    returned = threading.Event()
    in_time: list[bool] = []
    engine.post(lambda: in_time.append(returned.wait(20)))
    with pytest.raises(MeteredTimeoutError):
        call(engine, nothing, timeout=0.1)
    returned.set()
    wait_until(lambda: in_time, 20)
    assert in_time == [True]  # it has not waited for the loop


def test_a_call_on_the_loop_thread_is_refused(engine: Engine) -> None:
    async def nothing() -> None:
        pass

    async def call_itself() -> None:
        call(engine, nothing)

    with pytest.raises(WrongThreadError, match="callback"):
        call(engine, call_itself)


class _Open(Link):
    label = "a test's link"

    def __init__(self) -> None:
        self.closed = 0
        self.error: BaseException | None = None

    async def aclose(self) -> None:
        self.closed += 1

    def abort(self, error: BaseException) -> None:
        self.error = error


def test_a_dead_loop_wakes_everybody_with_the_original_traceback(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    link = _Open()
    engine.post(engine.links.add, link)
    errors: list[BaseException] = []

    started = threading.Event()

    async def forever() -> None:
        started.set()
        await anyio.sleep_forever()

    def wait() -> None:
        try:
            call(engine, forever, timeout=30)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert started.wait(20)

    def fatal_mistake() -> None:
        raise SystemExit("the end")

    engine.post(fatal_mistake)
    thread.join(20)
    engine.join(Deadline(5))
    with pytest.raises(EngineError) as caught:
        call(engine, forever)
    for error in (*errors, link.error, caught.value):
        assert isinstance(error, EngineError)
        assert "fatal_mistake" in "".join(traceback.format_exception(error))
    assert len(errors) == 1


def test_a_failing_task_aborts_its_link_only(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    link, other = _Open(), _Open()
    done = threading.Event()

    async def fail() -> None:
        try:
            raise LookupError("inner")
        finally:
            done.set()

    engine.post(engine.spawn, link, fail)
    assert done.wait(20)

    async def nothing() -> None:
        await anyio.sleep(0)

    call(engine, nothing)
    assert isinstance(link.error, EngineError)
    assert isinstance(link.error.__cause__, LookupError)
    assert other.error is None
    assert "inner" in caplog.text


def test_what_somebody_else_has_cancelled_aborts_the_link_that_waited_for_it(
    engine: Engine,
) -> None:
    link = _Open()

    async def wait() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future  # (it is not this task that was cancelled)

    engine.post(engine.spawn, link, wait)

    async def nothing() -> None:
        await anyio.sleep(0)

    for _ in range(3):
        call(engine, nothing)
    assert isinstance(link.error, EngineError)
    with pytest.raises(EngineError, match="another one has cancelled"):
        call(engine, wait)
    call(engine, nothing)
    assert engine.error is None


def test_a_call_leaves_no_cycle_behind(engine: Engine) -> None:
    async def fail() -> None:
        raise LookupError

    gc.collect()
    gc.disable()
    try:
        before = len([o for o in gc.get_objects() if type(o) is Crossing])
        for _ in range(10):
            try:
                call(engine, fail)
            except LookupError:
                pass
        after = len([o for o in gc.get_objects() if type(o) is Crossing])
    finally:
        gc.enable()
    assert after <= before + 1


def test_an_engine_tells_its_thread_and_links(engine: Engine) -> None:
    assert repr(engine) == "<Engine on thread 'engine under test', 0 links open>"


def test_a_thread_that_cannot_start_or_does_not_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    late = Engine("late")

    def fail() -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(late._thread, "start", fail)
    with pytest.raises(EngineError, match="the interpreter is exiting"):
        late.start()
    slow = Engine("slow")
    monkeypatch.setattr(slow._thread, "start", lambda: None)
    monkeypatch.setattr(loop, "START_LIMIT", 0.05)
    with pytest.raises(EngineError, match=r"'slow' did not start within 0\.05 s; under uWSGI"):
        slow.start()


def test_a_link_that_cannot_be_aborted_keeps_no_other_from_being_woken(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    class Bad(_Open):
        label = "a bad link"

        def abort(self, error: BaseException) -> None:
            raise LookupError("inner")

    links = [Bad(), _Open(), Bad()]
    for link in links:
        engine.post(engine.links.add, link)
    engine.post(engine.stop)
    engine.join(Deadline(5))
    assert isinstance(links[1].error, EngineError)
    assert caplog.text.count("aborting a bad link failed") == 2


def test_what_is_posted_after_the_end_is_dropped(engine: Engine) -> None:
    engine.post(engine.stop)
    engine.join(Deadline(5))
    engine.post(print, "never")
    with pytest.raises(EngineError, match="has been stopped"):
        call(engine, anyio.sleep, 0)


def test_what_comes_while_the_loop_ends_is_told_so(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    link = _Open()

    def spawn_each_turn() -> None:
        engine.spawn(link, functools.partial(anyio.sleep, 0))
        engine._loop.call_soon(spawn_each_turn)

    engine.post(spawn_each_turn)
    engine.post(engine.stop)
    engine.join(Deadline(5))
    assert isinstance(link.error, EngineError)
    assert "has been stopped" in str(link.error)
    assert not caplog.records


class _Holder:
    """Hold an engine."""


def test_an_engine_ends_once_nothing_uses_it() -> None:
    engine = Engine("unused", look_every=0.02).start()
    link, holder = _Open(), _Holder()
    awake = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    def stays() -> None:
        time.sleep(0.2)  # ten looks, or as many as the machine has time for
        assert engine.error is None
        assert engine._thread.is_alive()

    async def wait() -> None:
        await anyio.sleep(0.2)

    async def begin() -> None:
        loops.append(asyncio.get_running_loop())
        engine.links.add(link)

    call(engine, begin)
    stays()
    engine.post(engine.spawn, link, awake.wait)
    engine.post(engine.links.discard, link)
    stays()  # a task is left
    assert engine.hold(holder)
    assert not engine.hold(holder)
    engine.post(awake.set)
    stays()
    engine.release(id(holder))
    call(engine, wait)
    assert engine.hold(holder)
    stays()
    del holder
    engine.join(Deadline(5))
    assert not engine._thread.is_alive()
    assert loops[0].is_closed()
    with pytest.raises(ClosedError, match="has ended with the last that was open"):
        call(engine, wait)


def test_an_engine_that_is_not_looked_at_stays(engine: Engine) -> None:
    time.sleep(0.1)
    assert engine.error is None
