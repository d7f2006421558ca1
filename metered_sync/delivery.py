"""Track the outcome of messages that were sent without waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from metered_sync.bridge import guard
from metered_sync.bridge.atomic import Atomic
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.event_hub import EventHub
from metered_sync.errors import CancelledError, MeteredTimeoutError, fresh

if TYPE_CHECKING:
    from metered_sync.engine.messaging.link import SignallingLink
    from metered_sync.engine.messaging.request import Request

__all__ = ["Deliveries", "Delivery"]


class Delivery(guard.LiveObject):
    """A message on its way, as a future: what ``publish_nowait()`` and ``send_nowait()`` return.

    As with :mod:`concurrent.futures`, a wait that times out only stops waiting. The
    acknowledgement has a deadline of its own: the client's ``timeout``, from the moment at
    which the message leaves; then the delivery fails with
    :class:`~metered_sync.AckTimeoutError`.
    """

    def __init__(self, link: SignallingLink, hub: EventHub, request: Request) -> None:
        self._link = link
        self._hub = hub
        self._request = request
        request.on_end = self._ended
        self._callbacks: Atomic[tuple[Callable[[Delivery], None], ...] | None] = Atomic(())
        """The functions to call once it is done; ``None`` when they have been."""
        self._born = guard.generation()

    def __repr__(self) -> str:
        request = self._request
        state = "on its way" if request.sent else "queued"
        if request.ended.is_set:
            state = "acknowledged" if request.error is None else "failed"
        return f"<Delivery: {request.what}: {state}>"

    def done(self) -> bool:
        """Whether it has been acknowledged, has failed or was cancelled."""
        return self._request.ended.is_set

    def cancelled(self) -> bool:
        """Whether it was cancelled before it left."""
        return self.done() and isinstance(self._request.error, CancelledError)

    def cancel(self) -> bool:
        """Take it back if it has not left; say whether that worked."""
        guard.check_process(self._born, self._request.what)
        return self.cancelled() or self._link.outbox.cancel(self._request)

    def result(self, timeout: float | None = None) -> None:
        """Wait for the acknowledgement.

        Args:
            timeout: Seconds; ``None`` waits until it is acknowledged or has failed.

        Raises:
            MeteredTimeoutError: Neither in time; it is still on its way.
            CancelledError: It was cancelled (also a ``concurrent.futures.CancelledError``).
            SignallingError: It failed: the errors of ``publish()``.
        """
        error = self.exception(timeout)
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait as :meth:`result` does, and return the error, or ``None``."""
        deadline = Deadline.of(timeout)
        request = self._request
        guard.check_blocking(self._born, request.what)
        if not request.ended.wait(deadline):
            raise MeteredTimeoutError(
                f"{request.what}: no acknowledgement within {deadline}; it is still waited for",
                sent=request.sent,
            )
        request.fetched = True
        return None if request.error is None else fresh(request.error)

    def add_done_callback(self, fn: Callable[[Delivery], object]) -> None:
        """Call ``fn(delivery)`` once it is done; at once if it is done already.

        It runs on the client's dispatcher thread, as callbacks for events do (and on this one
        where the client is closed already). What it raises is logged and goes to ``on_error``.
        """
        call = self._hub.deferred(fn)
        if self._callbacks.swap(lambda there: None if there is None else (*there, call)) is None:
            call(self)

    def _ended(self, request: Request) -> None:
        """Call the callbacks; on the loop."""
        request.ended.set()  # before they run: they ask what became of it
        for call in self._callbacks.swap(lambda _: None) or ():
            call(self)


class Deliveries:
    """Keep a client's deliveries until ``flush()`` has waited for them, or told of their failure.

    Callers change both by single operations of the ``deque``, without a lock.
    """

    def __init__(self) -> None:
        self._open: deque[Request] = deque()
        self._failed: deque[Request] = deque(maxlen=1024)

    def add(self, request: Request) -> None:
        """Note a delivery; forget those that have gone well."""
        self._open.append(request)
        self._sweep()

    def _sweep(self) -> None:
        """Let those at the head go that have ended; keep their failures."""
        while self._open:
            try:
                request = self._open[0]
                if not request.ended.is_set:
                    return
                if request.error is not None:
                    self._failed.append(request)
                if self._open[0] is request:  # and then this is one step
                    del self._open[0]
            except IndexError:  # another thread was quicker
                return

    def flush(self, deadline: Deadline) -> None:
        """Wait for all that were noted so far; raise the first failure that nobody fetched."""
        waiting = self._open.copy()
        # Acknowledgements come in order, mostly: whoever waits for the last one wakes once.
        for request in reversed(waiting):
            if not request.ended.wait(deadline):
                undone = sum(not request.ended.is_set for request in waiting)
                raise MeteredTimeoutError(
                    f"flush: {undone} of {len(waiting)} messages not acknowledged "
                    f"within {deadline}; they are still waited for",
                    sent=request.sent,
                )
        self._sweep()
        failed: list[Request] = []
        while self._failed:
            try:
                failed.append(self._failed.popleft())
            except IndexError:  # another thread was quicker
                break
        failed = [request for request in failed if not request.fetched]
        if failed:
            for request in failed:
                request.fetched = True
            failed[0].check()
