"""Feed tracks by plain functions: pacing, bounds, waking, ending."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame

from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.sending import feed as tracks_module
from metered_sync.engine.sending.fed_track import FedTrack
from metered_sync.engine.sending.feed import Feed, FeedQueue
from metered_sync.errors import MediaError
from tests.conftest import run_script, wait_until


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be dropped because this machine is busy."""
    for bound in ("MAX_OVERDUE", "MAX_PRODUCER_LAG", "END_WAIT"):
        monkeypatch.setattr(tracks_module, bound, 60.0)


def frame(number: int) -> AudioFrame:
    made = AudioFrame("s16", "mono", 16)
    made.pts, made.time_base = number, Fraction(1, 1)
    return made


def counting(interval: float, count: float, *kinds: str) -> Callable[[Feed], None]:
    """Return a producer of numbered frames, of all kinds in turn."""

    def produce(feed: Feed) -> None:
        start = feed.take_seek()
        while start is not None:
            offset = feed.clock() - start
            for number in itertools.count(round(start / interval)):
                at = number * interval
                due = at + offset
                if number >= count:
                    if feed.finish(due, at):
                        return
                    break
                if not all(feed.queues[kind].put(frame(number), due, at) for kind in kinds):
                    break
            start = feed.take_seek()

    return produce


def make(
    produce: Callable[[Feed], None], size: int = 4, kinds: tuple[str, ...] = ("audio",)
) -> tuple[Feed, list[FedTrack]]:
    feed = Feed("test", produce)
    tracks = [FedTrack(FeedQueue(feed, kind, size), None) for kind in kinds]
    for track in tracks:
        track._queue.wanted = True
    return feed, tracks


async def consume(track: FedTrack, count: int = 10**9) -> list[tuple[int, float]]:
    """Return number and moment of the frames, up to the end of the track."""
    taken: list[tuple[int, float]] = []
    try:
        while len(taken) < count:
            received = await track.recv()
            assert received.pts is not None
            taken.append((received.pts, time.monotonic()))
    except MediaStreamError:
        pass
    return taken


def run(main: Any, timeout: float = 20.0) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(main, timeout)

    return asyncio.run(bounded())


def ended(feed: Feed) -> bool:
    return feed._thread is not None and not feed._thread.is_alive()


@pytest.mark.usefixtures("patient")
def test_frames_come_when_they_are_due_and_the_tracks_are_in_step() -> None:
    feed, tracks = make(counting(0.02, 20, "audio", "video"), kinds=("audio", "video"))

    async def main() -> list[list[tuple[int, float]]]:
        return await asyncio.gather(*(consume(track) for track in tracks))

    audio, video = run(main())
    assert [n for n, _ in audio] == [n for n, _ in video] == list(range(20))
    for taken in (audio, video):
        for number, moment in taken:
            early = feed._origin + number * 0.02 - moment
            assert -3.0 < early < 0.005
    assert feed.position == pytest.approx(0.4)
    assert feed.wait(Deadline(1))
    wait_until(lambda: ended(feed))


@pytest.mark.usefixtures("patient")
def test_nothing_starts_before_a_track_is_consumed() -> None:
    feed, [track] = make(counting(0.01, 3, "audio"))
    assert not feed.started
    assert not feed.wait(Deadline(0))
    assert len(run(consume(track))) == 3
    assert track.readyState == "ended"
    with pytest.raises(MediaStreamError):
        run(track.recv())


def test_a_track_that_nobody_consumes_holds_nothing_up() -> None:
    feed, tracks = make(counting(0.01, 100, "audio", "video"), kinds=("audio", "video"))
    sizes = []

    async def main() -> list[tuple[int, float]]:
        taken = []
        while True:
            some = await consume(tracks[0], 1)
            if not some:
                return taken
            taken += some
            sizes.append(len(tracks[1]._queue.items))

    taken = run(main())
    assert taken[-1][0] == 99
    assert taken[-1][1] - taken[0][1] < 0.99 + 6  # a queue that is full would cost 0.1 s a frame
    assert max(sizes) == 4
    assert tracks[1]._queue.handed == 0
    assert feed.wait(Deadline(5))
    assert tracks[1].readyState == "ended"


