"""Requests on their way: queued by callers' threads, written and settled by the loop.

This is the hot path. A caller's thread builds the frame, registers the request and wakes the
loop at most once per burst; the loop writes what has gathered with one call, and the receiver
settles a request directly when its acknowledgement comes. No task and no coroutine is made.
"""

from __future__ import annotations

import itertools
import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable

from metered_sync.bridge.deadline import Signal
from metered_sync.engine.messaging.websocket import text_frame
from metered_sync.errors import DisconnectedError, NotConnectedError, fresh

__all__ = ["MAX_BYTES", "MAX_FRAMES", "Bucket", "Outbox", "Request"]

MAX_FRAMES = 4096
MAX_BYTES = 16 << 20
"""How much may be queued by calls that do not wait."""
BATCH = 64
"""Frames that go out with one write."""


class Request:
    """A frame on its way out, and the wait for its acknowledgement."""

    __slots__ = (
        "ended",
        "error",
        "expires_at",
        "fetched",
        "frame",
        "id",
        "on_end",
        "sent",
        "timeout",
        "wait",
        "what",
    )

    def __init__(
        self,
        request_id: str,
        payload: bytes,
        what: str,
        *,
        wait: bool = True,
        on_end: Callable[[Request], None] | None = None,
        timeout: float | None = None,
    ) -> None:
        self.id = request_id
        self.frame = text_frame(payload)
        self.what = what
        self.wait = wait
        """Whether an outage before it has left is waited out."""
        self.on_end = on_end
        """Runs once, before whoever waits is released; on the loop, unless cancelled."""
        self.timeout = timeout
        """Seconds from leaving to the acknowledgement, where nobody waits with a deadline."""
        self.expires_at = 0.0
        self.sent = False
        self.error: BaseException | None = None
        self.fetched = False
        """Whether somebody has been told of the error."""
        self.ended = Signal()

    def finish(self, error: BaseException | None = None) -> None:
        """Release whoever waits. The first outcome counts."""
        if not self.ended.is_set:
            self.error = error
            if self.on_end is not None:
                self.on_end(self)
            self.ended.set()


class Bucket:
    """The client's side of the service's token bucket: frames per second, and a burst."""

    def __init__(self, limit: tuple[float, float] | None) -> None:
        self._rate, self._burst = limit or (0.0, 0.0)
        self.fill()

    def fill(self) -> None:
        """Start anew: the server's bucket is one per connection."""
        self._tokens, self._at = self._burst, time.monotonic()

    def take(self, wanted: int) -> int:
        """Return how many frames may be sent now, at most ``wanted``, and count them."""
        if not self._rate:
            return wanted
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        allowed = int(min(wanted, self._tokens))  # in this order: a burst may be infinite
        self._tokens -= allowed
        return allowed

    def delay(self) -> float:
        """Return the seconds until the next frame may be sent."""
        return max(0.0, 1 - self._tokens) / self._rate if self._rate else 0.0


