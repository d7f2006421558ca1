"""Call functions with a track's frames.

The callbacks of one track run one at a time, on a dispatcher thread of the track's own, which
starts with the first of them. It ends with the track, or when the last one is closed; while
it runs it keeps the track alive, and with that its client.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from metered_sync.bridge.dispatch import Callback, Dispatcher, ErrorHandler
from metered_sync.errors import ClosedError, raise_fresh
from metered_sync.media.tracks.core import TrackCore
from metered_sync.media.tracks.frame_queue import FrameQueue, read_frames

__all__ = ["FrameCallback", "FrameCallbacks"]


class FrameCallback(Callback):
    """Handle a function that is called with frames. Made by :meth:`RemoteTrack.on_frame`.

    Calling it calls the function, so that a decorated one stays what it was.
    """

    _frames: FrameQueue

    def __init__(self, owner: FrameCallbacks, function: Callable[[Any], object]) -> None:
        super().__init__(function)
        self._owner = owner
        self._before = 0
        self._dropped = 0

    def __repr__(self) -> str:
        state = "active" if self.active and not self._frames.ended else "closed"
        return f"<FrameCallback {self.function!r}: {state}, {self.dropped} dropped>"

    def __call__(self, frame: Any) -> Any:
        return self.function(frame)

    @property
    def dropped(self) -> int:
        """Frames that were not handed over, because a newer one was there already."""
        return self._frames.dropped - self._before if self.active else self._dropped

    def close(self) -> None:
        """End the calls. A call that has begun is not waited for. Repeatable."""
        self._owner.remove(self)

    def __enter__(self) -> FrameCallback:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def attach(self, frames: FrameQueue) -> None:
        """Count what this queue drops from now on."""
        self._frames = frames
        self._before = frames.dropped

    def deactivate(self) -> None:
        """Mark the callback closed; its count of dropped frames stays."""
        if self.active:
            self._dropped = self.dropped
            self.active = False


class FrameCallbacks:
    """Have a dispatcher run the callbacks of one track."""

    def __init__(self, core: TrackCore, track: object) -> None:
        """Prepare; ``track`` is kept alive with the core while there are callbacks."""
        self._core = core
        self._track = track
        self._lock = threading.Lock()  # guards what follows; the tuple is replaced, not changed
        self._callbacks: tuple[FrameCallback, ...] = ()
        self._frames: FrameQueue | None = None  # while there are callbacks
        self._dispatcher: Dispatcher[Any] | None = None

    def add(self, function: Callable[[Any], object]) -> FrameCallback:
        """Call a function with each newest frame from now on."""
        callback = FrameCallback(self, function)
        with self._lock:
            if self._core.incoming.ended:
                raise_fresh(self._core.incoming.error)
                raise ClosedError(f"{self._core.label} has ended: no more frames will come")
            if self._frames is None:
                self._frames = self._start()
            callback.attach(self._frames)
            again = [c for c in self._callbacks if callback.origin.replaces(c.origin)]
            for older in again:  # a cell of a notebook has run again
                older.deactivate()
            before = self._callbacks
            self._callbacks = (*(c for c in before if c.active), callback)
        for older in again:
            callback.note_replaced(older, self._core.label)
        del before  # not with the lock held: what is freed may be a user's
        return callback

    def _start(self) -> FrameQueue:
        """Start a dispatcher, and return the queue that it reads; the lock is held."""
        frames = read_frames(self._core, mode="latest")
        dispatcher = Dispatcher(self._core.label, frames, self._due, self._on_error)
        # One at a time: a callback that was closed may still be at it.
        dispatcher.start(after=self._dispatcher)
        self._dispatcher = dispatcher
        return frames

    def remove(self, callback: FrameCallback) -> None:
        """End the calls of one callback."""
        self._core.check_process()
        with self._lock:
            callback.deactivate()
            self._callbacks = tuple(c for c in self._callbacks if c.active)
            if not self._callbacks and self._frames is not None:
                self._frames.close()
                self._frames = None

    def _due(self, frame: Any) -> Iterator[tuple[Callback, Any]]:
        callbacks = self._callbacks
        for callback in callbacks:
            if callback.active:
                yield callback, frame if callback is callbacks[-1] else self._core.cloner.own(frame)

    def _on_error(self) -> ErrorHandler | None:
        own = self._core.hub.on_error
        handler: ErrorHandler | None = getattr(self._core.owner, "on_error", None)
        return handler if own is None else own
