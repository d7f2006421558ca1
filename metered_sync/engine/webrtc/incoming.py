"""Spread the frames of a received track over its readers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import weakref
from collections.abc import Callable, Collection
from typing import Any

from aiortc import RTCRtpReceiver
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from metered_sync.bridge.atomic import Atomic, WeakAtomic
from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.event_hub import EventHub
from metered_sync.bridge.reader import Reader
from metered_sync.engine.webrtc import jitter
from metered_sync.engine.webrtc.aiortc_private.receiving import frames_offered
from metered_sync.engine.webrtc.appearance import Appearances
from metered_sync.engine.webrtc.encoded_frames import EncodedFrame, EncodedFrameReader
from metered_sync.engine.webrtc.media_frames import Frame
from metered_sync.engine.webrtc.picture_extensions import Colours
from metered_sync.engine.webrtc.stats import Received
from metered_sync.wire.key_frames import MAX_PIXELS

__all__ = ["IncomingTrack"]

logger = logging.getLogger("metered_sync")
UNREAD_DECODING = 10.0
"""Seconds for which a track is decoded on when nobody reads it any more, so that somebody who
reads now and then gets a picture at once."""


class IncomingTrack:
    """A received track, whose frames go to any number of readers.

    Frames are taken from aiortc as they come, whether somebody reads or not: its own
    queue is unbounded. They are decoded from the first reader on, while somebody reads, and
    ``UNREAD_DECODING`` seconds longer; see :mod:`metered_sync.engine.webrtc.jitter`. For a
    :class:`EncodedFrameReader` nothing is decoded while it takes frames as they are. Readers are
    held weakly, for they hold their client, which the engine must not keep alive; the tuple is
    replaced, not changed.

    The media connection under it may be rebuilt: :meth:`run` then goes on with another
    receiver. Readers see a pause, and timestamps that go on rising.
    """

    def __init__(
        self,
        kind: str,
        *,
        id: str,
        name: str | None = None,
        stream_id: str | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.kind = kind
        self.id = id
        self.name = name
        self.stream_id = stream_id
        self.frames = 0
        """Frames that came so far, decoded or not."""
        self.decoded = 0
        """Frames decoded so far."""
        self.oversized = 0
        """Key frames that were refused for their size."""
        self.dropped = 0
        """Frames that were wanted and not decoded: the decoder was too slow."""
        self.lacks_key_frame = False
        """Whether its sender owes a key frame, without which nothing can be decoded."""
        self.restarts = 0
        """How often the connection under it was rebuilt."""
        self.last = -math.inf
        """The moment at which the latest frame came (``time.monotonic()``)."""
        self.latency = 0.0
        """Seconds between the latest frame's first packet and the frame: buffers, decoding."""
        self.ended = False
        self.error: BaseException | None = None
        self.received = Received()
        self.hub = EventHub(f"{kind} track {name or id!r}")
        """Hands the track's events to those who listen; it ends with the track."""
        self.on_end: Callable[[IncomingTrack], None] | None = None
        """Called once, when the track ends, before its hub does: to tell of it."""
        self.on_decoded: Callable[[Frame], None] | None = None
        """Called with each frame that was decoded."""
        self.handle: WeakAtomic[Any] = WeakAtomic()
        """The user's object for the track, while there is one."""
        self._max_pixels = max_pixels
        self._appearances = Appearances()
        self._intake: jitter.Intake | None = None
        """What takes its packets; ``None``: frames cannot be had as they are encoded."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop that frames are taken on."""
        self._told_of_key_frames = False
        """Whether it was logged that key frames are missing."""
        self._readers: Atomic[tuple[weakref.ref[Reader[Any]], ...]] = Atomic(())
        self._until = -math.inf
        """The moment up to which frames are decoded though nobody reads."""
        self._offset: int | None = 0
        """The ticks to add to timestamps; ``None``: computed with the next frame."""
        self._busy = False
        """Whether a frame is being turned."""
        self._time = 0.0
        """The timestamp of the latest frame that was decoded, in seconds."""
        self._spread_at = -math.inf
        """The moment at which that frame was decoded."""

    @property
    def readers(self) -> list[Reader[Any]]:
        """Readers that somebody still holds."""
        return [reader for ref in self._readers.value if (reader := ref()) is not None]

    def add(self, reader: Reader[Any]) -> None:
        """Spread frames to one more reader, from now on; any thread."""
        new = weakref.ref(reader)
        self._readers.swap(lambda refs: (*(ref for ref in refs if _is_open(ref())), new))
        if self.ended:  # perhaps just now, without having seen this reader
            reader.end(self.error)
        elif self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._begin_reading)

    def _begin_reading(self) -> None:
        """Have a reader that is new get a picture soon, however seldom they come."""
        intake = self._intake
        if intake is not None and intake.consumer is self and self.wanted():
            intake.begin_reading()

    def touch(self) -> None:
        """Note that somebody who reads now and then does so just now; any thread."""

    def remove(self, reader: Reader[Any]) -> None:
        """Spread frames to a reader no longer; any thread."""
        self._readers.swap(
            lambda refs: tuple(ref for ref in refs if ref() is not None and ref() is not reader)
        )

    def take_over(self, receiver: RTCRtpReceiver, retransmissions: Collection[int]) -> None:
        """Decide from now on which frames a receiver decodes, and count its packets.

        ``retransmissions`` are payload types.
        """
        self.received.watch(receiver, retransmissions)
        self._appearances.forget()
        self._intake = jitter.take_over(receiver, self)

    def wanted(self) -> bool:
        """Say whether anything is wanted: frames, decoded or as they are encoded."""
        return self.decodes() or (not self.ended and self.passes_on)

    def decodes(self) -> bool:
        """Say whether frames are to be decoded: somebody reads them, or did so a moment ago."""
        if self.ended:
            return False
        now = monotonic()
        for ref in self._readers.value:
            if self._reads_frames(ref()):
                self._until = now + UNREAD_DECODING
                return True
        return now < self._until

    def _reads_frames(self, reader: Reader[Any] | None) -> bool:
        if isinstance(reader, EncodedFrameReader) and self._intake is not None:
            return reader.reads_frames
        return reader is not None

    @property
    def passes_on(self) -> bool:
        """Whether somebody takes frames as they are encoded."""
        readers = (ref() for ref in self._readers.value)
        return any(isinstance(one, EncodedFrameReader) and not one.reads_frames for one in readers)

    def pass_on(self, encoded: EncodedFrame) -> bool:
        """Give a frame to those who take it so; say whether one of them lacks a key frame."""
        arrived = self.received.arrived(encoded.pts)
        if arrived is not None:
            encoded = encoded._replace(arrived=arrived)
        lacking = False
        for reader in self.readers:
            if isinstance(reader, EncodedFrameReader) and not reader.reads_frames:
                reader.reads_frames = not reader.take(encoded)
                lacking |= reader.lacks_key_frame and not reader.reads_frames
        return lacking

    def appears(self, pts: int, turns: int, colours: Colours | None) -> None:
        """Note how pictures are to be shown from a timestamp on: quarters clockwise, colours."""
        self._appearances.note(pts, turns, colours)

    def leave_out(self) -> None:
        """Count a frame that came and is not decoded."""
        self.last = monotonic()
        self.frames += 1

    def admits(self, width: int, height: int) -> bool:
        """Say whether a picture of this size is to be decoded; count one that is not."""
        if width * height <= self._max_pixels:
            return True
        if not self.oversized:
            logger.warning(
                "%s track %r: its pictures of %d x %d pixels are not decoded: they have more "
                "than max_pixels, %d",
                self.kind,
                self.id,
                width,
                height,
                self._max_pixels,
            )
        self.oversized += 1
        return False

    def drop(self, count: int) -> None:
        """Count frames that were wanted, and that the decoder is too slow for."""
        self.dropped += count

    def lack_key_frame(self, lacking: bool) -> None:
        """Note whether a key frame is overdue; tell of it once."""
        self.lacks_key_frame = lacking
        if lacking and not self._told_of_key_frames:
            self._told_of_key_frames = True
            logger.warning(
                "%s track %r: nothing is decoded: its sender sends no key frame, though it is "
                "asked for one again and again",
                self.kind,
                self.id,
            )

    async def run(self, track: MediaStreamTrack) -> None:
        """Take frames until no more come. The caller knows why, and goes on from there."""
        if self.decoded:
            self._offset = None
        self._busy = False
        self._loop = asyncio.get_running_loop()
        with contextlib.suppress(MediaStreamError), frames_offered(track, self._take):
            while not self.ended:
                frame = await track.recv()
                self._busy = True
                self._spread(await self._appearances.applied(frame))
                self._busy = False
                del frame  # lest the name holds it until the next one comes

    def _take(self, frame: Frame) -> bool:
        """Take a frame at once, unless it is to be turned, or the one before it still is."""
        if self.ended or self._busy or not self._appearances.apply_colours(frame):
            return False
        self._spread(frame)
        return True

    def _spread(self, frame: Frame) -> None:
        # On its own, lest a name in run() holds a reader until the next frame comes.
        now = monotonic()
        pts, base = frame.pts, frame.time_base  # (each access makes a new object)
        if pts is not None and base:
            arrived = self.received.arrived(pts)
            if arrived is not None:
                self.latency = now - arrived
            if self._offset is None:
                # The new receiver's clock begins anew; the pause has passed on ours.
                due = self._time + max(now - self._spread_at, float(base))
                self._offset = math.ceil(due / base) - pts
            if self._offset:
                frame.pts = pts = pts + self._offset
            self._time = pts * base.numerator / base.denominator
        self.last = self._spread_at = now
        self.frames += 1
        self.decoded += 1
        for reader in self.readers:
            if self._reads_frames(reader):
                reader.put(frame)
        if self.on_decoded is not None:
            self.on_decoded(frame)

    def end(self, error: BaseException | None = None) -> None:
        """End all readers: they drain, then get ``error`` or ``ClosedError``; tell of the end."""
        if not self.ended:
            self.ended, self.error = True, error
            for reader in self.readers:
                reader.end(error)
            on_end, self.on_end = self.on_end, None
            if on_end is not None:
                on_end(self)
            self.hub.end(error)

    def stats(self) -> dict[str, Any]:
        """Return the counts of packets and frames so far; any thread."""
        return {
            "kind": self.kind,
            "id": self.id,
            "name": self.name,
            **self.received.stats(),
            "frames_decoded": self.decoded,
            "dropped": self.dropped,
            "oversized": self.oversized,
            "lacks_key_frame": self.lacks_key_frame,
            "latency": self.latency,
            "restarts": self.restarts,
        }


def _is_open(reader: Reader[Any] | None) -> bool:
    return reader is not None and not reader.ended
