"""Feed frames from a thread, for tracks to consume on the event loop.

The frames of one source pass through one :class:`Feed`. Its *producer*, a
function that runs on a daemon thread of its own, puts frames into a
:class:`FeedQueue` per kind, each with the moment at which it is due, in seconds on
the feed's clock. That clock starts with the first frame of any queue, so queues
of one feed stay in step. A :class:`~metered_sync.engine.sending.fed_track.FedTrack`
is what aiortc consumes: it hands each frame out when it is due.

**Bounds.** A queue holds a few frames and the producer waits while it is full.
What nobody takes goes overdue; when the queue is full such frames are dropped,
so a track that is not consumed, or too slowly, holds up neither the producer
nor the other track. A producer that falls far behind (a stopped process, a
decoder too slow for its film) is told to move its timeline
(:meth:`Feed.behind`), so that nothing is played at double speed to catch up.

**Locks.** One lock per feed guards its queues and its state. It is held
for a few operations only, on the loop too. Signal handlers and finalizers may take it in the
middle of these, to push, to stop or to ask: whoever holds it bears that something is there or
gone after each call. A producer looks up every ``PRODUCER_POLL`` seconds at least.

Where there is no producer, queues of another class hold what callers push; see
:mod:`metered_sync.engine.sending.pushed`.

**Wake-ups.** A consumer of a queue that holds frames sleeps until the first one
is due. Only a consumer of an empty queue is woken across threads, by one call.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from av import AudioFrame, Packet, VideoFrame

from metered_sync.bridge import guard, process
from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.deadline import WAIT_SLICE, Deadline
from metered_sync.bridge.threads import start_thread
from metered_sync.errors import EngineError, MediaError

__all__ = [
    "PRODUCER_POLL",
    "DueFrame",
    "Feed",
    "FeedQueue",
    "Frame",
]

if TYPE_CHECKING:  # (not a generic class in all versions)
    Frame = AudioFrame | VideoFrame | Packet[Any]
else:
    Frame = AudioFrame | VideoFrame | Packet
logger = logging.getLogger("metered_sync")

TIMER_RESOLUTION = 0.001
"""Seconds before its due time at which a frame may leave: timers are no finer."""
MAX_OVERDUE = 0.1
"""Seconds by which a frame in a full queue may be overdue before it is dropped, at least."""
MAX_PRODUCER_LAG = 1.0
"""Seconds by which a producer may be behind before its timeline is moved."""
END_WAIT = 0.5
"""Seconds after its end for which a source waits for consumers that are late."""
PRODUCER_POLL = 0.5
"""Seconds after which a waiting producer looks again whether its source was abandoned."""


class DueFrame(NamedTuple):
    """A frame, and the moment at which it is to be handed out."""

    due: float
    """Seconds on the feed's clock."""
    position: float
    """Seconds in the source's own time, to tell where playing has come to."""
    frame: Frame | None
    """The frame; ``None`` ends the queue."""


