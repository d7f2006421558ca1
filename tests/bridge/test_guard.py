"""Test the checks before a blocking call."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import types
import warnings
from collections.abc import Iterator

import pytest

import metered_sync.local
import metered_sync.peer
import metered_sync.testing  # noqa: F401 - their classes are looked at
from metered_sync.bridge import guard
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.guard import LiveObject
from metered_sync.errors import ForkedError, MeteredTimeoutError, WrongThreadError
from tests.support.interrupted import interrupted


@pytest.fixture(autouse=True)
def unwarned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the next wait on a foreign loop the first of the process."""
    monkeypatch.setattr(guard, "_warned", False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_an_object_of_this_process_may_be_used() -> None:
    guard.check_process(guard.generation(), "the object")
    guard.check_blocking(guard.generation(), "the object")


def test_an_object_of_a_parent_process_is_refused() -> None:
    for check in (guard.check_process, guard.check_blocking):
        with pytest.raises(ForkedError, match=r"the object was opened before os\.fork\(\)"):
            check(guard.generation() - 1, "the object")


def test_a_wait_on_an_event_loop_thread_of_ours_is_refused() -> None:
    me = threading.get_ident()
    guard.engine_threads.add(me)
    try:
        guard.check_process(guard.generation(), "the object")  # this one waits for nothing
        with pytest.raises(WrongThreadError, match=r"the object: .* from a callback"):
            guard.check_blocking(guard.generation(), "the object")
    finally:
        guard.engine_threads.discard(me)


def test_a_wait_on_a_foreign_loop_is_warned_of_once_at_the_caller() -> None:
    async def main() -> None:
        with pytest.warns(RuntimeWarning, match=r"the object: .* asyncio\.to_thread") as caught:
            guard.check_blocking(guard.generation(), "the object")
        assert caught[0].filename == __file__
        guard.check_blocking(guard.generation(), "the object")

    asyncio.run(main())


def test_a_loop_that_is_paused_in_another_greenlet_is_not_held_up() -> None:
    greenlet = pytest.importorskip("greenlet")
    loop, here = asyncio.new_event_loop(), greenlet.getcurrent()

    def run() -> None:
        loop.call_soon(here.switch)  # as Playwright does, when one of its calls has its answer
        loop.call_later(0, loop.stop)
        loop.run_forever()
        loop.close()

    runner = greenlet.greenlet(run)
    runner.switch()
    assert asyncio.get_running_loop() is loop
    guard.check_blocking(guard.generation(), "the object")
    runner.switch()
    assert loop.is_closed()


@pytest.mark.parametrize("interactive", [True, False])
def test_a_wait_in_a_notebook_cell_is_what_is_meant(
    monkeypatch: pytest.MonkeyPatch, interactive: bool
) -> None:
    module = types.ModuleType("IPython")
    module.get_ipython = lambda: object() if interactive else None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", module)

    async def main() -> bool:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            guard.check_blocking(guard.generation(), "the object")
        return bool(caught)

    assert asyncio.run(main()) is not interactive


def test_what_is_half_built_can_be_shown() -> None:
    kinds = [LiveObject]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert len(kinds) > 20
    for kind in kinds:
        if kind.__module__.startswith("metered_sync."):  # (not those of tests)
            assert kind.__name__ in repr(object.__new__(kind))


def test_a_wait_is_refused_while_this_thread_holds_a_lock_that_the_loop_takes() -> None:
    lock = guard.reentrant_lock()
    guard.check_blocking(guard.generation(), "a call")
    with lock:
        with pytest.raises(WrongThreadError, match="a call: a blocking call in a signal handler"):
            guard.check_blocking(guard.generation(), "a call")
        others: list[str] = []
        thread = threading.Thread(
            target=lambda: others.append(str(guard.check_blocking(guard.generation(), "a call")))
        )
        thread.start()
        thread.join(20)
        assert others == ["None"]
    guard.check_blocking(guard.generation(), "a call")
    del lock
    gc.collect()
    guard.check_blocking(guard.generation(), "a call")


def test_ctrl_c_at_each_moment_of_a_call_lets_others_in() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    calls, at = guard.CallLock(), 0
    while True:
        try:
            with interrupted(at, interrupt) as interruption, calls.held(Deadline(5), "first"):
                pass
        except KeyboardInterrupt:
            pass
        with calls.held(Deadline(0), f"after Ctrl-C at {at}"):
            pass
        if not interruption.done:
            break
        at += 1
    assert 3 < at < 50


def test_calls_that_wait_go_one_at_a_time_and_never_within_each_other() -> None:
    calls = guard.CallLock()
    with calls.held(Deadline(1), "the first"):
        with (
            pytest.raises(WrongThreadError, match="the second: a signal handler"),
            calls.held(Deadline(1), "the second"),
        ):
            pass
        errors: list[BaseException] = []

        def other() -> None:
            try:
                with calls.held(Deadline(0.01), "another"):
                    pass
            except MeteredTimeoutError as error:
                errors.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(20)
        assert "another: another thread's call did not end within 0.01 s" in str(errors[0])
    with calls.held(Deadline(0), "the third"):
        pass
