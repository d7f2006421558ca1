"""Read a user's track once, for any number of senders.

A source can be read by one reader only, and a sender of aiortc (1.14 to 1.16) ends for
good with the first end of a track that it sees, stopping that track. So what a user
added is a :class:`LocalTrack`, whose one pump reads the source, and each sender gets an
:class:`Outlet` of it: a track that never ends while its sender should live. An outlet
can be handed over to another local track; its sender notices new content only.

**Reading.** A pump starts with the first outlet that somebody consumes, and pauses while
nobody does. Sources that go on filling a queue of their own all the same (a
``MediaPlayer``, a remote track, a relay) are read on, and what comes is dropped: paused
they would grow. What has piled up before, or in a pause, is skipped, so that one who joins
late gets what is current.

**Encoding.** What outlets carry in the same codec is encoded once, as soon as they know
their senders; see :mod:`metered_sync.engine.sending.shared_encoder`.

Everything here runs on the loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, VideoFrame

from metered_sync.engine.sending.outlet import Outlet
from metered_sync.engine.sending.shared_encoder import SharedEncoder
from metered_sync.engine.sending.timeline import (
    CLOCK_SLACK,
    READY_PAUSE,
    READY_WITHIN,
    AudioTimeline,
    VideoTimeline,
    ticks,
)
from metered_sync.engine.webrtc.encoding import Encoding, SentTrack
from metered_sync.engine.webrtc.media_frames import AUDIO_RATE, VIDEO_RATE
from metered_sync.engine.webrtc.stats import Sent

__all__ = ["LocalTrack", "Outlet"]

logger = logging.getLogger("metered_sync")
SKIP_AFTER_PAUSE = 1.0
"""Seconds after a pause for which frames that lie ready are skipped."""
DEFAULT_ENCODING = Encoding()
REMEMBERED_IDS = 32
"""Ids remembered of tracks in a row, each replaced by the next."""
REPEAT_AFTER = 0.25
"""Seconds to wait for the next picture where one is asked for; then the newest is sent again."""


class LocalTrack:
    """A track that a user sends, shared by all senders of it."""

    def __init__(
        self,
        source: MediaStreamTrack,
        *,
        stream_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        encoding: Encoding = DEFAULT_ENCODING,
    ) -> None:
        """Prepare the track; its source is read once an outlet is consumed.

        Args:
            source: Any aiortc track. It is the user's: it is never stopped from here.
            stream_id: The stream it belongs to.
            metadata: What its receivers are told about it.
            encoding: How it is encoded.
        """
        self.source = source
        self.id: str = source.id
        self.ids: tuple[str, ...] = (source.id,)
        """The ids of the tracks that this one has replaced, and its own: where one of them was
        announced, the receiver knows the track by that."""
        self.kind: str = source.kind
        self.stream_id = stream_id
        self.metadata = metadata
        self.encoding = encoding
        self.video_bitrate, self.codec = encoding.video_bitrate, encoding.codec
        self.sent = Sent()
        """Counts of frames that were read, and that the frame rate allows."""
        self.closed = False
        self.ended = False
        """Whether the source has ended."""
        self._outlets: set[Outlet] = set()
        self._encoders: dict[str, SharedEncoder] = {}
        self._newest: VideoFrame | None = None
        self._again = False
        """Whether a receiver has asked for a picture since the newest one came."""
        self._repeating: asyncio.TimerHandle | None = None
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

    def successor(self, source: MediaStreamTrack) -> LocalTrack:
        """Return a track that replaces this one: in its stream, with its metadata and encoding."""
        new = LocalTrack(
            source, stream_id=self.stream_id, metadata=self.metadata, encoding=self.encoding
        )
        new.ids = tuple(dict.fromkeys((*self.ids, *new.ids)))[-REMEMBERED_IDS:]
        return new

    def close(self) -> None:
        """Let go of the source, for good. Outlets stay alive, and silent."""
        self.closed = True
        self._halt()
        for outlet in tuple(self._outlets):
            outlet.switch(None)

    # --- for outlets ---

    def add(self, outlet: Outlet) -> None:
        """Feed an outlet; have its pictures encoded with those of others, where it can."""
        self._outlets.add(outlet)
        if outlet.codec is not None:
            encoder = self._encoders.get(outlet.codec)
            if encoder is None:
                encoder = SharedEncoder(outlet.codec, self.video_bitrate, self._show_again)
                self._encoders[outlet.codec] = encoder
            outlet.encoder = encoder
            encoder.add(outlet)
        self.update()

    def remove(self, outlet: Outlet) -> None:
        """Feed an outlet no longer."""
        self._outlets.discard(outlet)
        if outlet.encoder is not None:
            outlet.encoder.remove(outlet)
            if not outlet.encoder.consumers:
                del self._encoders[outlet.encoder.codec]
            outlet.encoder = None
        self.update()

    def _show_again(self) -> None:
        """Send the newest picture once more, unless another one comes soon."""
        self._again = True
        if self._repeating is None:
            self._repeating = asyncio.get_running_loop().call_later(REPEAT_AFTER, self._repeat)

    def _repeat(self) -> None:
        self._repeating = None
        if self._again and self._newest is not None:
            self._offer(self._pictures.again(), self._newest)

    def update(self) -> None:
        """Read the source while an outlet is consumed; pause while none is."""
        if not any(outlet.asked for outlet in self._outlets):
            self._wanted.clear()
            self._newest = None  # it will be old when somebody joins
            return
        self._wanted.set()
        if self._pumping is None and not (self.ended or self.closed):
            self._pumping = asyncio.get_running_loop().create_task(
                self._pump(), name=f"pump of {self.kind} track {self.id}"
            )

    # --- the pump ---

    def _halt(self) -> None:
        self._newest = None
        if self._repeating is not None:
            self._repeating.cancel()
            self._repeating = None
        if self._pumping is not None:
            self._pumping.cancel()
            self._pumping = None

    async def _pump(self) -> None:
        try:
            await self._read(self.source)
        except MediaStreamError:
            logger.debug("%r: its source has ended", self)
        except Exception:
            logger.exception("%r: its source %r failed", self, self.source)
        finally:
            if self._pumping is asyncio.current_task():  # else it was told to stop
                self.ended = True
                self._newest = self._pumping = None

    async def _read(self, source: MediaStreamTrack) -> None:
        track = SentTrack(source, self.sent, self.encoding.max_framerate)
        queues = isinstance(getattr(source, "_queue", None), asyncio.Queue)
        skip_until = time.monotonic() + SKIP_AFTER_PAUSE if queues else 0.0
        while True:
            if not queues and not self._wanted.is_set():
                await self._wanted.wait()
                skip_until = time.monotonic() + SKIP_AFTER_PAUSE
            asked = time.monotonic()
            frame = await track.recv()
            now = time.monotonic()
            lay_ready = now - asked < READY_WITHIN
            if lay_ready:
                await asyncio.sleep(READY_PAUSE)
            if not self._wanted.is_set() or (lay_ready and now < skip_until):
                continue
            skip_until = 0.0
            ahead = self._spread(frame)
            if lay_ready and ahead > CLOCK_SLACK:  # it does not keep to real time, so we do
                await asyncio.sleep(ahead - CLOCK_SLACK / 2)

    def _spread(self, frame: Any) -> float:
        """Hand a frame to all outlets; return by how many seconds it is ahead of the clock."""
        if isinstance(frame, VideoFrame):
            pts = self._pictures.place(frame)
            self._newest = frame
            self._offer(pts, frame)
            return (pts - ticks(VIDEO_RATE)) / VIDEO_RATE
        if not isinstance(frame, AudioFrame):
            raise TypeError(f"frames of sound or pictures can be sent, not {type(frame).__name__}")
        ahead = 0
        for pts, samples in self._sound.slices(frame):
            self._offer(pts, samples)
            ahead = pts - ticks(AUDIO_RATE)
        return ahead / AUDIO_RATE

    def _offer(self, pts: int, content: VideoFrame | bytes) -> None:
        for outlet in self._outlets:
            if outlet.encoder is None:
                outlet.put(pts, content)
        if isinstance(content, VideoFrame):
            self._again = False
            for encoder in self._encoders.values():
                encoder.put(pts, content)
