"""Requests on their way: queued by callers' threads, written and settled by the loop.

This is the hot path. A caller's thread builds the frame, registers the request and wakes the
loop at most once per burst; the loop writes what has gathered with one call, and the receiver
settles a request directly when its acknowledgement comes. No task and no coroutine is made.

There is no lock, so that signal handlers and finalizers may send: whoever takes a request out of
the queue - the loop to write it, a caller to withdraw it - has it, and all else is the loop's.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import queue
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from metered_sync.bridge.clock import monotonic
from metered_sync.engine.messaging.request import OutagePolicy, Request
from metered_sync.errors import (
    AckTimeoutError,
    CancelledError,
    DisconnectedError,
    NotConnectedError,
    OversizedPayloadError,
    fresh,
)
from metered_sync.wire import frames
from metered_sync.wire.limits import MAX_FRAME

if TYPE_CHECKING:
    from metered_sync.engine.messaging.websocket import WebSocket

__all__ = ["MAX_QUEUED", "MAX_QUEUED_BYTES", "Outbox", "TokenBucket"]

MAX_QUEUED = 4096
"""How many frames may be queued by calls that do not wait."""
MAX_QUEUED_BYTES = 16 << 20
"""How many bytes of frames may be queued by calls that do not wait."""
MAY_HAVE_STOOD_STILL = 0.05
"""Seconds without a write, after which the connection may have been closed unnoticed."""
FRAMES_PER_WRITE = 64
"""How many frames go out with one write."""


class TokenBucket:
    """The client's side of the service's token bucket: frames per second, and a burst."""

    def __init__(self, limit: tuple[float, float] | None) -> None:
        self._rate, self._burst = limit or (0.0, 0.0)
        self.fill()

    def fill(self) -> None:
        """Start anew: the server's bucket is one per connection."""
        self._tokens, self._at = self._burst, monotonic()

    def take(self, wanted: int) -> int:
        """Return how many frames may be sent now, at most ``wanted``, and count them."""
        if not self._rate:
            return wanted
        now = monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        allowed = int(min(wanted, self._tokens))  # in this order: a burst may be infinite
        self._tokens -= allowed
        return allowed

    def delay(self) -> float:
        """Return the seconds until the next frame may be sent."""
        return max(0.0, 1 - self._tokens) / self._rate if self._rate else 0.0


