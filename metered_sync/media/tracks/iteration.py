"""Iterate over the frames of any track."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, overload

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, VideoFrame

from metered_sync.bridge import engines, guard
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.process import is_exiting
from metered_sync.engine.sending.fed_track import encoded_format
from metered_sync.engine.sending.kept_loop import receive
from metered_sync.errors import ClosedError, EngineError, MediaError
from metered_sync.media.sources.base import Source
from metered_sync.media.tracks.frame_queue import F_co
from metered_sync.media.tracks.given import one_track
from metered_sync.media.tracks.track import RemoteTrack

__all__ = ["iter_frames"]


@overload
def iter_frames(
    track: RemoteTrack[F_co],
    *,
    mode: Literal["latest", "fifo"] | None = None,
    maxsize: int | None = None,
    timeout: float | None = None,
) -> Iterator[F_co]: ...
@overload
def iter_frames(
    track: MediaStreamTrack | Source | None, *, timeout: float | None = None
) -> Iterator[VideoFrame | AudioFrame]: ...
def iter_frames(
    track: RemoteTrack[Any] | MediaStreamTrack | Source | None,
    *,
    mode: Literal["latest", "fifo"] | None = None,
    maxsize: int | None = None,
    timeout: float | None = None,
) -> Iterator[Any]:
    """Yield a track's frames until it ends, or the interpreter exits.

    A :class:`RemoteTrack` is read as its :meth:`~RemoteTrack.frames` are. A local track
    (a source that has one, ``source.video``, or any aiortc track) is asked for a frame when the
    loop wants one, so that none is lost. Its frames go to one consumer only, so what is being
    sent as well is better opened twice; and one that fills a queue of its own, as aiortc's
    ``MediaPlayer`` does, grows while the loop is slow.

    Args:
        track: The track to read, or a source that has one track.
        mode: As for :meth:`RemoteTrack.frames`, and for a :class:`RemoteTrack` only.
        maxsize: Likewise.
        timeout: Seconds to wait for each frame; ``None`` waits for it, the end or Ctrl-C.

    Returns:
        An iterator of ``av.VideoFrame`` or ``av.AudioFrame``, for any number of threads.

    Raises:
        MeteredTimeoutError: While iterating: a frame did not come in time. One may go on.
        MeteredError: While iterating: what ended the track's connection.
        MediaError: ``None`` instead of a track, as a source's ``.video`` is where it lacks it.
        TypeError: Anything else that is not a track, such as a source with pictures and sound.
    """
    Deadline.of(timeout)
    one = one_track(track, "iter_frames()")
    if isinstance(one, RemoteTrack):
        frames = one.frames(mode=mode, maxsize=maxsize)
        return _FrameIterator(lambda deadline: frames.get(timeout=deadline.left()), timeout)
    if mode is not None or maxsize is not None:
        raise ValueError("mode and maxsize go with a RemoteTrack: a local track waits to be asked")
    format = encoded_format(one)
    if format is not None:
        raise MediaError(
            f"iter_frames(): this {one.kind} track is {format}, as it was encoded: it can be "
            "sent and recorded; open its source without encoded=True to look at its frames"
        )
    return _FrameIterator(_LocalFrames(one), timeout)


class _FrameIterator(guard.LiveObject, Iterator[Any]):
    """Take frames until there are no more, each with a deadline of its own."""

    def __init__(self, take: Callable[[Deadline], Any], timeout: float | None) -> None:
        self._take = take
        self._timeout = timeout

    def __next__(self) -> Any:
        try:
            return self._take(Deadline.of(self._timeout))
        except ClosedError:
            raise StopIteration from None


class _LocalFrames:
    """Take frames of a local track, on the engine's loop."""

    def __init__(self, track: MediaStreamTrack) -> None:
        self._track = track
        self._label = f"iter_frames() of a local {track.kind} track"
        self._born = guard.generation()

    def __call__(self, deadline: Deadline) -> Any:
        guard.check_process(self._born, self._label)
        try:
            with engines.in_use() as engine:
                return engine.call(receive, self._track, deadline=deadline, what=self._label)
        except MediaStreamError:
            raise ClosedError(f"{self._label}: it has ended") from None
        except EngineError as error:
            if not is_exiting():
                raise
            raise ClosedError(f"{self._label}: {error}") from None
