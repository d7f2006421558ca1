"""A recording under way: one thread that places, encodes and writes what tracks deliver.

The first frames wait until it is known which streams the file has (``WAIT``). The thread does
not know the :class:`~metered_sync.Recorder`, which may be collected meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from av.error import FFmpegError

from metered_sync.bridge import guard, loop
from metered_sync.bridge.deadline import Deadline, Signal
from metered_sync.bridge.reader import Reader
from metered_sync.engine.webrtc.media_frames import AUDIO_RATE, SAMPLES_PER_FRAME
from metered_sync.errors import ClosedError, MediaError, MeteredTimeoutError
from metered_sync.media.recording.alignment import Voice
from metered_sync.media.recording.inputs import SETTLE, Item, Lane, Track
from metered_sync.media.recording.muxing import Format, Movie, Output, Pictures, Sound

__all__ = ["RecordedStream", "Recording", "RecordingInfo"]

logger = logging.getLogger("metered_sync")
WAIT = 3.0
"""Seconds that the first frame waits for the first pictures of other tracks."""
LATE_SIZE = (640, 480)
"""The size of pictures whose track has not shown one by then."""
HOLD = 2.0
"""Seconds that sound waits for that of other tracks, to be mixed."""
TICK = 0.1
"""Seconds between two looks at what is ready."""
REPORT = 0.5
"""Seconds between two calls of ``on_progress``."""


@dataclass(frozen=True)
class RecordedStream:
    """One stream of a recorded file."""

    kind: str
    """``"audio"`` or ``"video"``."""
    codec: str
    """The encoder: ``"libx264"``, ``"libvpx"``, ``"aac"``, ``"libopus"``, ``"pcm_s16le"``."""
    frames: int
    """Pictures, or packets of sound, written."""
    duration: float
    """Seconds from the recording's beginning to the stream's end."""
    size: tuple[int, int] | None
    """Width and height in pixels; ``None`` for sound."""


@dataclass(frozen=True)
class RecordingInfo:
    """How far a recording has come."""

    path: str
    """The file."""
    duration: float
    """Seconds recorded."""
    frames: int
    """Pictures written; packets of sound where the file has no pictures."""
    dropped: int
    """Frames that came but could not be recorded: encoder or disk were too slow."""
    bytes: int
    """The file's size so far."""
    streams: tuple[RecordedStream, ...]
    """What the file consists of; empty before the first frames were written."""


