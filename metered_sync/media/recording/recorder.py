"""Record tracks to a media file."""

from __future__ import annotations

import os
import stat
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import IO, Any, Literal, Protocol, TypeVar

from metered_sync.bridge import guard
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.dispatch import Callback, Dispatcher
from metered_sync.bridge.reader import Reader
from metered_sync.bridge.threads import run_within
from metered_sync.engine.sending.fed_track import encoded_format
from metered_sync.errors import (
    ClosedError,
    MediaError,
    MediaNotFoundError,
    MeteredTimeoutError,
    raise_fresh,
)
from metered_sync.media.file_objects import FileObject
from metered_sync.media.recording.formats import (
    FILE_FORMATS,
    TAKEN,
    FileFormat,
    check_encoders,
)
from metered_sync.media.recording.info import RecordingInfo
from metered_sync.media.recording.recording import Recording
from metered_sync.media.tracks.given import AnyTrack, TrackLike, tracks_of
from metered_sync.wire.arguments import check_function, shown

__all__ = ["Recorder"]

Self = TypeVar("Self", bound="Recorder")
CALL_TIMEOUT = 15.0
"""Seconds that a call may take unless told otherwise."""


class HasTracks(Protocol):
    """An object with tracks to record: a member of a room, a stream."""

    @property
    def tracks(self) -> Sequence[Any]: ...