@pytest.mark.usefixtures("patient")
def test_a_track_that_is_not_wanted_gets_nothing() -> None:
    feed, tracks = make(counting(0.005, 20, "audio", "video"), kinds=("audio", "video"))
    tracks[1]._queue.wanted = False
    assert len(run(consume(tracks[0]))) == 20
    assert not tracks[1]._queue.items
    assert feed.wait(Deadline(5))


def test_a_consumer_that_pauses_gets_what_is_current() -> None:
    feed, [track] = make(counting(0.01, 10**9, "audio"))
    items = track._queue.items

    async def main() -> list[tuple[int, float]]:
        await consume(track, 3)
        deadline = time.monotonic() + 10
        while not items or items[0].position < 1.0:  # a loop that is held up
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return await consume(track, 20)

    taken = run(main())
    feed.stop()
    # At most what a queue holds comes at once; the rest is in time again.
    assert taken[0][0] >= 100
    number, moment = taken[-1]
    assert moment - feed._origin - number * 0.01 > -0.005


def test_a_producer_that_falls_behind_moves_its_timeline() -> None:
    dues: list[float] = []

    def produce(feed: Feed) -> None:
        assert feed.take_seek() == 0.0
        offset = 0.0
        for number in range(4):
            if number == 2:
                feed._origin -= 60  # as if this process had been stopped for a minute
            offset += feed.behind(number * 0.01 + offset)
            dues.append(number * 0.01 + offset)
            feed.queues["audio"].put(frame(number), dues[-1], 0.0)

    _, [track] = make(produce)
    run(consume(track))
    assert dues[:2] == [0.0, 0.01]
    assert 60 <= dues[2] < 65
    gap = dues[3] - dues[2]
    assert gap == pytest.approx(0.01) or gap > 1  # (this machine may stop for a second)


@pytest.mark.usefixtures("patient")
def test_seeking_drops_what_was_prepared_and_goes_on_at_once() -> None:
    feed, [track] = make(counting(0.01, 10**9, "audio"))
    feed.seek(0.5)
    assert feed.position == 0.5

    async def main() -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
        before = await consume(track, 20)
        feed.seek(0.1)
        return before, await consume(track, 2)

    before, after = run(main())
    feed.stop()
    assert [n for n, _ in before] == list(range(50, 70))
    assert [n for n, _ in after] == [10, 11]


def test_stop_from_another_thread_wakes_the_consumer_and_the_producer() -> None:
    feed, [track] = make(counting(60.0, 10**9, "audio"))  # the second frame is due in a minute

    async def main() -> float:
        await track.recv()
        stopper = threading.Timer(0.05, feed.stop)
        stopper.start()
        with pytest.raises(MediaStreamError):
            await track.recv()
        return time.monotonic()

    run(main())
    assert track.readyState == "ended"
    assert feed.wait(Deadline(0))
    wait_until(lambda: ended(feed))
    feed.stop()


def test_the_last_track_that_stops_ends_the_feed() -> None:
    feed, tracks = make(counting(0.01, 10**9, "audio", "video"), kinds=("audio", "video"))
    events: list[str] = []
    tracks[0].on("ended", lambda: events.append("audio"))

    async def main() -> None:
        await asyncio.gather(*(consume(track, 2) for track in tracks))
        tracks[0].stop()
        assert tracks[0].readyState == "ended"
        assert len(await consume(tracks[1], 20)) == 20
        assert not feed.stopped
        tracks[1].stop()

    run(main())
    assert events == ["audio"]
    assert feed.stopped
    wait_until(lambda: ended(feed))


@pytest.mark.usefixtures("patient")
def test_a_cancelled_recv_loses_no_frame() -> None:
    _, [track] = make(counting(0.02, 30, "audio"))

    async def main() -> list[int]:
        numbers = []
        while True:
            receiving = asyncio.ensure_future(track.recv())
            done, _ = await asyncio.wait([receiving], timeout=0.003)
            if not done:
                receiving.cancel()
                await asyncio.wait([receiving])
            if receiving.cancelled():
                continue
            if receiving.exception() is not None:
                return numbers
            numbers.append(receiving.result().pts)

    assert run(main()) == list(range(30))
    assert not track._queue._waiters


