"""Run live sources: opening with a deadline, and frames that are not taken."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from av import AudioFrame

from metered_sync import MediaError
from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.sending.feed import Feed
from metered_sync.media.opening import open_in_time
from metered_sync.media.sources.live import MAX_WAITING_FRAMES, LiveSource


class Container:
    """Something that is opened and closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


def test_it_returns_what_was_opened_or_raises_what_was_raised() -> None:
    container = Container()
    assert open_in_time(lambda: container, Deadline(10), "test") is container
    assert not container.closed.is_set()
    with pytest.raises(ZeroDivisionError):
        open_in_time(lambda: 1 // 0, Deadline(10), "test")


def test_what_opens_too_late_is_closed() -> None:
    container, go_on = Container(), threading.Event()

    def slow() -> Container:
        assert go_on.wait(20)
        return container

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        open_in_time(slow, Deadline(0.05), "test")
    assert time.monotonic() - began < 5
    go_on.set()
    assert container.closed.wait(20)


def live(produce: Callable[[Feed], None]) -> LiveSource:
    return LiveSource("test", ["audio"], produce)


def test_it_runs_from_the_start_and_cannot_be_wound_back() -> None:
    ran = threading.Event()

    def produce(feed: Feed) -> None:
        ran.set()

    with live(produce) as source:
        assert ran.wait(20)
        assert source.duration is None
        with pytest.raises(MediaError, match="test is live: there is nothing to seek in"):
            source.seek(0)


def test_the_oldest_frames_are_dropped_and_nobody_waits() -> None:
    left: list[float] = []

    def produce(feed: Feed) -> None:
        queue: Any = feed.queues["audio"]
        queue.wanted = True
        for number in range(100):
            frame = AudioFrame(format="s16", layout="stereo", samples=960)
            assert queue.put(frame, 1000.0 + number, float(number))
        left.extend(item.position for item in queue.items)

    live(produce).wait(timeout=20)
    count = MAX_WAITING_FRAMES["audio"]
    assert left == [float(number) for number in range(100 - count, 100)]
