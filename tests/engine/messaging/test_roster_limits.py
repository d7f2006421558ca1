"""Test the bounds of what the list of a channel's members holds."""

from __future__ import annotations

from typing import Any

import pytest

from metered_sync.engine.messaging import roster_limits
from metered_sync.engine.messaging.roster_limits import (
    ENTRY,
    MAX_MEMBER_METADATA,
    MAX_ROSTER,
    RosterLimits,
)
from metered_sync.wire.events import PresencePeer


def peer(name: str, size: int | None = None) -> PresencePeer:
    """Return a member with metadata of so many bytes."""
    return PresencePeer(name, None if size is None else {"x": "y" * (size - len('{"x":""}'))})


def test_metadata_that_are_too_large_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    limits = RosterLimits("room 'a'")
    fits = peer("ann", MAX_MEMBER_METADATA)
    assert limits.admit(fits) == fits
    for name in ("bob", "cis"):
        assert limits.admit(peer(name, MAX_MEMBER_METADATA + 1)) == PresencePeer(name, None)
    assert caplog.text.count("room 'a': metadata of a member are larger than 16384 bytes") == 1


def test_all_members_together_have_a_limit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(roster_limits, "MAX_ROSTER", 3 * (ENTRY + 1 + 100))
    limits = RosterLimits("room 'a'")
    for _ in range(2):  # one that comes again counts once
        assert all(limits.admit(peer(name, 100)) for name in "abc")
    assert limits.admit(peer("d")) is None
    assert limits.admit(peer("e" * 1000)) is None
    limits.forget("b")
    limits.forget("b")
    limits.forget("nobody")
    assert limits.admit(peer("d", 100)) is not None
    assert limits.admit(peer("b")) is None
    limits.clear()
    assert all(limits.admit(peer(name, 100)) for name in "xyz")
    assert caplog.text.count("left out") == 1


def test_a_large_channel_fits() -> None:
    limits = RosterLimits("channel 'a'")
    names = [f"member-{number}" for number in range(50_000)]
    assert all(limits.admit(PresencePeer(name)) for name in names)
    assert MAX_ROSTER == 4 << 20


def test_metadata_of_all_kinds_are_measured() -> None:
    limits = RosterLimits("channel 'a'")
    values: tuple[Any, ...] = (
        {},
        {"ü": "ü" * 10},
        {"lone": "\ud800"},
        {"deep": [[[{"a": None}]]]},
        {"n": 1.5},
    )
    for number, metadata in enumerate(values):
        admitted = limits.admit(PresencePeer(str(number), metadata))
        assert admitted is not None
        assert admitted.metadata == metadata
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert limits.admit(PresencePeer("deep", {"x": deep})) == PresencePeer("deep", None)
    while deep:  # (freed as it is, it would take as many frames of the stack)
        deep = deep[0]
