"""Test deadlines, waiting by them, and latches."""

from __future__ import annotations

import math
import threading
import time
from fractions import Fraction
from typing import Any

import pytest

from metered_sync.bridge import deadline as deadline_module
from metered_sync.bridge.deadline import Deadline, Latch, Turnover, wait


@pytest.mark.parametrize("bad", [-1, -0.001, math.nan, True, False])
def test_what_is_no_number_of_seconds(bad: Any) -> None:
    with pytest.raises(ValueError, match="timeout"):
        Deadline(bad)


@pytest.mark.parametrize("bad", ["1", [], None])
def test_what_is_no_number(bad: Any) -> None:
    with pytest.raises(TypeError, match="timeout"):
        Deadline(bad)


@pytest.mark.parametrize("more", [10**400, Fraction(10**400)])
def test_what_no_float_can_hold_is_for_ever(more: Any) -> None:
    assert Deadline(more).timeout == math.inf
    with pytest.raises(ValueError, match="must not be negative"):
        Deadline(-more)


def test_none_is_the_default() -> None:
    assert Deadline.of(None, 3).timeout == 3
    assert Deadline.of(2, 3).timeout == 2
    assert Deadline.of(None).left() == math.inf


def test_time_runs_out() -> None:
    deadline = Deadline(0.05)
    assert 0 < deadline.left() <= 0.05
    assert not wait(_locked(), deadline)
    assert deadline.left() == 0
    assert str(deadline) == "0.05 s"


def test_an_infinite_wait_ends_when_the_lock_is_released() -> None:
    lock = _locked()
    threading.Timer(0.05, lock.release).start()
    assert wait(lock, Deadline(math.inf))


def test_a_signal_wakes_everybody_once_and_for_all() -> None:
    signal = Latch()
    assert not signal.wait(Deadline(0.01))
    woken: list[bool] = []
    threads = [
        threading.Thread(target=lambda: woken.append(signal.wait(Deadline(10)))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    setters = [threading.Thread(target=signal.set) for _ in range(20)]
    for thread in setters:
        thread.start()
    for thread in threads + setters:
        thread.join(20)
    assert woken == [True] * 20
    started = time.monotonic()
    assert signal.wait(Deadline(10))
    assert time.monotonic() - started < 5


def _locked() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


def test_a_wait_in_slices_ends_in_time_and_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline_module, "WAIT_SLICE", 0.001)
    assert not wait(_locked(), Deadline(0.02))
    lock = _locked()
    threading.Timer(0.05, lock.release).start()
    assert wait(lock, Deadline(10))


def test_what_is_left_is_shown() -> None:
    assert repr(Deadline(0)) == "Deadline(0.000 of 0.0 s left)"


def test_setting_a_latch_twice_at_once_is_no_mistake() -> None:
    latch = Latch()
    latch._lock.release()  # as if another thread had been between the two steps of set()
    latch.set()
    assert latch.wait(Deadline(0))


def test_a_change_wakes_who_looked_before_it() -> None:
    changes = Turnover()
    changes.tell()
    before = changes.next()
    assert not before.wait(Deadline(0))
    assert changes.next() is before
    changes.tell()
    changes.tell()
    assert before.wait(Deadline(0))
    assert not changes.next().wait(Deadline(0))
