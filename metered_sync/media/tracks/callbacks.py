"""Call functions with a track's frames.

The callbacks of one track run one at a time, on a daemon thread of the track's own, which
starts with the first of them. It ends with the track, or when the last one is closed; while
it runs it keeps the track alive, and with that its client.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from metered_sync.bridge import guard
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.dispatch import Callback, run_callback
from metered_sync.bridge.process import at_exit
from metered_sync.errors import ClosedError, MeteredError, fresh
from metered_sync.media.tracks.core import TrackCore
from metered_sync.media.tracks.frame_queue import FrameQueue, read_frames

__all__ = ["FrameCallback", "FrameCallbacks"]


class FrameCallback:
    """Handle a function that is called with frames. Made by :meth:`RemoteTrack.on_frame`.

    Calling it calls the function, so that a decorated one stays what it was.
    """

    def __init__(
        self, owner: FrameCallbacks, frames: FrameQueue, function: Callable[[Any], object]
    ) -> None:
        self.active = True
        self._owner = owner
        self._frames = frames
        self._callback = Callback(function)
        self._before = frames.dropped
        self._dropped = 0

    def __repr__(self) -> str:
        state = "active" if self.active and not self._frames.ended else "closed"
        return f"<FrameCallback {self._callback.function!r}: {state}, {self.dropped} dropped>"

    def __call__(self, frame: Any) -> Any:
        return self._callback.function(frame)

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

    def deactivate(self) -> None:
        """Mark the callback closed; its count of dropped frames stays."""
        if self.active:
            self._dropped = self.dropped
            self.active = False

    def run(self, frame: Any, core: TrackCore) -> None:
        """Call the function; log its exception, and pass that to the owner's ``on_error``."""
        on_error = getattr(core.owner, "on_error", None)
        run_callback(self._callback, frame, core.label, on_error)


class FrameCallbacks:
    """Run the callbacks of one track, on a thread."""

    def __init__(self, core: TrackCore, track: object) -> None:
        """Prepare; ``track`` is kept alive with the core while there are callbacks."""
        self._core = core
        self._track = track
        self._lock = threading.Lock()  # guards what follows; the tuple is replaced, not changed
        self._callbacks: tuple[FrameCallback, ...] = ()
        self._frames: FrameQueue | None = None  # while there are callbacks
        self._thread: threading.Thread | None = None

    def add(self, function: Callable[[Any], object]) -> FrameCallback:
        """Call a function with each newest frame from now on."""
        with self._lock:
            if self._core.incoming.ended:
                error = self._core.incoming.error
                if error is not None:
                    raise fresh(error)
                raise ClosedError(f"{self._core.label} has ended: no more frames will come")
            if self._frames is None:
                frames = read_frames(self._core, mode="latest")
                thread = threading.Thread(
                    target=self._run,
                    args=(frames, self._thread),
                    name=f"metered-sync-frames ({self._core.label})",
                    daemon=True,
                )
                thread.start()
                self._frames, self._thread = frames, thread
                _running.add(self)
            callback = FrameCallback(self, self._frames, function)
            self._callbacks += (callback,)
            return callback

    def remove(self, callback: FrameCallback) -> None:
        """End the calls of one callback."""
        self._core.check_process()
        with self._lock:
            callback.deactivate()
            self._callbacks = tuple(c for c in self._callbacks if c.active)
            if not self._callbacks and self._frames is not None:
                self._frames.close()
                self._frames = None

    def stop(self) -> None:
        """End the calls of all callbacks."""
        for callback in self._callbacks:
            self.remove(callback)

    def join(self, deadline: Deadline) -> None:
        """Wait for the callbacks' thread to end."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(min(deadline.left(), threading.TIMEOUT_MAX))

    def _run(self, frames: FrameQueue, previous: threading.Thread | None) -> None:
        if previous is not None:
            previous.join()  # one at a time: a callback that was closed may still be at it
        try:
            for frame in frames:
                for callback in self._callbacks:
                    if callback.active:
                        callback.run(frame, self._core)
                # Until the next one, nothing of this must be kept alive from here.
                frame = callback = None  # type: ignore[assignment]
        except MeteredError:
            pass  # the connection ended for good: whoever reads is told
        finally:
            with self._lock:
                if self._frames in (frames, None):
                    _running.discard(self)


_running: set[FrameCallbacks] = set()
"""Callbacks whose thread runs; ``add`` and ``discard`` are atomic."""


def _stop_all(deadline: Deadline) -> None:
    """End all callbacks before the interpreter exits."""
    mine = [c for c in tuple(_running) if c._core.born == guard.generation()]
    for callbacks in mine:
        callbacks.stop()
    for callbacks in mine:
        callbacks.join(deadline)


at_exit("finish", _stop_all)