class Outbox:
    """Hold requests that wait to be sent, and those sent that wait for an acknowledgement.

    Args:
        rate_limit: Frames per second and burst; ``None`` for no limit.
        post: Has the loop call a function soon; called by any thread.
    """

    def __init__(
        self,
        rate_limit: tuple[float, float] | None,
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        self.max_size = MAX_FRAME
        """The largest frame that the server accepts, in bytes of payload."""
        self._post = post
        self._bucket = TokenBucket(rate_limit)
        self._prefix = os.urandom(4).hex()
        self._numbers = itertools.count(1)  # next() on it is atomic
        self._queue: deque[Request] = deque()
        self._bytes = 0
        self._asleep: object | None = object()
        """Where the loop will not look at the queue by itself: an object, another one each time."""
        self._down = False
        self._error: BaseException | None = None
        self._pending: dict[str, Request] = {}
        """Requests that wait or have left, by their ids."""
        # The loop's own: where to write, and when to look again.
        self._expiring: deque[Request] = deque()
        self._connection: WebSocket | None = None
        self._flushed_at = -math.inf
        self._pause: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None

    # --- any thread ---

    def new_id(self) -> str:
        """Return an id for a request. It needs no escaping in JSON."""
        return f"{self._prefix}-{next(self._numbers)}"

    def publication(
        self,
        channel: str,
        data: Any,
        what: str,
        *,
        outage: OutagePolicy = "wait",
        timeout: float | None = None,
    ) -> Request:
        """Return a request that publishes to a channel; it is not queued yet."""
        request_id = self.new_id()
        text = frames.build_publish(channel, data, request_id)
        return Request(request_id, text, what, outage=outage, timeout=timeout)

    def direct_message(
        self,
        peer_id: str,
        data: Any,
        what: str,
        *,
        outage: OutagePolicy = "wait",
        timeout: float | None = None,
    ) -> Request:
        """Return a request that sends to one peer; it is not queued yet."""
        request_id = self.new_id()
        text = frames.build_send(peer_id, data, request_id)
        return Request(request_id, text, what, outage=outage, timeout=timeout)

    def put(self, request: Request) -> None:
        """Queue a request, and wake the loop if need be.

        Raises :class:`OversizedPayloadError`; ``queue.Full`` for a request with a timeout of
        its own (one that no caller waits for) where there is too much already;
        :class:`NotConnectedError` in an outage that it is not to wait for; and what ended
        the link.
        """
        if request.size > self.max_size:
            raise OversizedPayloadError(
                f"{request.what}: the frame is {request.size} bytes, the server accepts "
                f"{self.max_size}; split the data or send a reference to it",
                size=request.size,
                cap=self.max_size,
            )
        refusal = self._refusal(request)
        if refusal is not None:
            raise refusal
        size = len(request.frame)
        if request.timeout is not None and (
            len(self._queue) >= MAX_QUEUED or self._bytes + size > MAX_QUEUED_BYTES
        ):
            raise queue.Full(
                f"{request.what}: {len(self._queue)} frames wait to be sent, "
                f"{self._bytes / (1 << 20):.1f} MiB in all; at most {MAX_QUEUED} may, and "
                f"{MAX_QUEUED_BYTES >> 20} MiB: "
                "call flush(), or publish() which waits"
            )
        # (No call in between: these three lines are one step.)
        self._bytes += size
        self._pending[request.id] = request
        self._queue.append(request)
        if self._error is not None or self._down:  # perhaps just now, and it was not seen here
            refusal = self._refusal(request)
            if refusal is not None and self.withdraw(request):
                raise refusal
        self._wake()

    def _refusal(self, request: Request) -> BaseException | None:
        """Return why a request cannot be queued, now or ever."""
        if self._error is not None:
            return fresh(self._error)
        return _connection_down(request.what) if self._down and request.outage == "fail" else None

    def _wake(self) -> None:
        """Have the loop look at the queue, where it would not by itself."""
        asleep = self._asleep
        if asleep is not None:
            # In this order Ctrl-C in between, or a signal handler that sends, costs a call too
            # many, not one too few.
            self._post(self._flush_soon)
            if self._asleep is asleep:
                self._asleep = None

    def withdraw(self, request: Request) -> bool:
        """Take back a request that has not left; say whether that worked."""
        if request.sent or request.ended.is_set:
            return False
        size = len(request.frame)
        try:
            self._queue.remove(request)
        except ValueError:
            return False
        self._bytes -= size  # (No call between this line and the next: they are one step.)
        self._pending.pop(request.id, None)
        return True

    def cancel(self, request: Request) -> bool:
        """End a request that has not left; say whether that worked."""
        try:
            if not self.withdraw(request):
                return False
            self._finish_cancelled(request)
        except BaseException:  # Ctrl-C: what was begun is done by the loop
            self._post(lambda: self._end_withdrawn(request))
            raise
        return True

    def _finish_cancelled(self, request: Request) -> None:
        request.fetched = True  # no failure that flush() should tell of
        request.finish(CancelledError(f"{request.what} was cancelled"))

    def forget(self, request: Request) -> None:
        """Give up on a request: it leaves no more, or its acknowledgement counts no more."""
        self.withdraw(request)
        self._pending.pop(request.id, None)

    # --- the loop ---

    def up(self, connection: WebSocket) -> None:
        """Begin to write to a connection, with the next :meth:`flush`."""
        self._bucket.fill()
        self._down = False
        self._flushed_at = monotonic()
        self._connection, connection.on_room = connection, self.flush

    def _end_withdrawn(self, request: Request) -> None:
        """End a request that is neither queued nor sent, for its :meth:`cancel` was interrupted."""
        if not request.sent and request not in self._queue:
            if self._pending.pop(request.id, None) is not None:
                self._bytes -= len(request.frame)
            self._finish_cancelled(request)

    def urge(self, requests: list[Request]) -> None:
        """Queue requests before all others. Call :meth:`flush` after it."""
        if self._error is None:
            self._pending.update((request.id, request) for request in requests if request.id)
            self._queue.extendleft(reversed(requests))
            size = sum(len(request.frame) for request in requests)
            self._bytes += size

    def _flush_soon(self) -> None:
        """Flush; where nothing has been written for a while, one turn of the loop later.

        The process, or the machine, may have stood still meanwhile, and the server have closed
        the connection: asyncio's loop reads that in this turn, after what callers have posted.
        """
        if monotonic() - self._flushed_at > MAY_HAVE_STOOD_STILL:
            asyncio.get_running_loop().call_soon(self.flush)
        else:
            self.flush()

    def flush(self) -> None:
        """Write what is queued, as far as the connection and the rate limit allow it now."""
        self._flushed_at = monotonic()
        connection = self._connection
        if connection is None or not connection.is_open:
            self._asleep = None  # the next connection begins with it
            return
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._asleep = None
        while connection.is_open and not connection.full:  # (a write may find it broken)
            requests, delay = self._batch()
            if not requests:
                if delay >= 0:
                    self._pause = asyncio.get_running_loop().call_later(delay, self.flush)
                break
            data = b"".join([request.frame for request in requests])
            connection.write(data, is_request=requests[-1].id != "")
            for request in requests:
                if request.outage != "repeat":
                    request.frame = b""  # it is needed no more
            if self._expiry is None and self._expiring:
                self._expire()

    def _batch(self) -> tuple[list[Request], float]:
        """Return what may be sent now, and else the seconds until there will be something.

        The delay is negative where nothing is queued: then the next :meth:`put` wakes the loop.
        """
        if not self._queue:
            self._asleep = object()
            if not self._queue:
                self._bytes = 0  # whatever Ctrl-C has kept from being counted
                return [], -1.0
            self._asleep = None  # somebody has put one without waking us
        count = self._bucket.take(min(len(self._queue), FRAMES_PER_WRITE))
        if not count:
            return [], self._bucket.delay()
        requests: list[Request] = []
        size, now = 0, monotonic()
        while self._queue and len(requests) < count:
            try:
                request = self._queue.popleft()
            except IndexError:  # withdrawn just now
                break
            request.sent = True
            size += len(request.frame)
            if request.timeout is not None:
                request.expires_at = now + request.timeout
                self._expiring.append(request)
            requests.append(request)
        self._bytes -= size
        while self._expiring and self._expiring[0].ended.is_set:
            self._expiring.popleft()
        return requests, 0.0

    def _expire(self) -> None:
        """Fail requests whose own timeout has passed, and come back for the next."""
        now, self._expiry = monotonic(), None
        # (Their timeouts are nearly always equal; where not, an early one comes a bit late.)
        while self._expiring:
            request = self._expiring[0]
            if not request.ended.is_set and request.expires_at > now:
                loop = asyncio.get_running_loop()
                self._expiry = loop.call_later(request.expires_at - now, self._expire)
                break
            self._expiring.popleft()
            if not request.ended.is_set:
                self.take(request.id)
                timeout = request.timeout or 0.0
                message = f"{request.what}: no acknowledgement within {timeout:g} s; it was sent"
                request.finish(
                    AckTimeoutError(message, request_id=request.id, timeout=timeout, sent=True)
                )

    def take(self, request_id: str) -> Request | None:
        """Return the request that an answer belongs to, and forget it."""
        return self._pending.pop(request_id, None)

    def stop(self) -> None:
        """Write no more to the connection, which has ended."""
        self._connection = None
        for timer in (self._pause, self._expiry):
            if timer is not None:
                timer.cancel()
        self._pause = self._expiry = None

    def down(self, code: int, reason: str) -> None:
        """Begin an outage: end what it ends, by each request's ``outage``; keep the others."""
        self._down = True
        pending = list(self._pending.values())
        lost = [r for r in pending if r.outage == "fail" or (r.sent and r.outage == "wait")]
        lost = [request for request in lost if request.sent or self.withdraw(request)]
        again = [request for request in pending if request.sent and request.outage == "repeat"]
        for request in again:
            request.sent = False
        self._queue.extendleft(reversed(again))
        size = sum(len(request.frame) for request in again)
        self._bytes += size
        for request in lost:
            self._pending.pop(request.id, None)
            request.finish(
                DisconnectedError(
                    f"{request.what}: the connection was lost (code {code}) before the "
                    "acknowledgement; it may or may not have been delivered",
                    code=code,
                    reason=reason,
                )
                if request.sent
                else _connection_down(request.what)
            )

    def close(self, error: BaseException) -> None:
        """Fail everything, and every later request, with ``error``."""
        if self._error is None:
            self._error = error
            requests = list(self._pending.values())
            for request in requests:
                if request.sent or self.withdraw(request):
                    request.finish(fresh(error))
            self._pending.clear()


def _connection_down(what: str) -> NotConnectedError:
    return NotConnectedError(f"{what}: the connection is down and being made again")
