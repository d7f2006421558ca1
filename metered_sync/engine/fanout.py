"""One local track that feeds any number of senders.

A source can be read by one reader only, and a sender of aiortc (1.14 to 1.16) ends for
good with the first end of a track that it sees, stopping that track. So what a user
added is a :class:`LocalTrack`, whose one pump reads the source, and each sender gets an
:class:`Outlet` of it: a track that never ends while its sender should live. An outlet
can be handed over to another local track; its sender notices new content only.

**Reading.** A pump starts with the first outlet that somebody consumes, and pauses while
nobody does. Sources that go on filling a queue of their own all the same (a
``MediaPlayer``, a remote track, a relay) are read on, and what comes is dropped: paused
they would grow. What has piled up in a pause is skipped, so that one who joins late gets
what is current.

**Bounds.** An outlet holds the newest picture, or ``FIFO`` slices of sound; what it drops
is counted. It never holds up the pump, nor another outlet.

Everything here runs on the loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from aiortc import RTCRtpSender
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, VideoFrame
from av.video.reformatter import VideoReformatter

from metered_sync.engine.encoding import SentTrack
from metered_sync.engine.rtc_stats import Sent
from metered_sync.engine.timeline import (
    AUDIO_RATE,
    SLACK,
    SLICE,
    VIDEO_RATE,
    AudioTimeline,
    VideoTimeline,
    audio_frame,
    private_copy,
    ticks,
)

__all__ = ["LocalTrack", "Outlet"]

logger = logging.getLogger("metered_sync")
FIFO = 10
"""Slices of sound, 20 ms each, that wait for a sender at most."""
AT_ONCE = 0.002
"""Seconds within which a frame must come to be one that lay ready."""
YIELD = 0.001
"""Seconds left to others after such a frame: a source that never waits must not hold the loop."""
CATCH_UP = 1.0
"""Seconds after a pause for which frames that lie ready are skipped."""
SEAM = 0.1
"""Seconds of silence between two sources that are not worth a gap in the timestamps."""

Content = VideoFrame | bytes


class LocalTrack:
    """A track that a user added, for all who are to receive it."""

    def __init__(
        self,
        source: MediaStreamTrack,
        *,
        stream_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        video_bitrate: int | None = None,
        max_framerate: float | None = None,
        codec: str | None = None,
    ) -> None:
        """Prepare; the source is read once an outlet is consumed.

        Args:
            source: Any aiortc track. It is the user's: it is never stopped from here.
            stream_id: The stream it belongs to.
            metadata: What its receivers are told about it.
            video_bitrate: Bits per second, held whatever receivers report.
            max_framerate: Frames per second; more are left out.
            codec: The codec to prefer, in lower case.
        """
        self.source: MediaStreamTrack | None = source
        self.id: str = source.id
        self.kind: str = source.kind
        self.stream_id = stream_id
        self.metadata = metadata
        self.video_bitrate = video_bitrate
        self.max_framerate = max_framerate
        self.codec = codec
        self.sent = Sent()
        """Its frames are those that were read, and that the frame rate allows."""
        self.closed = False
        self.ended = False
        """Whether the source has ended; another may replace it."""
        self._outlets: set[Outlet] = set()
        self._wanted = asyncio.Event()
        self._pumping: asyncio.Task[None] | None = None
        self._pictures = VideoTimeline()
        self._sound = AudioTimeline()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "ended" if self.ended else "live"
        return f"<LocalTrack {self.kind} {self.id}: {state}, {len(self._outlets)} outlets>"

    def outlet(self) -> Outlet:
        """Return a track for one sender."""
        return Outlet(self)

    def replace(self, source: MediaStreamTrack | None) -> None:
        """Read another source from now on; with ``None`` nothing is sent.

        Timestamps go on rising, whatever those of the source do.
        """
        _check_kind(self.kind, source)
        if source is not self.source or self.ended:
            self._halt()
            self.source, self.ended = source, False
            self._pictures.restart()
            self._sound.restart()
            self._update()

    def close(self) -> None:
        """Let go of the source, for good. Outlets stay alive, and silent."""
        self.closed = True
        self._halt()
        for outlet in tuple(self._outlets):
            outlet.switch(None)

    # --- for outlets ---

    def _add(self, outlet: Outlet) -> None:
        self._outlets.add(outlet)
        self._update()

    def _remove(self, outlet: Outlet) -> None:
        self._outlets.discard(outlet)
        self._update()

    def _update(self) -> None:
        """Read on, or pause."""
        if not any(outlet.asked for outlet in self._outlets):
            self._wanted.clear()
            return
        self._wanted.set()
        if self._pumping is None and self.source is not None and not (self.ended or self.closed):
            self._pumping = asyncio.get_running_loop().create_task(
                self._pump(self.source), name=f"pump of {self.kind} track {self.id}"
            )

    # --- the pump ---

    def _halt(self) -> None:
        if self._pumping is not None:
            self._pumping.cancel()
            self._pumping = None

    async def _pump(self, source: MediaStreamTrack) -> None:
        try:
            await self._read(source)
        except MediaStreamError:
            logger.debug("%r: its source has ended", self)
        except Exception:
            logger.exception("%r: its source %r failed", self, source)
        finally:
            if self._pumping is asyncio.current_task():  # else it was told to stop
                self.ended = True
                self._pumping = None

    async def _read(self, source: MediaStreamTrack) -> None:
        track = SentTrack(source, self.sent, self.max_framerate)
        queues = isinstance(getattr(source, "_queue", None), asyncio.Queue)
        skip_until = 0.0
        while True:
            if not queues and not self._wanted.is_set():
                await self._wanted.wait()
                skip_until = time.monotonic() + CATCH_UP
            asked = time.monotonic()
            frame = await track.recv()
            now = time.monotonic()
            lay_ready = now - asked < AT_ONCE
            if lay_ready:
                await asyncio.sleep(YIELD)
            if not self._wanted.is_set() or (lay_ready and now < skip_until):
                continue
            skip_until = 0.0
            ahead = self._spread(frame)
            if lay_ready and ahead > SLACK:  # it does not keep to real time, so we do
                await asyncio.sleep(ahead - SLACK / 2)

    def _spread(self, frame: Any) -> float:
        """Hand a frame to all outlets; return by how many seconds it is ahead of the clock."""
        if isinstance(frame, VideoFrame):
            pts = self._pictures.place(frame)
            self._offer(pts, frame)
            return (pts - ticks(VIDEO_RATE)) / VIDEO_RATE
        if not isinstance(frame, AudioFrame):
            raise TypeError(f"frames of sound or pictures can be sent, not {type(frame).__name__}")
        ahead = 0
        for pts, samples in self._sound.slices(frame):
            self._offer(pts, samples)
            ahead = pts - ticks(AUDIO_RATE)
        return ahead / AUDIO_RATE

    def _offer(self, pts: int, content: Content) -> None:
        for outlet in self._outlets:
            outlet.put(pts, content)


class Outlet(MediaStreamTrack):
    """What one sender sends. It ends when it is closed, not before."""

    def __init__(self, local: LocalTrack) -> None:
        super().__init__()
        self.kind = local.kind
        self._id = local.id
        self.local: LocalTrack | None = local
        """What it carries; ``None``: nothing."""
        self.asked = False
        """Whether a sender has begun to consume it."""
        self.frames = 0
        """Frames handed out so far."""
        self.dropped = 0
        """Frames dropped because the sender was slow."""
        self._rate, self._length = (VIDEO_RATE, 1) if self.kind == "video" else (AUDIO_RATE, SLICE)
        self._items: deque[tuple[int, Content]] = deque(maxlen=1 if self.kind == "video" else FIFO)
        self._ready = asyncio.Event()
        self._reformatter = VideoReformatter()
        self._sender: RTCRtpSender | None = None
        self._closed = False
        self._floor: int | None = None
        """The least timestamp that the next frame may have."""
        self._offset: int | None = 0
        """What to add to timestamps; ``None``: find out with the next frame."""
        self._handed = 0.0
        """When the latest frame was handed out (``time.monotonic()``)."""
        local._add(self)

    def __repr__(self) -> str:
        return f"<Outlet of {self.local!r}: {self.readyState}>"

    async def recv(self) -> Any:
        """Return the next frame; wait while there is none.

        Raises:
            MediaStreamError: It was closed.
        """
        if not self.asked:
            self.asked = True
            if self.local is not None:
                self.local._update()
        while not self._items and not self._closed:
            self._ready.clear()
            await self._ready.wait()
        if self._closed:
            raise MediaStreamError(f"{self!r} was closed")
        pts, content = self._items.popleft()
        pts = self._continued(pts)
        self.frames += 1
        if isinstance(content, VideoFrame):
            frame = private_copy(content, self._reformatter)
            frame.pts, frame.time_base = pts, Fraction(1, VIDEO_RATE)
            return frame
        return audio_frame(pts, content)

    def attach(self, sender: RTCRtpSender) -> None:
        """Learn which sender it serves; once, whether that has begun to send or not."""
        self._sender = sender

    def switch(self, local: LocalTrack | None) -> None:
        """Carry another track from now on, or with ``None`` nothing, without an end."""
        _check_kind(self.kind, local)
        if local is self.local or self._closed:
            return
        if self.local is not None:
            self.local._remove(self)
        self.local = local
        self._items.clear()
        self._offset = None
        if local is not None:
            self._id = local.id
            local._add(self)

    def close(self) -> None:
        """End it; its sender ends with it."""
        self.stop()

    def stop(self) -> None:
        """End it, as a sender does with its track. The source goes on."""
        self.switch(None)
        self._closed = True
        self._ready.set()
        super().stop()

    def put(self, pts: int, content: Content) -> None:
        """Take what the track it carries has read."""
        if self.asked:
            self.dropped += len(self._items) == self._items.maxlen
            self._items.append((pts, content))
            self._ready.set()

    def _continued(self, pts: int) -> int:
        """Return the timestamp that goes on from what was handed out before."""
        now = time.monotonic()
        if self._offset is None:
            self._offset = 0
            if self._floor is not None:
                gap = pts - self._floor
                if self.kind == "audio" and gap < SEAM * self._rate:
                    self._offset = -gap
                elif gap < 0:
                    self._offset = round((now - self._handed) * self._rate) - gap
        pts += self._offset
        self._floor = pts + self._length
        self._handed = now
        return pts


def _check_kind(kind: str, other: MediaStreamTrack | LocalTrack | None) -> None:
    if other is not None and other.kind != kind:
        raise ValueError(f"a track of kind {kind!r} cannot go on with one of kind {other.kind!r}")
