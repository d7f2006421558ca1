"""Hold each interval to the value that the protocols and the guides state."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

from metered_sync import SignallingClient
from metered_sync.wire.timings import DEFAULT_TIMINGS

STATED: dict[str, Any] = {
    "welcome": 10.0,
    "open": 15.0,
    "close": 2.0,
    "farewell": 0.25,
    "ping_fraction": 1 / 3,
    "ping_floor": 1.0,
    "overdue": 3.0,
    "slow_floor": 30.0,
    "replay_retry": 2.0,
    "going_away_default": 1.0,
    "going_away_max": 300.0,
    "reconcile": 10.0,
    "limbo": 10.0,
    "limbo_closed": 0.4,
    "room_limbo": 10.0,
    "room_ask": 3.0,
    "room_search": 60.0,
    "room_spread": 0.5,
    "room_speech": 0.5,
    "early": 5.0,
    "server_ping": 30.0,
    "expiry_margin": 0.25,
    "attempt_window": 60.0,
    "first_offer": 0.8,
    "courtesy": 0.3,
    "answer": 2.5,
    "answer_max": 30.0,
    "crossing": 0.5,
    "media_connect": 15.0,
    "media_closed": 0.5,
    "path_silence": 2.0,
    "path_probe": 2.0,
    "ladder": (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0),
    "track_return": 2.0,
    "last_frames": 0.5,
    "names": 0.5,
    "stun_silence": 12.0,
    "offer_pending": 10.0,
    "first_packet_hold": 2.0,
    "renack": 0.04,
    "renack_give_up": 0.6,
    "pli_throttle": 0.3,
    "report": 1.0,
    "source_silence": 1.0,
    "lost": 0.05,
    "gather": 5.0,
    "watch": 1.0,
    "quiet": 2.0,
    "dead": 5.0,
    "quiet_max": 10.0,
    "attempt": 15.0,
    "recover_delay": 0.25,
    "recover_delay_max": 10.0,
    "recover_budget": 120.0,
    "search": 30.0,
    "settle": 5.0,
    "request_interval": 0.05,
    "poll": 0.1,
    "poll_max": 1.0,
}


@pytest.mark.parametrize(("name", "value"), STATED.items())
def test_an_interval_is_as_stated(name: str, value: Any) -> None:
    assert getattr(DEFAULT_TIMINGS, name) == value


def test_every_interval_is_stated() -> None:
    assert set(STATED) == {field.name for field in dataclasses.fields(DEFAULT_TIMINGS)}


def test_a_signature_is_not_drowned_in_intervals() -> None:
    assert repr(DEFAULT_TIMINGS) == "Timings()"
    assert repr(dataclasses.replace(DEFAULT_TIMINGS, open=1, dead=2)) == "Timings(open=1, dead=2)"
    assert len(str(inspect.signature(SignallingClient))) < 1000


def test_intervals_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEFAULT_TIMINGS.open = 1.0  # type: ignore[misc]
