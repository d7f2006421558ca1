"""Tracks on their way into a recording: frames taken, held until placed, and passed on.

Whoever delivers a track's frames puts them into its :class:`Input`, which never blocks; all
inputs of a recording pass them on to one queue. The recording's thread takes them out and
gives each to its :class:`Lane`, which finds their place in time.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any, NamedTuple

from aiortc.mediastreams import MediaStreamTrack

from metered_sync.bridge import loop
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.reader import Reader
from metered_sync.engine.sending.tee import attach_reader, detach_reader
from metered_sync.media.recording.alignment import Clock, Voice
from metered_sync.media.recording.muxing import Pictures
from metered_sync.media.tracks.track import RemoteTrack, core_of

__all__ = ["SETTLE", "Item", "Lane", "Track"]

Track = RemoteTrack | MediaStreamTrack

LIMIT = {"audio": 500, "video": 30}
"""Frames of one track that wait for the encoder at most: 10 s of sound, 1 s of pictures."""
SETTLE = 0.4
"""Seconds of frames by which a track is placed."""


class Item(NamedTuple):
    """A frame, or the end of a track."""

    lane: Lane
    frame: Any
    """``None``: the track has ended."""
    media: float
    """Seconds on the track's own clock."""
    arrived: float
    """When it came here, or would have without buffers on the way (``time.monotonic()``)."""
    epoch: int
    """How often the track was rebuilt before."""


class Input(Reader[Any]):
    """What a track takes for a reader; passes frames on to the recording."""

    def __init__(self, lane: Lane, track: Track, inbox: Reader[Item]) -> None:
        super().__init__(f"recording of {lane.label}")
        self.taken = 0
        """Items that the recording has taken out."""
        self._given = 0
        self._lane = lane
        self._track = track
        self._inbox = inbox
        self._limit = LIMIT[track.kind]

    def attach(self, deadline: Deadline) -> None:
        """Have frames delivered."""
        if isinstance(self._track, RemoteTrack):
            core_of(self._track).incoming.add(self)
        else:
            engine = loop.current()
            what = f"record {self._lane.label}"
            engine.call(attach_reader, self._track, self, deadline=deadline, what=what)

    def detach(self) -> None:
        """Have no more delivered."""
        if isinstance(self._track, RemoteTrack):
            core_of(self._track).incoming.remove(self)
        else:
            with contextlib.suppress(Exception):  # the interpreter may be about to exit
                loop.current().post(detach_reader, self._track, self)

    def put(self, item: Any) -> None:
        """Pass a frame on; or count it, where too many wait already."""
        if self.ended or self._inbox.ended:
            return
        if self._given - self.taken >= self._limit:
            self._dropped += 1
            return
        arrived = time.monotonic()
        epoch = 0
        if isinstance(self._track, RemoteTrack):
            arrived -= core_of(self._track).incoming.latency
            epoch = self._track.restarts
        media = arrived if item.pts is None or item.time is None else item.time
        self._given += 1
        self._inbox.put(Item(self._lane, item, media, arrived, epoch))

    def end(self, error: BaseException | None = None) -> None:
        """Pass on that the track has ended."""
        if not self.ended:
            super().end(error)
            self._inbox.put(Item(self._lane, None, 0.0, 0.0, 0))


class Lane:
    """One track on its way into the file. Used on the recording's thread."""

    def __init__(self, track: Track, inbox: Reader[Item]) -> None:
        name = track.name if isinstance(track, RemoteTrack) else None
        self.label = f"{track.kind} track {name or track.id!r}"
        self.kind: str = track.kind
        self.input = Input(self, track, inbox)
        self.held: list[Item] = []
        """What waits for the track to be placed."""
        self.came = False
        """Whether there was a frame at all."""
        self.ended = False
        self.sink: Pictures | Voice | None = None
        self._clock = Clock()
        self._epoch = 0

    @property
    def full(self) -> bool:
        """Whether more frames are held than should be."""
        return len(self.held) > 2 * LIMIT[self.kind]

    def earliest(self) -> float:
        """Return when the first frame that is held belongs."""
        return self.held[0].media + min(item.arrived - item.media for item in self.held)

    def take(self, item: Item, zero: float | None) -> None:
        """Take a frame: write it, or hold it until it can be placed."""
        if item.frame is None:
            self.ended = True
            return
        self.came = True
        if item.epoch != self._epoch:
            self.release(zero)
            self._clock, self._epoch = Clock(), item.epoch
        if zero is None or self.held or not self._clock.fits(item.media, item.arrived):
            self.held.append(item)
        else:
            self._write(item, zero)

    def advance(self, zero: float, now: float) -> None:
        """Write what is held, once there is enough to place it by."""
        if self.held and (self.ended or self.full or now - self.held[0].arrived >= SETTLE):
            self.release(zero)

    def release(self, zero: float | None) -> None:
        """Write what is held."""
        if self.held and zero is not None:
            held, self.held = self.held, []
            self._clock.anchor((item.media, item.arrived) for item in held)
            for item in held:
                self._write(item, zero)

    def _write(self, item: Item, zero: float) -> None:
        at = self._clock.place(item.media, item.arrived) - zero
        if isinstance(self.sink, Voice):
            self.sink.write(item.frame, item.media, at)
        elif self.sink is not None:
            self.sink.write(item.frame, at)
