"""Call functions with a track's frames.

The callbacks of one track run one at a time, on a dispatcher thread of the track's own, which
starts with the first of them. It ends with the track, or when the last one is closed; while
it runs it keeps the track alive, and with that its client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from metered_sync.bridge.atomic import Atomic
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

    def _attach(self, frames: FrameQueue) -> None:
        """Count what this queue drops from now on."""
        self._frames = frames
        self._before = frames.dropped

    def _deactivate(self) -> None:
        """Mark the callback closed; its count of dropped frames stays."""
        if self.active:
            self._dropped = self.dropped
            self.active = False


class _Calling(NamedTuple):
    """The callbacks of a track, and what calls them."""

    callbacks: tuple[FrameCallback, ...] = ()
    frames: FrameQueue | None = None
    """The frames that they are called with, while there are callbacks."""
    dispatcher: Dispatcher[Any] | None = None


class FrameCallbacks:
    """Have a dispatcher run the callbacks of one track."""

    def __init__(self, core: TrackCore, track: object) -> None:
        """Prepare; ``track`` is kept alive with the core while there are callbacks."""
        self._core = core
        self._track = track
        self._state = Atomic(_Calling())

    def add(self, function: Callable[[Any], object]) -> FrameCallback:
        """Call a function with each newest frame from now on."""
        callback = FrameCallback(self, function)
        if self._core.incoming.ended:
            raise_fresh(self._core.incoming.error)
            raise ClosedError(f"{self._core.label} has ended: no more frames will come")
        again: list[FrameCallback] = []
        new: list[FrameQueue] = []

        def added(there: _Calling) -> _Calling:
            frames = there.frames
            if frames is None:
                if not new:
                    new.append(read_frames(self._core, mode="latest"))
                (frames,) = new
            callback._attach(frames)
            again[:] = [c for c in there.callbacks if callback.origin.replaces(c.origin)]
            kept = (c for c in there.callbacks if all(c is not older for older in again))
            return there._replace(callbacks=(*kept, callback), frames=frames)

        before = self._state.swap(added)
        for frames in new:
            if before.frames is None:
                self._start(frames, callback)
            else:  # another thread was quicker
                frames.close()
        for older in again:  # a cell of a notebook has run again
            older._deactivate()
            callback.note_replaced(older, self._core.label)
        return callback

    def _start(self, frames: FrameQueue, first: FrameCallback) -> None:
        """Start a dispatcher for the frames of a queue."""
        dispatcher = Dispatcher(self._core.label, frames, self._due, self._on_error)
        try:
            # One at a time: a callback that was closed may still be at it.
            dispatcher.start(after=self._state.value.dispatcher)
        except BaseException:
            self.remove(first)
            raise
        self._state.swap(lambda there: there._replace(dispatcher=dispatcher))

    def remove(self, callback: FrameCallback) -> None:
        """End the calls of one callback."""
        self._core.check_process()
        callback._deactivate()

        def left(there: _Calling) -> _Calling:
            callbacks = tuple(c for c in there.callbacks if c.active)
            return there._replace(callbacks=callbacks, frames=there.frames if callbacks else None)

        before = self._state.swap(left)
        if before.frames is not None and not any(c.active for c in before.callbacks):
            before.frames.close()

    def _due(self, frame: Any) -> Iterator[tuple[Callback, Any]]:
        callbacks = self._state.value.callbacks
        for callback in callbacks:
            if callback.active:
                yield (
                    callback,
                    frame if callback is callbacks[-1] else self._core.copier.copied(frame),
                )

    def _on_error(self) -> ErrorHandler | None:
        own = self._core.hub.on_error
        handler: ErrorHandler | None = getattr(self._core.owner, "on_error", None)
        return handler if own is None else own