class Feed:
    """The clock, the lock and the producer that the tracks of one source share."""

    def __init__(self, label: str, produce: Callable[[Feed], None] | None) -> None:
        """Prepare; the thread starts when a track is first consumed.

        ``produce`` must not hold the source, or that would never be collected. ``None``:
        there is no such thread, for callers push.
        """
        self.label = label
        self.born = guard.generation()
        self.queues: dict[str, FeedQueue] = {}
        self.lock = guard.reentrant_lock()
        self.moved = threading.Condition(self.lock)  # the producer waits here
        self.finished = threading.Condition(self.lock)  # and wait() of a source here
        self.started = False
        self.interrupted = False
        """Whether the producer must break off: the feed was stopped, or told to seek."""
        self.stopped = False
        self.error: MediaError | None = None
        self.position = 0.0
        """The position of playing, in seconds of the source's own time."""
        self._origin = math.nan
        self._seek: float | None = None
        self._produce = produce
        self._thread: threading.Thread | None = None
        _playing[self] = None

    def check_process(self) -> None:
        """Raise :class:`ForkedError` in a child of the process that the source was made in."""
        guard.check_process(self.born, self.label)

    def check_call(self, deadline: Deadline) -> None:
        """Raise if a call of the source may not be made here; one may wait, unless it need not."""
        self.check_process()
        if deadline.timeout:
            guard.check_blocking(self.born, self.label)

    def clock(self) -> float:
        """Return the seconds since the first frame was put; 0 before."""
        return 0.0 if math.isnan(self._origin) else monotonic() - self._origin

    def begin(self, due: float = 0.0) -> None:
        """Start the clock at ``due``, unless the clock runs. The lock is held."""
        if math.isnan(self._origin):
            self._origin = monotonic() - due

    # --- any thread ---

    def stop(self, error: MediaError | None = None) -> None:
        """End all queues now, and let the producer go."""
        with self.lock:
            self._stop(error)

    def seek(self, position: float) -> None:
        """Have the producer go on from another position; drop what it has prepared."""
        with self.lock:
            if not self.stopped:
                for queue in self.queues.values():
                    queue.items.clear()
                self._seek = self.position = position
                self.interrupted = True
                self.moved.notify_all()

    def wait(self, deadline: Deadline) -> bool:
        """Wait until every frame was played, or the feed stopped; say whether that happened."""
        with self.lock:
            while True:
                for queue in self.queues.values():
                    queue.pass_time()
                if self.stopped:
                    return True
                left = deadline.left()
                if left == 0:
                    return False
                self.finished.wait(min(left, PRODUCER_POLL, WAIT_SLICE))

    def abandon(self) -> None:
        """Stop the feed without its lock: for finalizers, which may run anywhere."""
        self.interrupted = self.stopped = True

    def join(self, deadline: Deadline) -> None:
        """Wait for the producer's thread to end."""
        if self._thread is not None:
            self._thread.join(min(deadline.left(), threading.TIMEOUT_MAX))

    # --- the producer's thread ---

    def take_seek(self) -> float | None:
        """Return the position to produce from, or ``None``: stop. Clears the interruption."""
        with self.lock:
            if self.stopped:
                return None
            position = self.position if self._seek is None else self._seek
            self._seek, self.interrupted = None, False
            return position

    def behind(self, due: float) -> float:
        """Return by how many seconds the timeline must move for a frame due at ``due``."""
        late = self.clock() - due
        return late if late > MAX_PRODUCER_LAG else 0.0

    def finish(self, due: float, position: float) -> bool:
        """End the queues at ``due``; wait until all frames are played.

        Returns:
            ``False`` where the producer was told to seek, or to stop.
        """
        for queue in self.queues.values():
            if not queue.put(None, due, position):
                return False
        with self.lock:
            while not self.interrupted:
                left = due + END_WAIT - self.clock()
                if left <= 0 or self._all_closed():
                    self._stop(None)
                    return True
                self.moved.wait(min(left, PRODUCER_POLL))
        return False

    def _run(self, produce: Callable[[Feed], None]) -> None:
        try:
            produce(self)
        except MediaError as error:
            logger.warning("%s", error)
            self.stop(error)
        except Exception as error:
            logger.exception("%s failed", self.label)
            failure = MediaError(f"{self.label} failed: {error!r}")
            failure.__cause__ = error
            self.stop(failure)
        else:
            self.stop()

    # --- with the lock held ---

    def _all_closed(self) -> bool:
        return all(queue.closed for queue in self.queues.values() if queue.wanted)

    def _stop(self, error: MediaError | None) -> None:
        if not self.stopped:
            self.error = error
        self.stopped = self.interrupted = True
        for queue in self.queues.values():
            queue._close()
        self.moved.notify_all()
        self.finished.notify_all()

    def _start(self) -> None:
        if not self.started and not self.stopped:
            self.started = True
            if self._produce is not None:
                self._thread = threading.Thread(
                    target=self._run,
                    args=(self._produce,),
                    name=f"metered-sync-{self.label}",
                    daemon=True,
                )
                try:
                    start_thread(self._thread)
                except EngineError as error:
                    failure = MediaError(f"{self.label} cannot play: {error}")
                    failure.__cause__ = error
                    logger.warning("%s", failure)
                    self._stop(failure)


