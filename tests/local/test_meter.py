"""Test what is counted, and which limits of the plan hold."""

from __future__ import annotations

from dataclasses import replace

from metered_sync.local.meter import UsageMeter
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.conftest import wait_until


def meter(*, limits: bool = True, window: float = 60.0) -> UsageMeter:
    return UsageMeter(
        "app",
        max_connections=2,
        max_messages=3,
        limits=limits,
        timings=replace(DEFAULT_TIMINGS, attempt_window=window),
    )


def test_attempts_are_counted_by_address_in_a_sliding_window() -> None:
    counting = meter(window=0.5)
    for _ in range(30):
        assert counting.attempt("a")
    for _ in range(30):
        assert counting.attempt("a")
    assert not counting.attempt("a")
    assert counting.attempt("b")
    # What was refused does not count: whoever keeps trying gets in all the same.
    wait_until(lambda: counting.attempt("a"), 20)
    lifted = meter(limits=False)
    assert all(lifted.attempt("a") for _ in range(100))


def test_full_by_connections_and_by_messages() -> None:
    counting = meter()
    counting.connected()
    assert not counting.full
    counting.connected()
    assert counting.full
    counting.disconnected()
    assert [counting.message() for _ in range(4)] == [True, True, True, False]
    assert counting.full
    usage = counting.usage()
    assert (usage.concurrent_now, usage.peak_concurrent, usage.messages_used) == (1, 2, 4)
    assert (usage.overage_connections, usage.overage_messages) == (0, 0)


def test_without_limits_overages_are_counted_and_nothing_is_refused() -> None:
    counting = meter(limits=False)
    for _ in range(3):
        counting.connected()
    assert all(counting.message() for _ in range(5))
    assert not counting.full
    usage = counting.usage()
    assert (usage.overage_connections, usage.overage_messages) == (1, 2)
    assert usage.plan.overages_enabled
