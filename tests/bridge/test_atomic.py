"""Test values that are replaced without a lock."""

from __future__ import annotations

import gc
import threading

import pytest

from metered_sync.bridge.atomic import Atomic, WeakAtomic


class Thing:
    """An object that can be held weakly."""


def test_no_change_is_lost_between_threads() -> None:
    numbers: Atomic[tuple[int, ...]] = Atomic(())

    def add(first: int) -> None:
        for number in range(first, first + 300):
            numbers.swap(lambda there, number=number: (*there, number))  # type: ignore[misc]

    threads = [threading.Thread(target=add, args=(1000 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(numbers.value) == len(set(numbers.value)) == 1200


def test_a_change_within_a_change_is_not_lost() -> None:
    value: Atomic[tuple[str, ...]] = Atomic(())
    calls = []

    def change(there: tuple[str, ...]) -> tuple[str, ...]:
        calls.append(there)
        if len(calls) == 1:  # as a signal handler would
            value.swap(lambda now: (*now, "inner"))
        return (*there, "outer")

    assert value.swap(change) == ("inner",)
    assert value.value == ("inner", "outer")
    assert calls == [(), ("inner",)]


def test_an_error_leaves_the_value_as_it_was() -> None:
    value = Atomic(1)
    with pytest.raises(ZeroDivisionError):
        value.swap(lambda there: there // 0)
    assert value.value == 1


def test_there_is_one_object_while_somebody_holds_it() -> None:
    weak: WeakAtomic[Thing] = WeakAtomic()
    assert weak() is None
    first = weak.get(Thing)
    assert weak.get(Thing) is first is weak()
    del first
    gc.collect()
    assert weak() is None


def test_the_object_that_was_made_first_counts() -> None:
    weak: WeakAtomic[Thing] = WeakAtomic()
    first: list[Thing] = []

    def make() -> Thing:
        first.append(weak.get(Thing))  # as another thread would, or a signal handler
        return Thing()

    assert weak.get(make) is first[0]