class Recorder(guard.LiveObject):
    """Write tracks to a media file, on a thread of its own.

    ``with`` starts and stops; so do :meth:`start` and :meth:`stop`. The file's suffix says
    what it is: ``.mp4`` (H.264 and AAC), ``.mkv`` (H.264 and Opus), ``.webm`` (VP8 and Opus);
    for sound only ``.m4a``, ``.wav``, ``.opus`` and ``.ogg``. A file that exists is
    overwritten when the recording starts.

    **Tracks.** Each video track becomes a stream of its own, in the size of its first
    picture; later ones of other sizes are scaled to fit, with black bars. Pictures that arrive, or
    are encoded already at their source (``encoded=True``, :class:`EncodedSource`), are written as
    they are where the file takes their codec (H.264 in ``.mp4`` and ``.mkv``, VP8 in ``.webm`` and
    ``.mkv``), from a key frame on, each in its own size. All sound goes into one stream, 48 kHz and
    stereo, with silence where none comes: that of several tracks is mixed; that of one alone is
    written as it is where it is Opus, and the file takes that (all but ``.mp4``, ``.m4a`` and
    ``.wav``). The recording begins with the first frame of
    any track. Tracks are in step by when they arrived here, then follow their own clocks. A local
    track can be recorded while it is published; recording it starts its source. A track that
    arrives can be read meanwhile.

    **Robust.** A file can be played whatever becomes of the process: it lacks the last second
    or so if that is killed. Where encoder or disk are too slow, frames are dropped and
    counted. A recorder that is forgotten is finished, with a ``ResourceWarning``, and
    at the interpreter's exit. Safe to use from many threads at once.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | IO[bytes],
        *tracks: TrackLike | HasTracks | Sequence[TrackLike | HasTracks],
        on_progress: Callable[[RecordingInfo], object] | None = None,
        format: str | None = None,
    ) -> None:
        """Prepare a recording; nothing is written before :meth:`start`.

        Args:
            path: The file; its directory must exist. Or a binary file that is open for
                writing and can be sought in (``io.BytesIO``, a temporary file): it is
                written from its beginning, and stays open.
            tracks: What to record: tracks that arrive, local ones (any aiortc track),
                anything that has ``.tracks`` (sources, streams, peers), or lists of these.
            on_progress: Called as ``on_progress(info)`` with a :class:`RecordingInfo` about
                twice a second, and at the end, on a thread of its own. It may block and call
                anything; calls that fall due meanwhile are left out. What it raises is
                logged and stops nothing.
            format: What the file is to be, ``"mp4"`` for instance, where its name does not
                say it with a suffix.

        Raises:
            ValueError: A suffix that stands for no format.
            MediaNotFoundError: There is no such directory.
            MediaError: It cannot be written there, or not what these tracks deliver; or this
                build of PyAV lacks an encoder.
            MeteredTimeoutError: The file system did not answer within 15 s.
            TypeError: Something that is neither a track nor has any.
        """
        target: str | FileObject
        if isinstance(path, (str, os.PathLike)):
            target = name = _text_of(path)
        else:
            target = FileObject(path, "Recorder", writing=True)
            name = target.name
        self._format = _format_of(name, format)
        if isinstance(target, str):
            what = f"Recorder: asking the file system of {name!r} for its directory"
            run_within(Deadline(CALL_TIMEOUT), what, _check_place, name)
        check_encoders(self._format, name)
        self._label = f"Recorder({os.path.basename(name)!r})"
        self._recording = Recording(self._label, target, self._format)
        self._tracks: list[AnyTrack] = []
        self._calls = guard.CallLock()  # of add(), start() and stop()
        self._tried = False
        """Whether somebody has tried to start it."""
        self._stopped = False
        self._finalizer: Any = None
        if on_progress is not None:
            check_function("on_progress", on_progress, arguments=1)
        self._on_progress = on_progress
        for one in tracks:
            self.add(one)

    def __repr__(self) -> str:
        return f"<{self._label}: {self.state}, {self.info.duration:.1f} s>"

    @property
    def state(self) -> Literal["ready", "recording", "stopped", "failed"]:
        """``"ready"``, ``"recording"``, ``"stopped"``, or ``"failed"``: see :meth:`stop`."""
        if self._recording.error is not None:
            return "failed"
        if self._recording.running:
            return "recording"
        return "stopped" if self._stopped else "ready"

    @property
    def info(self) -> RecordingInfo:
        """How far the recording has come: half a second old at most, final once it has stopped."""
        return self._recording.info

    def add(
        self,
        track: TrackLike | HasTracks | Sequence[TrackLike | HasTracks],
        *,
        timeout: float | None = None,
    ) -> None:
        """Record one more track, or those of a source; tracks that it has are left as they are.

        Sound can be added any time, to a file that has some; pictures only before the file is
        begun, which is soon after the first frames have come.

        Raises:
            MediaError: The file cannot take it (any more); or ``None``, as a source's
                ``.video`` or ``.audio`` is where it lacks it.
            TypeError: Neither a track nor anything that has tracks.
            ClosedError: The recording has been stopped.
        """
        deadline = Deadline.of(timeout, CALL_TIMEOUT)
        guard.check_process(self._recording.born, self._label)
        for one in _tracks(track):
            if one.kind == "video" and self._format.video is None:
                raise MediaError(
                    f"{self._label}: this kind of file holds sound only, and {one!r} is video: "
                    "pass .audio of its source, or record to .mp4, .mkv or .webm"
                )
            _check_codec(one, self._format, self._label)
            with self._calls.held(deadline, f"{self._label}: add"):
                if self._stopped or self._recording.done.is_set:
                    raise ClosedError(f"{self._label} has stopped: make a new one")
                if any(one is other for other in self._tracks):
                    continue
                recorded = self._recording.add(one)
                self._tracks.append(one)
                if self._recording.running:
                    recorded.reader.attach(deadline)

    def start(self, *, timeout: float | None = None) -> None:
        """Open the file and start recording. Returns at once if it is recording.

        Raises:
            MediaError: The file cannot be written.
            ClosedError: It has been stopped: make a new one.
        """
        deadline = Deadline.of(timeout, CALL_TIMEOUT)
        recording = self._recording
        guard.check_blocking(recording.born, self._label)
        with self._calls.held(deadline, f"{self._label}: start"):
            if self._stopped:
                raise ClosedError(f"{self._label} has stopped: make a new one")
            if recording.running:
                return
            self._tried = True
            recording.open(deadline)
            if self._on_progress is not None:
                recording.on_progress = _reporter(self._label, self._on_progress)
                recording.owner = self
            self._finalizer = weakref.finalize(self, _forgotten, recording)
            self._finalizer.atexit = False
            try:
                recording.start(deadline)
            except BaseException:
                recording.stop()  # a block's end, which would do it, is never reached
                raise

    def stop(self, *, timeout: float | None = None) -> RecordingInfo:
        """Write the frames that have come so far, close the file, and return its final info.

        Stopping again returns the same, or raises the same.

        Args:
            timeout: Seconds to wait for that, 15 unless given; it goes on afterwards.

        Raises:
            MediaError: Nothing was recorded, or it was never started; or writing failed, at this
                time or before: then what was written until then can be played, and :attr:`info`
                tells how much.
            MeteredTimeoutError: The file was not finished in time.
        """
        deadline = Deadline.of(timeout, CALL_TIMEOUT)
        recording = self._recording
        guard.check_blocking(recording.born, self._label)
        with self._calls.held(deadline, f"{self._label}: stop"):
            if not self._tried:
                raise MediaError(
                    f"{self._label}: nothing was recorded, because it was never started: use "
                    "`with`, or call start() first"
                )
            self._stopped = True
            if self._finalizer is None:  # start() has said why
                return recording.info
        recording.stop()
        if not recording.done.wait(deadline):
            raise MeteredTimeoutError(
                f"{self._label}: the file was not finished within {deadline}; it still is being"
            )
        self._finalizer.detach()
        raise_fresh(recording.error)
        return recording.info

    def __enter__(self: Self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        try:
            self.stop()
        except MediaError:
            if kind is None:  # else it has been logged, and the block's own error goes on
                raise


def _check_codec(track: AnyTrack, format: FileFormat, label: str) -> None:
    """Raise where pictures that are encoded already do not go into this kind of file."""
    stream = encoded_format(track)
    if track.kind == "video" and stream is not None:
        taken = [name for name, codecs in TAKEN.items() if stream.codec in codecs]
        if format.container not in taken:
            raise MediaError(
                f"{label}: pictures that are encoded already are written as they are, and this "
                f"kind of file takes no {stream}: record to .mkv"
                + (" or .mp4" if "mp4" in taken else " or .webm")
            )


def _text_of(path: str | os.PathLike[str]) -> str:
    """Return a path as text."""
    name = os.fspath(path)
    if not isinstance(name, str):
        raise TypeError(f"path must be a str or a path object, not {type(name).__name__}")
    return name


def _format_of(name: str, format: object) -> FileFormat:
    """Return the format that was asked for, or that a file's suffix stands for."""
    known = ", ".join(sorted(FILE_FORMATS))
    if format is None:
        suffix = os.path.splitext(name)[1].lower()
        if suffix not in FILE_FORMATS:
            raise ValueError(
                f"the suffix of {shown(name)} stands for no format; one of these does: {known} "
                '(of a file that is open: format="mp4" says it, too)'
            )
        return FILE_FORMATS[suffix]
    asked = "." + format.lower().removeprefix(".") if isinstance(format, str) else ""
    if asked not in FILE_FORMATS:
        raise ValueError(f"format must be one of {known}, not {shown(format)}")
    return FILE_FORMATS[asked]