class Recording:
    """A recording, from its start to its end."""

    def __init__(self, label: str, path: str, format: Format) -> None:
        self.label = label
        self.born = guard.generation()
        self.done = Signal()
        """Set when the file is closed."""
        self.error: BaseException | None = None
        self.info = RecordingInfo(path, 0.0, 0, 0, 0, ())
        self.on_progress: Callable[[RecordingInfo, bool], None] | None = None
        """Called with how far it has come, and whether that is the end. Must not block."""
        self.owner: object = None
        """Keeps a recorder with a callback alive as long as it records."""
        self._path = path
        self._format = format
        self._inbox: Reader[Item] = Reader(label, maxsize=1 << 20)
        self._lock = threading.Lock()  # guards adding lanes, and the choice of streams
        self._lanes: tuple[Lane, ...] = ()
        self._output: Output | None = None
        self._movie: Movie | None = None
        self._streams: list[Pictures | Sound] = []
        self._sound: Sound | None = None
        self._zero: float | None = None
        self._first: float | None = None
        self._reported = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"metered-sync-{label}", daemon=True)

    # --- any thread ---

    @property
    def running(self) -> bool:
        """Whether it has begun, and not ended."""
        return self._output is not None and not self.done.is_set

    def open(self) -> None:
        """Open the file."""
        try:
            self._output = Output(self._path)
        except OSError as error:
            raise MediaError(f"{self._path!r} cannot be written: {error.strerror}") from error

    def start(self, deadline: Deadline) -> None:
        """Start, and have the frames of all tracks delivered."""
        try:
            self._thread.start()
        except RuntimeError as error:
            self._fail(error)
            self._end()
            raise MediaError(f"{self.label}: the interpreter is exiting") from error
        _running.add(self)
        for lane in self._lanes:
            lane.input.attach(deadline)

    def add(self, track: Track) -> Lane:
        """Make a place for a track; it is still to be attached."""
        lane = Lane(track, self._inbox)
        with self._lock:
            if self._zero is not None:
                if lane.kind == "video" or self._sound is None:
                    raise MediaError(
                        f"{self.label}: {lane.label} comes too late: the file has been begun "
                        f"without {lane.kind} of it; add it before, or record it to another file"
                    )
                lane.sink = Voice(self._sound.mixer)
            self._lanes = (*self._lanes, lane)
        return lane

    def stop(self) -> None:
        """Have it end, once what has come is written. Takes no lock."""
        self._inbox.end()

    # --- the thread ---

    def _run(self) -> None:
        try:
            self._record()
            self._close()
        except Exception as error:
            self._fail(error)
        finally:
            self._end()

    def _end(self) -> None:
        for lane in self._lanes:
            lane.input.detach()
        if self._output is not None:
            with contextlib.suppress(OSError):
                self._output.close()
        self._report(last=True)
        self.owner = self.on_progress = None
        _running.discard(self)
        self.done.set()

    def _record(self) -> None:
        while True:
            try:
                item = self._inbox.get(timeout=TICK)
            except MeteredTimeoutError:
                pass
            except ClosedError:
                return
            else:
                item.lane.input.taken += item.frame is not None
                if self._first is None and item.frame is not None:
                    self._first = time.monotonic()
                item.lane.take(item, self._zero)
                del item
            now = time.monotonic()
            if self._zero is None:
                self._begin_if_ready(now)
            if self._zero is not None:
                self._advance(self._zero, now)
            if now - self._reported >= REPORT:
                self._reported = now
                self._report()

    def _begin_if_ready(self, now: float) -> None:
        if self._first is None:
            return
        waited = now - self._first
        missing = [lane for lane in self._lanes if not lane.came and not lane.ended]
        patience = WAIT if any(lane.kind == "video" for lane in missing) else SETTLE
        if waited >= patience or any(lane.full for lane in self._lanes):
            self._begin()

    def _begin(self) -> None:
        """Choose the file's streams, by what has come so far."""
        assert self._output is not None
        movie = self._movie = Movie(self._output, self._format)
        with self._lock:
            expected = [lane for lane in self._lanes if lane.came or not lane.ended]
            for lane in expected:
                if lane.kind == "video":
                    size = LATE_SIZE
                    if lane.came:
                        frame = lane.held[0].frame
                        size = (max(frame.width & ~1, 2), max(frame.height & ~1, 2))
                    else:
                        logger.warning(
                            "%s: no picture of %s within %g s; it will be recorded in %d x %d",
                            self.label,
                            lane.label,
                            WAIT,
                            *size,
                        )
                    lane.sink = movie.add_pictures(*size)
                    self._streams.append(lane.sink)
            if any(lane.kind == "audio" for lane in expected):
                self._sound = movie.add_sound()
                self._streams.append(self._sound)
            for lane in self._lanes:
                if self._sound is not None and lane.kind == "audio":
                    lane.sink = Voice(self._sound.mixer)
            self._zero = min(lane.earliest() for lane in self._lanes if lane.held)

    def _advance(self, zero: float, now: float) -> None:
        for lane in self._lanes:
            lane.advance(zero, now)
        if self._sound is not None:
            voices = [lane for lane in self._lanes if isinstance(lane.sink, Voice)]
            ends = [v.sink.end for v in voices if not v.ended and isinstance(v.sink, Voice)]
            live = any(not lane.ended for lane in self._lanes)
            latest = round((now - zero - HOLD) * AUDIO_RATE) if live else 0
            ready = max(min(ends, default=0), latest)
            self._sound.write_until(ready - ready % SAMPLES_PER_FRAME)

    def _close(self) -> None:
        """Write the rest, and the file's end."""
        for lane in self._lanes:
            lane.ended = True
        if self._zero is None and any(lane.held for lane in self._lanes):
            self._begin()
        if self._zero is None:
            raise MediaError(self._why_nothing())
        for lane in self._lanes:
            lane.release(self._zero)
            if not lane.came:
                logger.warning("%s: there was no frame of %s", self.label, lane.label)
        if self._sound is not None:
            ends = [lane.sink.end for lane in self._lanes if isinstance(lane.sink, Voice)]
            self._sound.write_until(max(ends, default=0))
        for stream in self._streams:
            stream.flush()
        assert self._movie is not None
        assert self._output is not None
        self._movie.close()
        if self._output.error is not None:
            raise self._output.error
        self._output.close()

    def _why_nothing(self) -> str:
        if not self._lanes:
            return f"{self.label}: nothing was recorded: it had no track; add() one"
        names = ", ".join(lane.label for lane in self._lanes)
        return f"{self.label}: nothing was recorded: no frame came of {names}; is it being sent?"

    def _fail(self, error: Exception) -> None:
        output = self._output
        if isinstance(error, MediaError):
            self.error = error
        elif isinstance(error, (OSError, FFmpegError)):
            cause = output.error if output is not None and output.error is not None else error
            self.error = MediaError(
                f"{self.label}: writing failed: {cause.strerror}; what was written before can "
                "be played"
            )
            self.error.__cause__ = cause
        else:
            self.error = MediaError(f"{self.label} failed: {error!r}")
            self.error.__cause__ = error
        logger.error("%s", self.error)
        if self._movie is not None and output is not None:
            output.fail(OSError("given up"))
            with contextlib.suppress(Exception):
                self._movie.close()

    def _report(self, *, last: bool = False) -> None:
        streams = tuple(
            RecordedStream(
                stream.kind,
                stream.codec,
                stream.frames,
                stream.end,
                (stream.fitter.width, stream.fitter.height)
                if isinstance(stream, Pictures)
                else None,
            )
            for stream in self._streams
        )
        kind = "video" if any(stream.kind == "video" for stream in streams) else "audio"
        self.info = RecordingInfo(
            self._path,
            max((stream.duration for stream in streams), default=0.0),
            sum(stream.frames for stream in streams if stream.kind == kind),
            sum(lane.input.dropped for lane in self._lanes),
            self._output.size if self._output is not None else 0,
            streams,
        )
        if self.on_progress is not None:
            self.on_progress(self.info, last)


_running: weakref.WeakSet[Recording] = weakref.WeakSet()


def _finish_all(deadline: Deadline) -> None:
    """Let files be finished before the interpreter exits."""
    mine = [one for one in tuple(_running) if one.born == guard.generation()]
    for recording in mine:
        recording.stop()
    for recording in mine:
        recording.done.wait(deadline)


loop.at_exit(_finish_all)