@pytest.mark.usefixtures("patient")
def test_two_consumers_of_one_track_share_its_frames() -> None:
    _, [track] = make(counting(0.005, 40, "audio"))

    async def main() -> list[list[tuple[int, float]]]:
        return await asyncio.gather(consume(track), consume(track))

    first, second = run(main())
    assert sorted(n for n, _ in first + second) == list(range(40))


@pytest.mark.usefixtures("patient")
def test_a_frame_costs_one_wake_up_at_most() -> None:
    woken = []

    def produce(feed: Feed) -> None:  # always late: the queue is empty when a frame comes
        feed.take_seek()
        for number in range(50):
            wait_until(lambda: feed.queues["audio"]._waiters)
            feed.queues["audio"].put(frame(number), 0.0, 0.0)
        feed.finish(0.0, 0.0)

    feed, [track] = make(produce)

    async def main() -> int:
        loop = asyncio.get_running_loop()
        original = loop.call_soon_threadsafe

        def counted(*args: Any, **kwargs: Any) -> Any:
            woken.append(args)
            return original(*args, **kwargs)

        loop.call_soon_threadsafe = counted  # type: ignore[method-assign]
        return len(await consume(track))

    assert run(main()) == 50
    assert 0 < len(woken) <= 51
    wait_until(lambda: ended(feed))


@pytest.mark.parametrize("error", [MediaError("the disk is gone"), ValueError("odd")])
def test_an_error_of_the_producer_ends_the_tracks_and_is_kept(error: Exception) -> None:
    def produce(feed: Feed) -> None:
        raise error

    feed, [track] = make(produce)
    assert run(consume(track)) == []
    assert feed.wait(Deadline(5))
    assert isinstance(feed.error, MediaError)
    assert str(error) in str(feed.error)


def test_abandoning_takes_no_lock() -> None:
    feed, [track] = make(counting(60.0, 10**9, "audio"), size=1)
    run(consume(track, 1))
    with feed.lock:
        feed.abandon()
    wait_until(lambda: ended(feed))
    assert run(consume(track)) == []


def test_a_consumer_whose_loop_has_died_is_no_trouble() -> None:
    gate = threading.Event()

    def produce(feed: Feed) -> None:
        gate.wait(20)
        counting(0.01, 10**9, "audio")(feed)

    feed, [track] = make(produce, size=2)
    loop = asyncio.new_event_loop()
    task = loop.create_task(track.recv())
    loop.run_until_complete(asyncio.sleep(0))
    waiters = set(track._queue._waiters)
    loop.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    assert waiters
    gate.set()
    assert len(run(consume(track, 3))) == 3
    feed.stop()
    wait_until(lambda: ended(feed))
    del task, waiters
    gc.collect()


def test_a_forked_child_gets_an_error() -> None:
    result = run_script(
        """
import asyncio, os, warnings
warnings.simplefilter("ignore", DeprecationWarning)    # Python 3.12 warns of every such fork
from metered_sync.errors import ForkedError
from metered_sync.testing import ToneSource

source = ToneSource()
track = source.audio
asyncio.run(track.recv())
with source._feed.lock:
    child = os.fork()
if child == 0:
    source._feed.lock.acquire(blocking=False)
    for call in (source.stop, source.wait, lambda: asyncio.run(track.recv())):
        try:
            call()
        except ForkedError:
            print("refused")
    track.stop()
    print(track.readyState, flush=True)
    os._exit(0)
os.waitpid(child, 0)
source.stop()
"""
    )
    assert (result.stdout, result.stderr) == ("refused\nrefused\nrefused\nended\n", "")


def test_sources_may_begin_while_the_exit_stops_the_others() -> None:
    done = run_script(
        """
import sys, threading
from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.sending import feed

def begin():
    while not over.is_set():
        feed.Feed("a source", None)

sys.setswitchinterval(1e-6)
there = [feed.Feed("a source", None) for _ in range(1000)]
over = threading.Event()
threads = [threading.Thread(target=begin) for _ in range(3)]
for thread in threads:
    thread.start()
try:
    for _ in range(50):
        feed._stop_all(Deadline(0))
    print("stopped")
finally:
    over.set()
    for thread in threads:
        thread.join()
"""
    )
    assert (done.stdout, done.stderr) == ("stopped\n", "")