def _check_place(name: str) -> None:
    """Raise where a file of this name cannot be recorded to."""
    directory = os.path.dirname(os.path.abspath(name))
    if not os.path.isdir(directory):
        raise MediaNotFoundError(f"{name!r} cannot be written: there is no directory {directory!r}")
    if os.path.isdir(name):
        raise MediaError(f"{name!r} cannot be written: it is a directory")
    if os.path.exists(name) and stat.S_ISFIFO(os.stat(name).st_mode):
        raise MediaError(
            f"{name!r} cannot be written: it is a pipe, and media is not written from one end to "
            "the other; record to a file"
        )
    if not os.access(name if os.path.exists(name) else directory, os.W_OK):
        raise MediaError(f"{name!r} cannot be written: permission denied")


def _tracks(value: object) -> list[AnyTrack]:
    if isinstance(value, (list, tuple)):
        return [track for one in value for track in _tracks(one)]
    return tracks_of(value)[0]


def _reporter(
    label: str, function: Callable[[RecordingInfo], object]
) -> Callable[[RecordingInfo, bool], None]:
    """Return a function that has another called on a dispatcher thread.

    What falls due while it runs is left out, but for the last.
    """
    callback = Callback(function)
    inbox: Reader[RecordingInfo] = Reader(f"progress of {label}", maxsize=1)
    dispatcher = Dispatcher(label, inbox, lambda info: ((callback, info),))
    dispatcher.start()

    def report(info: RecordingInfo, last: bool) -> None:
        if last or not dispatcher.unfinished:
            inbox.put(info)
        if last:
            inbox.end()

    return report


def _forgotten(recording: Recording) -> None:
    # Runs whenever the collector does, on any thread: no locks here.
    if recording.born == guard.generation() and recording.running:
        recording.stop()
        warnings.warn(
            f"{recording.label} was not stopped; use `with`, or call stop()",
            ResourceWarning,
            stacklevel=2,
        )
