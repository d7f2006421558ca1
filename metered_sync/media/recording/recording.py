"""Run a recording: one thread that places, encodes and writes the frames of its tracks.

The first frames wait until it is known which streams the file has (``FIRST_PICTURE_WAIT``). The
thread does not know the :class:`~metered_sync.Recorder`, which may be collected meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Callable

from av import Packet, VideoFrame

from metered_sync.bridge import guard, process
from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.deadline import Deadline, Latch
from metered_sync.bridge.reader import Reader
from metered_sync.bridge.threads import start_thread
from metered_sync.engine.webrtc.media_frames import AUDIO_RATE, SAMPLES_PER_FRAME
from metered_sync.engine.webrtc.pictures import PictureNormalizer
from metered_sync.errors import ClosedError, EngineError, MediaError, MeteredTimeoutError
from metered_sync.media.file_objects import FileObject
from metered_sync.media.opening import open_in_time
from metered_sync.media.pyav import READ_ERRORS, media_error, media_errors
from metered_sync.media.recording.formats import TAKEN, FileFormat
from metered_sync.media.recording.info import RecordedStream, RecordingInfo
from metered_sync.media.recording.inputs import PLACING_TIME, QueuedFrame, RecordedTrack
from metered_sync.media.recording.mixing import MixerInput
from metered_sync.media.recording.muxing import Muxer, PacketStream, VideoStream, decoded_size
from metered_sync.media.recording.output_file import OutputFile
from metered_sync.media.recording.sound import AudioStream
from metered_sync.media.tracks.given import AnyTrack

__all__ = ["Recording"]

logger = logging.getLogger("metered_sync")
FIRST_PICTURE_WAIT = 3.0
"""Seconds that the first frame waits for the first pictures of other tracks."""
FIRST_KEY_FRAME_WAIT = 12.0
"""The same for tracks that are encoded already, whose first picture must be a key frame."""
DEFAULT_SIZE = (640, 480)
"""The size, in pixels, of a video track that has not shown a picture by then."""
MAX_MIXING_WAIT = 2.0
"""Seconds that a track's sound waits for that of other tracks, to be mixed."""
LOOK_INTERVAL = 0.1
"""Seconds between two looks at which frames are ready to be written."""
REPORT_INTERVAL = 0.5
"""Seconds between two calls of ``on_progress``."""


