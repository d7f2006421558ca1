"""Push sound and pictures, and take them when they are due."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from av import VideoFrame

from metered_sync.engine.sending import feed as feed_module
from metered_sync.engine.sending.feed import Feed
from metered_sync.engine.sending.pushed import PushedPictureQueue, PushedSoundQueue

FRAME = 960 * 4


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that a test moves."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(feed_module, "monotonic", lambda: clock.now)
    return clock


def take(queue: Any) -> Any:
    """Return the next frame, which is due now."""
    taking: Coroutine[Any, Any, Any] = queue.take()

    async def at_once() -> Any:
        return await asyncio.wait_for(taking, 20)

    return asyncio.run(at_once())


def samples(frame: Any) -> bytes:
    return bytes(frame.planes[0])[:FRAME]


def sound_queue() -> PushedSoundQueue:
    return PushedSoundQueue(Feed("sound", None), "audio", 10 * FRAME)


def picture_queue() -> PushedPictureQueue:
    queue = PushedPictureQueue(Feed("pictures", None), "video", 1)
    queue.feed.begin()  # as a source does with its first picture
    return queue


def grey(value: int = 0) -> VideoFrame:
    frame = VideoFrame(16, 16, "yuv420p")
    for plane in frame.planes:
        plane.update(bytes([value]) * plane.buffer_size)
    return frame


def test_sound_is_handed_out_in_pieces_and_then_there_is_silence(clock: SimpleNamespace) -> None:
    queue = sound_queue()
    queue.add(b"\x01" * FRAME + b"\x02" * 100)
    assert queue.room == 9 * FRAME - 100
    pieces = []
    for _ in range(3):
        pieces.append(take(queue))
        clock.now += 0.02
    assert samples(pieces[0]) == b"\x01" * FRAME
    assert samples(pieces[1]) == b"\x02" * 100 + bytes(FRAME - 100)
    assert samples(pieces[2]) == bytes(FRAME)
    assert [piece.pts for piece in pieces] == [0, 960, 1920]


def test_a_piece_that_is_only_begun_waits_for_its_rest(clock: SimpleNamespace) -> None:
    queue = sound_queue()
    take(queue)
    clock.now += 0.02
    queue.add(b"\x01" * 100)
    assert samples(take(queue)) == bytes(FRAME)  # the rest is on its way: no gap within
    clock.now += 0.02
    queue.add(b"\x01" * (FRAME - 100))
    assert samples(take(queue)) == b"\x01" * FRAME


def test_sound_that_nobody_takes_goes_by(clock: SimpleNamespace) -> None:
    queue = sound_queue()
    queue.add(b"\x01" * FRAME)
    take(queue)
    queue.add(b"\x02" * FRAME * 200)
    clock.now += 2.02
    with queue.feed.lock:
        queue.pass_time()
    assert len(queue.sound) / FRAME in (100, 101)
    assert queue.latest == bytes(FRAME)


def test_clearing_leaves_silence(clock: SimpleNamespace) -> None:
    queue = sound_queue()
    queue.add(b"\x01" * FRAME * 3)
    with queue.feed.lock:
        queue.clear()
    assert queue.room == 10 * FRAME
    assert samples(take(queue)) == bytes(FRAME)


def test_sound_ends_with_its_last_piece(clock: SimpleNamespace) -> None:
    queue = sound_queue()
    queue.add(b"\x01" * (FRAME + 4))
    with queue.feed.lock:
        queue.end()
    assert not queue.closed
    take(queue)
    clock.now += 0.02
    assert samples(take(queue))[:8] == b"\x01" * 4 + bytes(4)
    assert queue.closed
    assert take(queue) is None
    queue.add(b"\x01" * FRAME)
    assert not queue.sound


def test_the_newest_picture_is_handed_out_and_shown_again(clock: SimpleNamespace) -> None:
    queue = picture_queue()
    assert queue._due_in() == math.inf
    queue.show(grey(1), 0.0)
    queue.show(grey(2), 0.0)
    assert queue.dropped == 1
    first = take(queue)
    assert bytes(first.planes[0])[0] == 2
    assert queue._due_in() == pytest.approx(0.25, abs=0.01)
    clock.now += 0.25
    again = take(queue)
    assert again is not first  # whoever took it may still be using it
    assert bytes(again.planes[0])[0] == 2
    assert again.time - first.time == pytest.approx(0.25, abs=0.01)


def test_pictures_rise_in_time_whatever_callers_say(clock: SimpleNamespace) -> None:
    queue = picture_queue()
    stamps = []
    for due in (5.0, 5.0, 1.0, 6.0):
        queue.show(grey(), due)
        stamps.append(take(queue).pts)
    assert stamps == sorted(set(stamps))


def test_a_picture_that_nobody_takes_becomes_old(clock: SimpleNamespace) -> None:
    queue = picture_queue()
    queue.show(grey(), 0.0)
    take(queue)
    queue.show(grey(), 0.1)
    clock.now += 2
    with queue.feed.lock:
        queue.pass_time()
    assert queue.dropped == 1
    assert queue._newest is not None  # to be shown again


def test_pictures_end_when_the_last_one_was_taken(clock: SimpleNamespace) -> None:
    queue = picture_queue()
    queue.show(grey(), 0.0)
    with queue.feed.lock:
        queue.end()
    assert take(queue) is not None
    assert queue.closed
    queue.show(grey(), 1.0)
    assert take(queue) is None
