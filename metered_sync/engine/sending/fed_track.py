"""Hand the frames of a feed's queue out as a track of aiortc's, each when it is due."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import Packet

from metered_sync.bridge import guard
from metered_sync.engine.sending.feed import FeedQueue, Frame
from metered_sync.engine.webrtc.stream_formats import StreamFormat

__all__ = ["EncoderFeedback", "FedTrack", "encoded_format"]


class EncoderFeedback(Protocol):
    """An encoder of the user's, which can do what receivers ask for."""

    def key_frame_wanted(self) -> None:
        """Pass on that a receiver needs a key frame."""

    def bitrate_wanted(self, bitrate: int) -> None:
        """Pass on the bits per second that receivers can take."""


class FedTrack(MediaStreamTrack):
    """A track whose frames come from a queue, each when it is due."""

    def __init__(
        self, queue: FeedQueue, source: object, format: StreamFormat | None = None
    ) -> None:
        """Consume ``queue``; keep ``source`` alive as long as this track is.

        ``format`` is that of packets, where they come in the place of frames.
        """
        super().__init__()
        self.format = format
        """The format of what comes, where that is encoded already."""
        self.feedback: EncoderFeedback | None = None
        """The encoder, where it can be told what receivers ask for."""
        self.kind = queue.kind
        self._queue = queue
        self._source = source

    def __repr__(self) -> str:
        return f"<{self.kind} track of {self._source!r}: {self.readyState}>"

    @property
    def readyState(self) -> str:  # noqa: N802
        """``"live"`` or ``"ended"``."""
        return "ended" if self._queue.closed else super().readyState

    async def recv(self) -> Frame:
        """Return the next frame when it is due.

        Raises:
            MediaStreamError: The track has ended.
        """
        feed = self._queue.feed
        feed.check_process()
        frame = await self._queue.take()
        if frame is None:
            self.stop()
            raise MediaStreamError(f"the {self.kind} of {feed.label} has ended")
        return frame

    def on_end(self, listener: Callable[[], object]) -> None:
        """Call a function once the track has ended; see :meth:`FeedQueue.on_close`."""
        self._queue.on_close(listener)

    def off_end(self, listener: Callable[[], object]) -> None:
        """Call a function no longer."""
        self._queue.off_close(listener)

    def latest_group(self) -> list[Packet[Any]]:
        """Return the packets from the latest key frame on that were handed out before."""
        with self._queue.feed.lock:
            return self._queue.latest_group()

    def pass_time(self) -> None:
        """Drop what was not taken in time: a track that ends with it has ended then."""
        with self._queue.feed.lock:
            self._queue.pass_time()

    def stop(self) -> None:
        """End the track; with the last one of its source the source stops."""
        if self._queue.feed.born == guard.generation():  # in a forked child its lock may be taken
            self._queue.close()
        super().stop()


def encoded_format(track: object) -> StreamFormat | None:
    """Return the format of what a track yields, where that is encoded already; else ``None``."""
    return track.format if isinstance(track, FedTrack) else None