class Outbox:
    """What waits to be sent, and what was sent and waits for its acknowledgement.

    ``_lock`` guards all of it; it is held for a few operations only. ``wake`` is called by
    whoever queues the first frame of a burst, on that thread.
    """

    def __init__(self, rate_limit: tuple[float, float] | None, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._bucket = Bucket(rate_limit)
        self._lock = threading.Lock()
        self._queue: deque[Request] = deque()
        self._bytes = 0
        self._pending: dict[str, Request] = {}
        self._expiring: deque[Request] = deque()
        self._woken = False
        self._down = False
        self._error: BaseException | None = None
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)  # next() on it is atomic

    # --- any thread ---

    def new_id(self) -> str:
        """Return an id for a request. It needs no escaping in JSON."""
        return f"{self._prefix}-{next(self._numbers)}"

    def put(self, request: Request, *, bounded: bool = False) -> None:
        """Queue a request.

        Raises ``queue.Full`` where ``bounded`` and there is too much already,
        :class:`NotConnectedError` in an outage that it is not to wait for, and what
        ended the link.
        """
        with self._lock:
            if self._error is not None:
                raise fresh(self._error)
            if self._down and not request.wait:
                raise _down(request.what)
            if bounded and (
                len(self._queue) >= MAX_FRAMES or self._bytes + len(request.frame) > MAX_BYTES
            ):
                raise queue.Full(
                    f"{request.what}: {len(self._queue)} frames wait to be sent; "
                    "call flush(), or publish() which waits"
                )
            self._pending[request.id] = request
            self._queue.append(request)
            self._bytes += len(request.frame)
            if self._woken:
                return
            self._woken = True
        self._wake()

    def withdraw(self, request: Request) -> bool:
        """Take back a request that has not left; say whether that worked."""
        with self._lock:
            if request.sent or request.ended.is_set:
                return False
            try:
                self._queue.remove(request)
            except ValueError:
                return False
            self._pending.pop(request.id, None)
            self._bytes -= len(request.frame)
            return True

    def forget(self, request: Request) -> None:
        """Give up on a request: it leaves no more, or its acknowledgement counts no more."""
        self.withdraw(request)
        with self._lock:
            self._pending.pop(request.id, None)

    # --- the loop ---

    def urge(self, requests: list[Request], *, expect_ack: bool = True) -> None:
        """Queue requests before all others. Call :meth:`batch` after it."""
        with self._lock:
            if self._error is None:
                self._queue.extendleft(reversed(requests))
                self._bytes += sum(len(request.frame) for request in requests)
                self._woken = True
                if expect_ack:
                    self._pending.update((request.id, request) for request in requests)

    def batch(self) -> tuple[list[Request], float]:
        """Return what may be sent now, and else the seconds until there will be something.

        The delay is 0 where frames are returned (ask again), and negative where nothing is
        queued: then the next :meth:`put` wakes the loop.
        """
        with self._lock:
            if not self._queue:
                self._woken = False
                return [], -1.0
            count = self._bucket.take(min(len(self._queue), BATCH))
            if not count:
                return [], self._bucket.delay()
            requests = [self._queue.popleft() for _ in range(count)]
            for request in requests:
                request.sent = True
                self._bytes -= len(request.frame)
                if request.timeout is not None:
                    request.expires_at = time.monotonic() + request.timeout
                    self._expiring.append(request)
            while self._expiring and self._expiring[0].ended.is_set:
                self._expiring.popleft()
        return requests, 0.0

    def take(self, request_id: str) -> Request | None:
        """Return the request that an answer belongs to, and forget it."""
        return self._pending.pop(request_id, None)

    def expired(self, now: float) -> tuple[list[Request], float]:
        """Return requests whose own deadline has passed, and when to ask again (0: no need)."""
        expired = []
        # (Their timeouts are nearly always equal; where not, an early one comes a bit late.)
        while self._expiring and (
            self._expiring[0].ended.is_set or self._expiring[0].expires_at <= now
        ):
            request = self._expiring.popleft()
            if not request.ended.is_set:
                self._pending.pop(request.id, None)
                expired.append(request)
        return expired, self._expiring[0].expires_at if self._expiring else 0.0

    def up(self) -> None:
        """Start a connection."""
        self._bucket.fill()
        self._down = False

    def down(self, code: int, reason: str) -> None:
        """End a connection: what is in flight fails, what has not left waits for the next."""
        with self._lock:
            self._down = True
            lost = [r for r in self._pending.values() if r.sent or not r.wait]
            for request in lost:
                del self._pending[request.id]
            self._queue = deque(r for r in self._queue if r.wait)
            self._bytes = sum(len(r.frame) for r in self._queue)
        for request in lost:
            request.finish(
                DisconnectedError(
                    f"{request.what}: the connection was lost (code {code}) before the "
                    "acknowledgement; it may or may not have been delivered",
                    code=code,
                    reason=reason,
                )
                if request.sent
                else _down(request.what)
            )

    def close(self, error: BaseException) -> None:
        """Fail everything, and every later request, with ``error``."""
        with self._lock:
            if self._error is not None:
                return
            self._error = error
            requests, self._pending = self._pending, {}
            self._queue.clear()
            self._bytes = 0
        for request in requests.values():
            request.finish(fresh(error))


def _down(what: str) -> NotConnectedError:
    return NotConnectedError(f"{what}: the connection is down and being made again")
