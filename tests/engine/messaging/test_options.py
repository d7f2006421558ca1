from __future__ import annotations

import math

import pytest

from metered_sync.engine.messaging.options import ReconnectOptions, SignallingOptions
from metered_sync.wire.limits import CLOSE_SUSPENDED, CLOSE_TOKEN_EXPIRED


def test_delays_double_up_to_the_longest() -> None:
    backoff = ReconnectOptions(initial_delay=0.5, multiplier=2.0, max_delay=3.0, jitter_ratio=0.0)
    assert [backoff.delay(attempt) for attempt in (1, 2, 3, 4, 5000)] == [0.5, 1.0, 2.0, 3.0, 3.0]


@pytest.mark.parametrize("multiplier", [1e6, 10**9, math.inf])
def test_a_delay_too_large_to_compute_is_the_longest(multiplier: float) -> None:
    backoff = ReconnectOptions(multiplier=multiplier, max_delay=7.0, jitter_ratio=0.0)
    assert backoff.delay(100) == 7.0
    assert ReconnectOptions(initial_delay=0.0, multiplier=1e6, jitter_ratio=0.0).delay(100) == 0.0


def test_jitter_goes_both_ways() -> None:
    backoff = ReconnectOptions(initial_delay=10.0, jitter_ratio=0.2)
    delays = [backoff.delay(1) for _ in range(200)]
    assert 8 <= min(delays) < 9.5
    assert 10.5 < max(delays) <= 12


def test_clients_that_were_sent_away_at_once_do_not_come_back_at_once() -> None:
    backoff = ReconnectOptions()
    delays = [backoff.delay(1, floor=30.0) for _ in range(100)]
    assert 30 <= min(delays) < max(delays) <= 36
    assert max(delays) - min(delays) > 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("initial_delay", -1),
        ("multiplier", 0.5),
        ("max_delay", math.nan),
        ("jitter_ratio", 1.5),
        ("max_attempts", True),
        ("max_attempts", "3"),
    ],
)
def test_values_that_cannot_be_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        ReconnectOptions(**{name: value})  # type: ignore[arg-type]


def test_which_ends_are_final() -> None:
    fixed = SignallingOptions("wss://x", renewable=False)
    renewed = SignallingOptions("wss://x")
    for code in (CLOSE_TOKEN_EXPIRED, 401, 403):
        assert fixed.why_final(code) is not None
        assert renewed.why_final(code) is None
    assert "suspended" in str(renewed.why_final(CLOSE_SUSPENDED))
    assert fixed.why_final(1006) is None


def test_no_key_is_shown() -> None:
    assert "pk_live_x" not in repr(SignallingOptions("wss://x", api_key="pk_live_x"))
