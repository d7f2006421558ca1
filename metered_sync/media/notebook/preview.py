"""Show live previews of tracks in a notebook.

A thread per preview takes the newest picture, makes a small JPEG of it (of sound: a level
meter), and has the notebook's front end show it.

**In flight.** At most ``MAX_IN_FLIGHT`` pictures are on their way to a front end that answers;
what comes meanwhile is not sent. Answers may be impossible: there are no widgets, or the
kernel, busy with a cell, cannot hear them. Then a picture goes every ``UNANSWERED_INTERVAL``
seconds, as long as a cell is run now and then. What does not answer though it could (a
closed page), or has not run a cell for long, is tried ever more rarely: the server keeps
all that is sent until the page is opened again. A front end that could answer and never
has knows no widgets, and gets plain pictures.

**Locks.** ``_changed`` guards the state. It is held while something is shown, so that after
:meth:`Preview.stop` nothing more is.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
from contextlib import suppress
from typing import Any

from metered_sync.bridge import guard
from metered_sync.bridge.cells import cell_id
from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.threads import start_thread
from metered_sync.errors import MediaError, MeteredError, MeteredTimeoutError
from metered_sync.media.notebook.output import CellOutput, WidgetOutput, notebook
from metered_sync.media.notebook.views import LevelView, PictureView, View
from metered_sync.media.tracks.core import TrackCore
from metered_sync.media.tracks.frame_queue import FrameQueue, read_frames
from metered_sync.wire.arguments import check_number, check_whole

__all__ = ["Preview"]

logger = logging.getLogger("metered_sync")

MAX_IN_FLIGHT = 2
"""Pictures that may be on their way to the front end."""
UNANSWERED_INTERVAL = 0.2
"""Seconds between two pictures where answers are not possible."""
MAX_UNANSWERED = 3000
"""Pictures that go without an answer, or a cell, before the front end is taken to be gone."""
FIRST_RETRY = 5.0
"""Seconds after which a front end that is gone is tried; then twice as long, and so on."""
LONGEST_RETRY = 60.0
"""Seconds between two tries of a front end that is gone, at most."""
TRACK_END_POLL = 0.5
"""Seconds between two looks of a waiting preview at whether its track has ended."""


class Preview(guard.LiveObject):
    """Show a track in a notebook while it lasts. Made by :meth:`RemoteTrack.display`.

    It goes on, whatever cells run, until :meth:`stop`, the end of a ``with`` block, the end
    of the track (or of its client), or until its cell is run again. What was shown last
    stays.
    """

    def __init__(self, core: TrackCore, *, fps: float, width: int, quality: int) -> None:
        """Start showing a track; see :meth:`RemoteTrack.display`."""
        fps = check_number("fps", fps, 0, 60, above=True)
        width = check_whole("width", width, 1, 4096, unit="pixels")
        quality = check_whole("quality", quality, 1, 100)
        self._label = core.label
        view: View = LevelView()
        if core.incoming.kind == "video":
            view = PictureView(self._label, width, quality)
        shell = notebook()
        if shell is None:
            raise MediaError(
                f"display() shows the {self._label} in a Jupyter notebook, and this is none: "
                "use snapshot().save('picture.jpg'), or read() for a window of your own"
            )
        self._frames: FrameQueue = read_frames(core)
        with suppress(queue.Empty):
            self._frames.get_nowait()  # raises what ended the track, if it has ended
        self._view = view
        self._born = guard.generation()
        self._interval = 1 / fps
        self._changed = threading.Condition()
        self._stopped = False
        self._count = 0  # of what has been shown
        self._settled = 0  # how many of them the front end has answered, or need not
        self._answers = False  # whether it has ever answered
        self._hearing = False  # whether an answer would be heard now
        self._last = -math.inf  # when something was shown (monotonic())
        self._state = view.render_empty()
        self._shell = shell
        self._cell = shell.execution_count
        self._cell_id = cell_id(shell)
        self._output: CellOutput | WidgetOutput
        try:
            self._output = WidgetOutput(shell, self._state, self._on_answer)
        except ImportError:
            self._output = CellOutput(shell, self._state)
        shell.events.register("pre_run_cell", self._before_a_cell)
        shell.events.register("post_run_cell", self._after_a_cell)
        self._thread = threading.Thread(
            target=self._run, name=f"metered-sync-preview ({self._label})", daemon=True
        )
        start_thread(self._thread)

    def __repr__(self) -> str:
        state = "stopped" if self._stopped else "live"
        return f"<Preview of {self._label}: {state}, {self._count} shown>"

    def _ipython_display_(self) -> None:
        # Where display() is the last line of a cell, the picture is its result.
        if self._shell.execution_count != self._cell:
            self._shell.display_pub.publish({"text/plain": repr(self)})

    @property
    def stopped(self) -> bool:
        """Whether nothing more will be shown."""
        return self._stopped

    @property
    def shown(self) -> int:
        """The number of pictures, or states of the meter, that were sent to the notebook."""
        return self._count

    def stop(self) -> None:
        """Stop showing the track. The last picture stays. Stopping again does nothing."""
        guard.check_blocking(self._born, f"preview of {self._label}")
        self._finish()

    def __enter__(self) -> Preview:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    # --- the preview's thread ---

    def _run(self) -> None:
        try:
            while self._wait_for_turn():
                state = self._view.render(self._take())
                with self._changed:
                    if self._stopped:
                        return
                    self._state = state
                    self._count += 1
                    self._output.show(self._state, self._count)
                    self._last = monotonic()
        except MeteredError:  # the track has ended: who reads it is told why
            pass
        except Exception:
            logger.exception("the preview of the %s failed", self._label)
        finally:
            self._finish()

    def _wait_for_turn(self) -> bool:
        """Wait until another state may be shown; return ``False`` once stopped."""
        with self._changed:
            while not self._stopped:
                left = self._last + self._gap() - monotonic()
                if left <= 0:
                    if self._hearing and not self._answers and self._in_flight >= MAX_IN_FLIGHT:
                        self._output = self._output.close(self._state)
                        self._hearing = False
                    return True
                if self._frames.ended:  # which nobody tells us
                    return True
                self._changed.wait(min(left, TRACK_END_POLL))
            return False

    @property
    def _in_flight(self) -> int:
        return self._count - self._settled

    def _gap(self) -> float:
        """Return the seconds between the state shown last and the next."""
        if self._in_flight < MAX_IN_FLIGHT:
            return self._interval
        tries = self._in_flight - (MAX_IN_FLIGHT if self._hearing else MAX_UNANSWERED)
        if tries < 0:
            return max(self._interval, UNANSWERED_INTERVAL)
        return min(FIRST_RETRY * 2.0 ** min(tries, 10), LONGEST_RETRY)

    def _take(self) -> list[Any]:
        """Wait for frames and return them; none after a while without sound."""
        try:
            frames = [self._frames.get(timeout=self._view.timeout)]
        except MeteredTimeoutError:
            return []
        with suppress(queue.Empty, MeteredError):  # the end is seen when that is all there is
            while True:
                frames.append(self._frames.get_nowait())
        return frames

    # --- any thread ---

    def _finish(self) -> None:
        with self._changed:
            if self._stopped:
                return
            self._stopped = True
            self._changed.notify_all()
            self._frames.close()
            try:
                self._output.close(self._state)
            except Exception:  # of a kernel that is shutting down
                logger.debug("the preview of the %s: its end", self._label, exc_info=True)
        for event, function in (
            ("pre_run_cell", self._before_a_cell),
            ("post_run_cell", self._after_a_cell),
        ):
            with suppress(ValueError):
                self._shell.events.unregister(event, function)

    # --- the notebook's threads ---

    def _on_answer(self, number: int) -> None:
        with self._changed:
            self._settled = max(self._settled, number)
            self._answers = self._hearing = True
            self._changed.notify_all()

    def _before_a_cell(self, info: Any) -> None:
        if self._cell_id is not None and cell_id(self._shell) == self._cell_id:
            self._finish()
        self._note_a_cell(ended=False)

    def _after_a_cell(self, result: Any) -> None:
        self._note_a_cell(ended=True)

    def _note_a_cell(self, ended: bool) -> None:
        with self._changed:
            self._hearing = ended and self._output.answers
            if not self._answers:  # but here is somebody
                self._settled = self._count
            self._changed.notify_all()