class Recording:
    """Run a recording, from its start to the end of its file."""

    def __init__(self, label: str, target: str | FileObject, format: FileFormat) -> None:
        self.label = label
        self.born = guard.generation()
        self.done = Latch()
        """A signal that the file is closed."""
        self.error: BaseException | None = None
        self.path = target.name if isinstance(target, FileObject) else target
        """The file's path, or what an open one is called."""
        self.info = RecordingInfo(self.path, 0.0, 0, 0, 0, ())
        self.on_progress: Callable[[RecordingInfo, bool], None] | None = None
        """A function that is called with the info, and whether it is the last. Must not block."""
        self.owner: object = None
        """A recorder with a callback, which is kept alive as long as it records."""
        self._target = target
        self._format = format
        self._taken = TAKEN.get(format.container, ())
        self._inbox: Reader[QueuedFrame] = Reader(label, maxsize=1 << 20)
        self._lock = threading.Lock()  # guards adding tracks, and the choice of streams
        self._tracks: tuple[RecordedTrack, ...] = ()
        self._output: OutputFile | None = None
        self._muxer: Muxer | None = None
        self._streams: list[VideoStream | PacketStream | AudioStream] = []
        self._sound: AudioStream | None = None
        self._zero: float | None = None
        self._first: float | None = None
        self._reported = monotonic()
        self._thread = threading.Thread(target=self._run, name=f"metered-sync-{label}", daemon=True)

    # --- any thread ---

    @property
    def running(self) -> bool:
        """Whether the recording has begun, and not ended."""
        return self._output is not None and not self.done.is_set

    def open(self, deadline: Deadline) -> None:
        """Open the file; ``MeteredTimeoutError`` where that takes too long."""
        opened = None
        with media_errors(f"{self.path!r} cannot be written"), contextlib.suppress(TimeoutError):
            opened = open_in_time(lambda: OutputFile(self._target), deadline, self.label)
        if opened is None:
            raise MeteredTimeoutError(
                f"{self.label}: {self.path!r} could not be opened within {deadline}; is it a pipe "
                "that nobody reads, or on a disk that does not answer?"
            )
        self._output = opened

    def start(self, deadline: Deadline) -> None:
        """Start the thread, and have all tracks deliver their frames."""
        try:
            start_thread(self._thread)
        except EngineError as error:
            self._fail(error)
            self._end()
            raise
        _running[self] = None
        for track in self._tracks:
            track.reader.attach(deadline)

    def add(self, added: AnyTrack) -> RecordedTrack:
        """Add a track, whose reader is still to be attached."""
        track = RecordedTrack(added, self._inbox, self._taken)
        with self._lock:
            if self._zero is not None and (track.kind == "video" or self._sound is None):
                raise MediaError(
                    f"{self.label}: {track.label} comes too late: the file has been begun "
                    f"without {track.kind} of it; add it before, or record it to another file"
                )
            self._tracks = (*self._tracks, track)
        return track

    def stop(self) -> None:
        """End the recording once the frames that have come are written. Takes no lock."""
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
        for track in self._tracks:
            track.reader.detach()
        if self._output is not None:
            with contextlib.suppress(OSError):
                self._output.close()
        self._report(last=True)
        self.owner = self.on_progress = None
        _running.pop(self, None)
        self.done.set()

    def _record(self) -> None:
        while True:
            try:
                item = self._inbox.get(timeout=LOOK_INTERVAL)
            except MeteredTimeoutError:
                pass
            except ClosedError:
                return
            else:
                item.track.reader.taken += item.frame is not None
                if self._first is None and item.frame is not None:
                    self._first = monotonic()
                item.track.take(item, self._zero)
                del item
            now = monotonic()
            if self._zero is None:
                self._begin_if_ready(now)
            if self._zero is not None:
                self._advance(self._zero, now)
            if now - self._reported >= REPORT_INTERVAL:
                self._reported = now
                self._report()

    def _begin_if_ready(self, now: float) -> None:
        if self._first is None:
            return
        waited = now - self._first
        missing = [track for track in self._tracks if not track.came and not track.ended]
        slow = any(track.kind == "video" for track in missing)
        patience = FIRST_PICTURE_WAIT if slow else PLACING_TIME
        if any(track.kind == "video" and track.encoded for track in missing):
            patience = FIRST_KEY_FRAME_WAIT
        if waited >= patience or any(track.full for track in self._tracks):
            self._begin()

    def _begin(self) -> None:
        """Choose the file's streams, by the frames that have come so far."""
        assert self._output is not None
        muxer = self._muxer = Muxer(self._output, self._format)
        with self._lock:
            expected = [track for track in self._tracks if track.came or not track.ended]
            for track in expected:
                if track.kind == "video" and (track.came or not track.encoded):
                    track.sink = self._stream_of(muxer, track)
                    self._streams.append(track.sink)
            if voices := [track for track in expected if track.kind == "audio"]:
                passed = all(isinstance(item.frame, Packet) for v in voices for item in v.held)
                alone = len(voices) == 1 and "opus" in self._taken
                self._sound = muxer.add_sound(passes=alone and passed)
                self._streams.append(self._sound)
            self._zero = min(track.earliest() for track in self._tracks if track.held)
        for track in expected:
            if track.kind == "video" and not track.encoded and not track.came:
                # (Told without the lock.)
                logger.warning(
                    "%s: no picture of %s within %g s; it will be recorded in %d x %d",
                    self.label,
                    track.label,
                    FIRST_PICTURE_WAIT,
                    *DEFAULT_SIZE,
                )

    def _stream_of(self, muxer: Muxer, track: RecordedTrack) -> VideoStream | PacketStream:
        """Return the stream for a track's pictures, after the first of them."""
        first = track.held[0].frame if track.came else None
        if isinstance(first, Packet):
            assert track.format is not None
            codec, data = track.format.codec, bytes(first)
            size = decoded_size(codec, data)
            if size is not None or track.encoded:
                return muxer.add_packets(codec, data, size or DEFAULT_SIZE, track.colours)
        track.reader.reads_frames = True
        if not isinstance(first, VideoFrame):
            return muxer.add_pictures(*DEFAULT_SIZE)
        frame = PictureNormalizer().normal(first)
        return muxer.add_pictures(frame.width, frame.height)

    def _share_sound(self, sound: AudioStream) -> None:
        """Have the sound of one track written as it is, if that can be; mix that of several."""
        tracks = [track for track in self._tracks if track.kind == "audio"]
        mixed = len(tracks) > 1 or not sound.passes
        for track in tracks:
            if not mixed:
                track.sink = sound
            elif not isinstance(track.sink, MixerInput):
                track.sink = sound.mix()

    def _advance(self, zero: float, now: float) -> None:
        if self._sound is not None:
            self._share_sound(self._sound)
        for track in self._tracks:
            track.advance(zero, now)
        if self._sound is not None:
            voices = [track for track in self._tracks if isinstance(track.sink, MixerInput)]
            ends = [v.sink.end for v in voices if not v.ended and isinstance(v.sink, MixerInput)]
            live = any(not track.ended for track in self._tracks)
            if self._sound.passes and len(self._inbox):
                live = False  # what seems to be a gap may be waiting there
            latest = round((now - zero - MAX_MIXING_WAIT) * AUDIO_RATE) if live else 0
            ready = max(min(ends, default=0), latest)
            self._sound.write_until(ready - ready % SAMPLES_PER_FRAME)

    def _close(self) -> None:
        """Write the held frames, and the file's end."""
        for track in self._tracks:
            track.ended = True
        if self._zero is None and any(track.held for track in self._tracks):
            self._begin()
        if self._zero is None:
            raise MediaError(self._why_nothing())
        if self._sound is not None:
            self._share_sound(self._sound)
        for track in self._tracks:
            track.release(self._zero)
            if not track.came:
                logger.warning("%s: there was no frame of %s", self.label, track.label)
        if self._sound is not None:
            ends = [track.sink.end for track in self._tracks if isinstance(track.sink, MixerInput)]
            self._sound.write_until(max(ends, default=0))
        for stream in self._streams:
            stream.flush()
        assert self._muxer is not None
        assert self._output is not None
        self._muxer.close()
        if self._output.error is not None:
            raise self._output.error
        self._output.close()

    def _why_nothing(self) -> str:
        if not self._tracks:
            return f"{self.label}: nothing was recorded: it had no track; add() one"
        names = ", ".join(track.label for track in self._tracks)
        return f"{self.label}: nothing was recorded: no frame came of {names}; is it being sent?"

    def _fail(self, error: Exception) -> None:
        output = self._output
        if isinstance(error, MediaError):
            self.error = error
        elif isinstance(error, READ_ERRORS):
            cause = output.error if output is not None and output.error is not None else error
            remedy = "what was written before can be played"
            self.error = media_error(f"{self.label}: writing failed", cause, remedy=remedy)
        else:
            self.error = media_error(f"{self.label} failed", error, reason=repr(error))
        logger.error("%s", self.error)
        if self._muxer is not None and output is not None:
            output.fail(OSError("given up"))
            with contextlib.suppress(Exception):
                self._muxer.close()

    def _report(self, *, last: bool = False) -> None:
        streams = tuple(
            RecordedStream(
                stream.kind,
                stream.codec,
                stream.frames,
                stream.end,
                None if isinstance(stream, AudioStream) else stream.size,
            )
            for stream in self._streams
        )
        kind = "video" if any(stream.kind == "video" for stream in streams) else "audio"
        self.info = RecordingInfo(
            self.path,
            max((stream.duration for stream in streams), default=0.0),
            sum(stream.frames for stream in streams if stream.kind == kind),
            sum(track.reader.dropped for track in self._tracks),
            self._output.size if self._output is not None else 0,
            streams,
        )
        if self.on_progress is not None:
            self.on_progress(self.info, last)


_running: weakref.WeakKeyDictionary[Recording, None] = weakref.WeakKeyDictionary()
"""Recordings whose file is to be finished at the interpreter's exit. (A weak set cannot be looked
through while the thread of one of them takes it out.)"""


def _finish_all(deadline: Deadline) -> None:
    """Finish the files of all recordings before the interpreter exits."""
    there = [one for ref in _running.keyrefs() if (one := ref()) is not None]
    mine = [one for one in there if one.born == guard.generation()]
    for recording in mine:
        recording.stop()
    for recording in mine:
        recording.done.wait(deadline)


process.at_exit("finish", _finish_all)
