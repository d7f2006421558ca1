"""Take the frames of recorded tracks, hold them until they are placed, and pass them on.

A track's frames are put into its :class:`TrackReader`, which never blocks; all readers of a
recording pass them on to one queue. The recording's thread takes them out and gives each to
its :class:`RecordedTrack`, which finds their place in time.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

from av import CodecContext

from metered_sync.bridge import engines
from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.loop import Engine
from metered_sync.bridge.reader import Reader
from metered_sync.engine.sending.feed import encoded_format
from metered_sync.engine.sending.packet_queue import is_key
from metered_sync.engine.sending.tee import attach_reader, detach_reader
from metered_sync.engine.webrtc.media_frames import AUDIO_RATE
from metered_sync.media.pyav import READ_ERRORS
from metered_sync.media.recording.clock import TrackClock
from metered_sync.media.recording.mixing import MixerInput
from metered_sync.media.recording.muxing import PacketStream, VideoStream
from metered_sync.media.tracks.given import AnyTrack
from metered_sync.media.tracks.track import RemoteTrack, core_of

__all__ = ["PLACING_TIME", "QueuedFrame", "RecordedTrack"]

MAX_WAITING_FRAMES = {"audio": 500, "video": 30}
"""Frames of one track that wait for the encoder, at most: 10 s of sound, 1 s of pictures."""
PLACING_TIME = 0.4
"""Seconds of frames by which a track is placed."""


class QueuedFrame(NamedTuple):
    """A frame on its way to the recording's thread, or the end of a track."""

    track: RecordedTrack
    frame: Any
    """``None``: the track has ended."""
    media: float
    """Seconds on the track's own clock."""
    arrived: float
    """When the frame came, or would have without buffers on the way (``time.monotonic()``)."""
    epoch: int
    """How often the track's connection was rebuilt before."""


class TrackReader(Reader[Any]):
    """Take one track's frames on any thread, and pass them on to the recording's queue."""

    def __init__(
        self, recorded: RecordedTrack, track: AnyTrack, inbox: Reader[QueuedFrame]
    ) -> None:
        super().__init__(f"recording of {recorded.label}")
        self.taken = 0
        """Frames that the recording's thread has taken out."""
        self._given = 0
        self._recorded = recorded
        self._track = track
        self._inbox = inbox
        self._limit = MAX_WAITING_FRAMES[track.kind]
        self._engine: Engine | None = None
        """On whose loop a local track is read."""
        self._lacking = False
        """Whether only a key frame can follow, for something was dropped."""

    def attach(self, deadline: Deadline) -> None:
        """Have the track deliver its frames here."""
        if isinstance(self._track, RemoteTrack):
            core_of(self._track).incoming.add(self)
        else:
            what = f"record {self._recorded.label}"
            with engines.in_use() as engine:
                self._engine = engine
                engine.call(attach_reader, self._track, self, deadline=deadline, what=what)

    def detach(self) -> None:
        """Have the track deliver no more frames here."""
        if isinstance(self._track, RemoteTrack):
            core_of(self._track).incoming.remove(self)
        elif self._engine is not None:
            self._engine.post(detach_reader, self._track, self)

    def put(self, item: Any) -> None:
        """Pass a frame on, or drop and count it where too many wait already."""
        if self.ended or self._inbox.ended:
            return
        if self._given - self.taken >= self._limit or (self._lacking and not is_key(item)):
            self._dropped += 1
            self._lacking = self._recorded.format is not None and self._recorded.kind == "video"
            return
        self._lacking = False
        arrived = monotonic()
        epoch = 0
        if isinstance(self._track, RemoteTrack):
            arrived -= core_of(self._track).incoming.latency
            epoch = self._track.restarts
        media = arrived if (time := _time(item)) is None else time
        self._given += 1
        self._inbox.put(QueuedFrame(self._recorded, item, media, arrived, epoch))

    def end(self, error: BaseException | None = None) -> None:
        """Pass on that the track has ended."""
        if not self.ended:
            super().end(error)
            self._inbox.put(QueuedFrame(self._recorded, None, 0.0, 0.0, 0))


class RecordedTrack:
    """Place the frames of one track in time and write them; on the recording's thread."""

    def __init__(self, track: AnyTrack, inbox: Reader[QueuedFrame]) -> None:
        name = track.name if isinstance(track, RemoteTrack) else None
        self.label = f"{track.kind} track {name or track.id!r}"
        self.kind: str = track.kind
        self.format = encoded_format(track)
        """The format of what comes, where that is encoded already."""
        self._decoder: Any = None
        self.reader = TrackReader(self, track, inbox)
        self.held: list[QueuedFrame] = []
        """Frames that wait until the track can be placed."""
        self.came = False
        """Whether any frame of the track came."""
        self.ended = False
        self.sink: VideoStream | PacketStream | MixerInput | None = None
        self._clock = TrackClock()
        self._epoch = 0

    @property
    def full(self) -> bool:
        """Whether more frames are held than should be."""
        return len(self.held) > 2 * MAX_WAITING_FRAMES[self.kind]

    def earliest(self) -> float:
        """Return the moment at which the first held frame belongs."""
        return self.held[0].media + min(item.arrived - item.media for item in self.held)

    def take(self, item: QueuedFrame, zero: float | None) -> None:
        """Write a frame, or hold it until it can be placed."""
        if item.frame is None:
            self.ended = True
            return
        if not self.came and not is_key(item.frame):
            return  # nothing in the file could be decoded up to the next key frame
        self.came = True
        if item.epoch != self._epoch:
            self.release(zero)
            self._clock, self._epoch = TrackClock(), item.epoch
        if zero is None or self.held or not self._clock.fits(item.media, item.arrived):
            self.held.append(item)
        else:
            self._write(item, zero)

    def advance(self, zero: float, now: float) -> None:
        """Write the held frames once they are enough to be placed by."""
        if self.held and (self.ended or self.full or now - self.held[0].arrived >= PLACING_TIME):
            self.release(zero)

    def release(self, zero: float | None) -> None:
        """Place the held frames, and write them."""
        if self.held and zero is not None:
            held, self.held = self.held, []
            self._clock.anchor((item.media, item.arrived) for item in held)
            for item in held:
                self._write(item, zero)

    def _write(self, item: QueuedFrame, zero: float) -> None:
        at = self._clock.place(item.media, item.arrived) - zero
        if isinstance(self.sink, MixerInput):
            for frame in self._decoded(item.frame):
                self.sink.write(frame, item.media, at)
        elif self.sink is not None:
            self.sink.write(item.frame, at)

    def _decoded(self, frame: Any) -> list[Any]:
        """Return sound to be mixed, which may be encoded already."""
        if self.format is None:
            return [frame]
        if self._decoder is None:
            self._decoder = CodecContext.create("libopus", "r")
            self._decoder.format, self._decoder.layout = "s16", "stereo"
            self._decoder.sample_rate = AUDIO_RATE
        with contextlib.suppress(*READ_ERRORS):
            return list(self._decoder.decode(frame))
        return []


def _time(item: Any) -> float | None:
    """Return the seconds that a frame, or a packet, says."""
    if item.pts is None or not item.time_base:
        return None
    return float(item.pts * item.time_base)
