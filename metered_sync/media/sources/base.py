"""Give all sources of media their tracks, their clock, and one way to be stopped."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, NoReturn

from aiortc.mediastreams import MediaStreamTrack

from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.guard import LiveObject
from metered_sync.engine.sending.fed_track import FedTrack
from metered_sync.engine.sending.feed import Feed, FeedQueue
from metered_sync.engine.webrtc.stream_formats import StreamFormat
from metered_sync.errors import MediaError, MeteredTimeoutError, raise_fresh

if TYPE_CHECKING:  # a plain ``Source`` is one that may lack either
    from typing_extensions import TypeVar

    A_co = TypeVar("A_co", default=MediaStreamTrack | None, covariant=True)
    V_co = TypeVar("V_co", default=MediaStreamTrack | None, covariant=True)
else:
    from typing import TypeVar

    A_co = TypeVar("A_co", covariant=True)
    V_co = TypeVar("V_co", covariant=True)

__all__ = ["A_co", "Source", "TrackSource", "V_co"]

Self = TypeVar("Self", bound="Source[Any, Any]")


class Source(LiveObject, Generic[A_co, V_co]):
    """Play media into tracks that are passed on, all on one clock.

    Playing starts when a track is first consumed (that is, once something that was
    published is connected) and ends at the source's end, at :meth:`stop`, or when the
    last of the tracks handed out is stopped. A source whose tracks are in use stays
    alive; one that is forgotten stops. Safe to use from many threads at once.
    """

    def __init__(
        self,
        label: str,
        queues: Mapping[str, int],
        produce: Callable[[Feed], None] | None,
        *,
        queue: Callable[[Feed, str, int], FeedQueue] = FeedQueue,
        formats: Mapping[str, StreamFormat] = MappingProxyType({}),
        refused: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Make the tracks.

        Args:
            label: What it is called in errors, for instance ``"from_file('clip.mp4')"``.
            queues: Which kinds it has, and how many frames of each are prepared ahead.
            produce: Puts the frames, on a thread of its own; must not hold the source.
                ``None`` where callers push.
            queue: Makes a queue; called with the feed, the kind and the number in ``queues``.
            formats: The formats of tracks that are encoded already, by kind.
            refused: Why there are no tracks of other kinds, by kind.
        """
        self._refused = refused
        self._label = label
        self._feed = Feed(label, produce)
        self._tracks = {
            kind: FedTrack(queue(self._feed, kind, queues[kind]), self, formats.get(kind))
            for kind in ("video", "audio")
            if kind in queues
        }
        weakref.finalize(self, self._feed.abandon).atexit = False

    def __repr__(self) -> str:
        state = "stopped" if self._feed.stopped else "playing" if self._feed.started else "ready"
        return f"<{type(self).__name__} {self._label}: {state}, {self.position:.2f} s>"

    @property
    def audio(self) -> A_co:
        """The audio track, or ``None`` where the source has none."""
        track: A_co = self._hand_out("audio")
        return track

    @property
    def video(self) -> V_co:
        """The video track, or ``None`` where the source has none."""
        track: V_co = self._hand_out("video")
        return track

    @property
    def tracks(self) -> list[MediaStreamTrack]:
        """All tracks, video first."""
        kinds = (*self._tracks, *self._refused)
        return [track for kind in kinds if (track := self._hand_out(kind)) is not None]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of its tracks: ``("video", "audio")``, or one of them."""
        return tuple(self._tracks)

    if not TYPE_CHECKING:  # a type checker would take it for what there is

        def __iter__(self) -> NoReturn:
            raise TypeError(
                f"a {type(self).__name__} is not iterated over itself: use "
                "iter_frames(source.video) or iter_frames(source.audio)"
            )

    @property
    def position(self) -> float:
        """The position that is played, in seconds from the source's beginning."""
        return self._feed.position

    @property
    def frames_sent(self) -> dict[str, int]:
        """The number of frames handed out to be sent, by kind: ``{"video": 132, …}``."""
        return {kind: track._queue.handed for kind, track in self._tracks.items()}

    def wait(self, *, timeout: float | None = None) -> None:
        """Wait until all has been played, or the source is stopped.

        Args:
            timeout: Seconds to wait; ``None`` waits for the end or Ctrl-C; 0 polls.

        Raises:
            MeteredTimeoutError: It did not end in time. It goes on playing.
            MediaError: Playing failed.
        """
        deadline = Deadline.of(timeout)
        self._feed.check_call(deadline)
        if not self._feed.wait(deadline):
            how = "" if self._feed.started else "; nobody consumes its tracks yet"
            raise MeteredTimeoutError(
                f"{self._label}: not played to the end within {deadline}{how}"
            )
        raise_fresh(self._feed.error)

    def stop(self) -> None:
        """Stop playing and end the tracks, for good. Stopping again does nothing."""
        self._feed.check_process()
        self._feed.stop()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _hand_out(self, kind: str) -> Any:
        self._feed.check_process()
        if kind in self._refused:
            raise MediaError(self._refused[kind])
        track = self._tracks.get(kind)
        if track is None:
            return None
        if not track._queue.wanted:
            track._queue.wanted = True
            if self._feed.started:  # it has been left out so far
                self._feed.seek(self._feed.position)
        return track


class TrackSource(Source[A_co, V_co]):
    """A source that has one track by its nature, and stands for that track.

    It may be given wherever a track is taken.
    """

    @property
    def track(self) -> MediaStreamTrack:
        """The track that the source stands for."""
        (track,) = self.tracks
        return track

    @property
    def kind(self) -> str:
        """The track's kind: ``"audio"`` or ``"video"``."""
        (kind,) = self._tracks
        return kind

    @property
    def id(self) -> str:
        """The track's id."""
        return str(self._tracks[self.kind].id)