class FeedQueue:
    """A bounded queue of one feed's frames of one kind."""

    def __init__(self, feed: Feed, kind: str, size: int) -> None:
        self.kind = kind
        self.items: deque[DueFrame] = deque()
        self.handed = 0
        """Frames handed out so far."""
        self.wanted = False
        """Whether the track was given out: producers leave out tracks that nobody can consume."""
        self.closed = False
        self.ending = False
        """Whether the track ends when all frames have been handed out."""
        self.stamps: deque[tuple[float, float]] | None = None
        """Position and ``time.monotonic()`` of the latest frames handed out, where noted."""
        self.feed = feed
        self._size = size
        self._waiters: dict[asyncio.Future[None], object] = {}
        self._listeners: list[Callable[[], object]] = []
        """Called when the queue is closed, with the lock held: they must return at once."""
        self._takers: list[object] = []
        """Consumers that wait for a frame: served in turn, lest one of them gets all frames."""
        feed.queues[kind] = self

    # --- the producer's thread ---

    def put(self, frame: Frame | None, due: float, position: float) -> bool:
        """Queue a frame; wait while the queue is full.

        Returns:
            Whether to go on: ``False`` once the feed is stopped or told to seek. A queue
            that was closed, or that nobody wants, takes frames and drops them.
        """
        feed = self.feed
        with feed.lock:
            if not feed.interrupted:
                feed.begin(due)
            while not feed.interrupted and not self.closed and self.wanted:
                if len(self.items) < self._size:
                    self.items.append(DueFrame(due, position, frame))
                    if len(self.items) == 1:
                        self._wake()
                    break
                if not self.items:  # cleared just now, by a finalizer
                    continue
                first = self.items[0].due
                overdue = feed.clock() - first
                allowed = max((due - first) / 2, MAX_OVERDUE)
                if overdue > allowed:
                    self._drop()
                else:
                    feed.moved.wait(min(allowed - overdue + TIMER_RESOLUTION, PRODUCER_POLL))
            return not feed.interrupted

    # --- the loop's thread ---

    async def take(self) -> Frame | None:
        """Return the next frame when it is due; ``None`` at the end."""
        taker = object()
        with self.feed.lock:
            self._takers.append(taker)
        try:
            return await self._take(taker)
        finally:
            with self.feed.lock:
                if taker in self._takers:
                    self._takers.remove(taker)
                self._wake()

    async def _take(self, taker: object) -> Frame | None:
        running = asyncio.get_running_loop()
        with self.feed.lock:
            self.pass_time()
        while True:
            with self.feed.lock:
                if not self.feed.started:
                    self.feed._start()
                if self.closed or self.feed.stopped:
                    return None
                delay = self._due_in() if self._takers[0] is taker else math.inf
                if delay <= TIMER_RESOLUTION:
                    item = self._next()
                    return None if item is None else self._hand_out(item)
                waiter = running.create_future()
                self._waiters[waiter] = taker
            timer = running.call_later(delay, _settle, waiter) if delay < math.inf else None
            try:
                await waiter
            finally:
                if timer is not None:
                    timer.cancel()
                with self.feed.lock:
                    self._waiters.pop(waiter, None)

    def close(self) -> None:
        """End this queue. The feed stops with the last queue that somebody may consume."""
        with self.feed.lock:
            if not self.closed:
                self._close()
                if self.feed._all_closed():
                    self.feed._stop(None)

    # --- any thread ---

    def on_close(self, listener: Callable[[], object]) -> None:
        """Call a function once the queue is closed, on whichever thread closes it.

        It is called before, too, when it is known that the queue ends with what it holds; and
        now, where that is so already. The lock is held then: it must return at once.
        """
        with self.feed.lock:
            if not self.closed:
                self._listeners.append(listener)
            if self.closed or self.ending:
                listener()

    def off_close(self, listener: Callable[[], object]) -> None:
        """Call a function no longer."""
        with self.feed.lock:
            if listener in self._listeners:
                self._listeners.remove(listener)

    # --- with the lock held ---

    def latest_group(self) -> list[Packet[Any]]:
        """Return packets that were handed out before, and with which a reader can begin."""
        return []

    def pass_time(self) -> None:
        """Drop frames that nobody took in time, where no producer drops them."""

    def _drop(self) -> None:
        """Drop the first frame, which is overdue while the queue is full."""
        self.items.popleft()

    def _due_in(self) -> float:
        """Return the seconds until the next frame is due; ``inf``: there is none."""
        return self.items[0].due - self.feed.clock() if self.items else math.inf

    def _next(self) -> DueFrame | None:
        """Take the next frame off the queue; ``None``: it was stopped just now, by a finalizer."""
        return self.items.popleft() if self.items else None

    def _hand_out(self, item: DueFrame) -> Frame | None:
        self.feed.position = item.position
        if item.frame is None:
            self._close()
        else:
            self.handed += 1
            if self.stamps is not None:
                self.stamps.append((item.position, monotonic()))
        self.feed.moved.notify_all()
        return item.frame

    def _close(self) -> None:
        self.closed = True
        self.items.clear()
        self._wake()
        self.feed.moved.notify_all()
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    def _wake(self) -> None:
        for waiter, taker in tuple(self._waiters.items()):
            try:
                waiter.get_loop().call_soon_threadsafe(_settle, waiter)
            except RuntimeError:  # that loop is closed, and nobody waits any more
                del self._waiters[waiter]
                self._takers.remove(taker)


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


_playing: weakref.WeakKeyDictionary[Feed, None] = weakref.WeakKeyDictionary()
"""The feeds that there are. (A weak set cannot be looked through while another thread adds one.)"""


def _stop_all(deadline: Deadline) -> None:
    """Stop the producers of all feeds before the interpreter exits."""
    there = [feed for ref in _playing.keyrefs() if (feed := ref()) is not None]
    feeds = [feed for feed in there if feed.born == guard.generation()]
    for feed in feeds:
        feed.stop()
    for feed in feeds:
        feed.join(deadline)


process.at_exit("finish", _stop_all)
