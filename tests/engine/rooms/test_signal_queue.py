"""Keep a peer's signals within bounds, and tell of what was dropped without flooding a log."""

from __future__ import annotations

import logging

import pytest

from metered_sync.engine.rooms.signal_queue import MAX_SIGNALS, SignalQueue
from metered_sync.wire.signals import EndOfCandidates


def test_a_flood_is_dropped_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    queue = SignalQueue("a peer")
    with caplog.at_level(logging.WARNING, "metered_sync"):
        for _ in range(MAX_SIGNALS + 5000):
            queue.put(EndOfCandidates(None))
    assert len(queue) == MAX_SIGNALS
    assert [record.getMessage() for record in caplog.records] == [
        "a peer: too many signals at once: 1 dropped since the last such warning"
    ]
    assert queue._dropped == 4999
    caplog.clear()
    queue._told_at -= 60  # a minute later
    queue.put(EndOfCandidates(None))
    assert [record.args for record in caplog.records] == [("a peer", 5000)]
