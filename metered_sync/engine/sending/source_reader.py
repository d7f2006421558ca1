"""Read a user's track once, for all rooms and publications that send it.

A track of aiortc hands each frame to one reader only. So there is one :class:`SourceReader` for
each user's track, found by the track's identity and shared by all
:class:`~metered_sync.engine.sending.local_track.LocalTrack` of it: those of a room, those of the
SFU's publications. They hold it; with the last of them it lets go of the source, which goes on:
it is the user's.

**Reading.** Frames are read from the moment at which an outlet is consumed, and not while none
is. Sources that go on filling a queue of their own all the same (a ``MediaPlayer``, a remote
track, a relay) are read on, and their frames dropped: paused they would grow. Frames that have
piled up before, or in a pause, are skipped, so that one who joins late gets what is current.

Everything here runs on the loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from typing import Any, Protocol

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, VideoFrame

from metered_sync.bridge.clock import monotonic
from metered_sync.engine.sending.fanout import PacketFanout
from metered_sync.engine.sending.fed_track import FedTrack
from metered_sync.engine.sending.kept_loop import keep_loop
from metered_sync.engine.sending.outlet import Outlet
from metered_sync.engine.sending.rendition import Rendition
from metered_sync.engine.sending.shared_encoder import SharedEncoder
from metered_sync.engine.sending.timeline import (
    CLOCK_SLACK,
    READY_PAUSE,
    READY_WITHIN,
    AudioTimeline,
    VideoTimeline,
    ticks,
)
from metered_sync.engine.webrtc.aiortc_private.sending import fills_a_queue
from metered_sync.engine.webrtc.encoding import Encoding
from metered_sync.engine.webrtc.media_frames import AUDIO_RATE, VIDEO_RATE
from metered_sync.engine.webrtc.stream_formats import StreamFormat

__all__ = ["SourceReader"]

logger = logging.getLogger("metered_sync")
SKIP_AFTER_PAUSE = 1.0
"""Seconds after a pause for which frames that lie ready are skipped."""

_readers: weakref.WeakValueDictionary[int, SourceReader] = weakref.WeakValueDictionary()
"""The readers in use, by the identity of their source (which a reader keeps alive)."""


class Holder(Protocol):
    """A local track that sends what is read."""

    def source_ended(self) -> None:
        """Take note that the source has ended."""


class SourceReader:
    """The one task that reads a user's track, and the outlets that its frames go to."""

    def __init__(self, source: MediaStreamTrack, format: StreamFormat | None = None) -> None:
        """Prepare to read a track of the user's. (Use :meth:`hold`, which finds the one there is.)

        Nothing here ever stops the source. ``format`` as for :meth:`hold`.
        """
        self.source = source
        self.frames = 0
        """Frames read and passed on so far."""
        self.ended = False
        """Whether the source has ended."""
        self._fanout: PacketFanout | None = None
        if format is not None:
            feedback = source.feedback if isinstance(source, FedTrack) else None
            self._fanout = PacketFanout(format, feedback)
        self._loop = asyncio.get_running_loop()
        self._holders: set[Holder] = set()
        self._renditions: dict[float | None, Rendition] = {}
        """By the frame rate that is not to be exceeded."""
        self._wanted = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._newest: VideoFrame | None = None
        self._pictures = VideoTimeline()
        self._sound = AudioTimeline()

    def __repr__(self) -> str:
        state = "ended" if self.ended else "reading" if self._wanted.is_set() else "paused"
        outlets = len(self._outlets())
        return f"<SourceReader of {self.source!r}: {state}, {outlets} outlets>"

    @classmethod
    def hold(
        cls, source: MediaStreamTrack, holder: Holder, format: StreamFormat | None = None
    ) -> SourceReader:
        """Return the reader of a track, made where there is none, held until it is released.

        ``format`` is that of what the track yields, if that is encoded already.
        """
        reader = _readers.get(id(source))
        if reader is None or not reader._holders or reader._loop is not asyncio.get_running_loop():
            reader = _readers[id(source)] = cls(source, format)
            keep_loop(source)
        reader._holders.add(holder)
        return reader

    def release(self, holder: Holder) -> None:
        """Let go of the source for good if nobody else holds this reader."""
        self._holders.discard(holder)
        if not self._holders:
            self._newest = None
            for rendition in self._renditions.values():
                rendition.close()
            if self._fanout is not None:
                self._fanout.close()
            reading, self._reading = self._reading, None
            if reading is not None:
                reading.cancel()

    @property
    def encoders(self) -> list[SharedEncoder]:
        """The encoders at work: one for each codec, bit rate and frame rate in use."""
        return [e for rendition in self._renditions.values() for e in rendition.encoders.values()]

    def add(self, outlet: Outlet, encoding: Encoding) -> None:
        """Feed an outlet, with pictures that are encoded once for all outlets alike."""
        if self._fanout is not None:
            self._fanout.add(outlet)
            self.update()
            return
        rate = encoding.max_framerate
        rendition = self._renditions.get(rate)
        if rendition is None:
            rendition = self._renditions[rate] = Rendition(rate, self._again)
        bitrate = encoding.video_bitrate
        rendition.add(outlet, None if bitrate is None else int(bitrate))
        self.update()

    def remove(self, outlet: Outlet, encoding: Encoding) -> None:
        """Feed an outlet no longer."""
        if self._fanout is not None:
            self._fanout.remove(outlet)
        rendition = self._renditions.get(encoding.max_framerate)
        if rendition is not None:
            rendition.remove(outlet)
            if not rendition.outlets:
                rendition.close()
                del self._renditions[encoding.max_framerate]
        self.update()

    def update(self) -> None:
        """Read while an outlet is consumed; pause while none is."""
        if not any(outlet.asked for outlet in self._outlets()):
            # (What is encoded costs little to read, and its latest key frame must not be missed.)
            if self._fanout is None:
                self._wanted.clear()
            self._newest = None  # it will be old when somebody joins
            return
        self._wanted.set()
        if self._reading is None and self._holders and not self.ended:
            self._reading = self._loop.create_task(
                self._run(), name=f"reader of {self.source.kind} track {self.source.id}"
            )

    def _outlets(self) -> list[Outlet]:
        if self._fanout is not None:
            return list(self._fanout.outlets)
        return [o for rendition in self._renditions.values() for o in rendition.outlets]

    def _again(self) -> tuple[int, VideoFrame] | None:
        return None if self._newest is None else (self._pictures.again(), self._newest)

    # --- reading ---

    async def _run(self) -> None:
        try:
            if self._fanout is None:
                await self._read(self.source)
            else:
                await self._read_packets(self.source, self._fanout)
        except MediaStreamError:
            logger.debug("%r: its source has ended", self)
        except Exception:
            logger.exception("%r: its source failed", self)
        finally:
            if self._reading is asyncio.current_task():  # else it was told to stop
                self.ended = True
                self._newest = self._reading = None
                for holder in tuple(self._holders):
                    holder.source_ended()

    async def _read(self, source: MediaStreamTrack) -> None:
        queues = fills_a_queue(source)
        skip_until = monotonic() + SKIP_AFTER_PAUSE if queues else 0.0
        while True:
            if not queues and not self._wanted.is_set():
                await self._wanted.wait()
                skip_until = monotonic() + SKIP_AFTER_PAUSE
            asked = monotonic()
            frame = await source.recv()
            now = monotonic()
            lay_ready = now - asked < READY_WITHIN
            if lay_ready:
                await asyncio.sleep(READY_PAUSE)
            if not self._wanted.is_set() or (lay_ready and now < skip_until):
                continue
            skip_until = 0.0
            self.frames += 1
            ahead = self._pass_on(frame)
            if lay_ready and ahead > CLOCK_SLACK:  # it does not keep to real time, so we do
                await asyncio.sleep(ahead - CLOCK_SLACK / 2)

    async def _read_packets(self, source: MediaStreamTrack, fanout: PacketFanout) -> None:
        if isinstance(source, FedTrack):
            fanout.begin(source.latest_group())  # (with what others have taken before)
        while True:
            asked = monotonic()
            fanout.put(await source.recv())
            self.frames += 1
            if monotonic() - asked < READY_WITHIN:  # senders need some time, too
                await asyncio.sleep(READY_PAUSE)

    def _pass_on(self, frame: Any) -> float:
        """Hand a frame to all outlets; return by how many seconds it is ahead of the clock."""
        renditions = self._renditions.values()
        if isinstance(frame, VideoFrame):
            self._newest = frame
            pts = self._pictures.place(frame)
            for rendition in renditions:
                rendition.put_picture(pts, frame)
            return (pts - ticks(VIDEO_RATE)) / VIDEO_RATE
        if not isinstance(frame, AudioFrame):
            raise TypeError(f"frames of sound or pictures can be sent, not {type(frame).__name__}")
        ahead = 0
        for pts, samples in self._sound.slices(frame):
            for rendition in renditions:
                rendition.put_sound(pts, samples)
            ahead = pts - ticks(AUDIO_RATE)
        return ahead / AUDIO_RATE
