"""Copy the frames of a local track to readers, while a sender consumes the track as well.

A track of aiortc hands each frame to one consumer. While a track is tapped, one task takes
its frames: each goes to the readers and, where a sender consumes the track as well, to that
sender, through a short queue. It finds the queue in the place of the track's ``recv``, which
senders look up for each frame. With the last reader the track is as it was.

Everything here runs on the loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
import math
import weakref
from collections import deque
from typing import Any

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.reader import Reader
from metered_sync.engine.sending.fed_track import encoded_format
from metered_sync.engine.sending.kept_loop import keep_loop
from metered_sync.engine.sending.timeline import CLOCK_LEAD, CLOCK_SLACK, READY_PAUSE, READY_WITHIN
from metered_sync.errors import MediaError

__all__ = ["attach_reader", "detach_reader"]

logger = logging.getLogger("metered_sync")
SENDER_QUEUE = {"audio": 10, "video": 2}
"""Frames that wait for a sender at most, while it is busy."""
PACKET_QUEUE = 500
"""Packets of media that is encoded already, which cannot be left out one by one."""
SENDER_ACTIVE = 0.5
"""Seconds after asking for a frame for which a sender counts as a consumer of the track."""

_tees: weakref.WeakKeyDictionary[MediaStreamTrack, _Tee] = weakref.WeakKeyDictionary()


async def attach_reader(track: MediaStreamTrack, reader: Reader[Any]) -> None:
    """Hand a track's frames to a reader from now on, until its end."""
    found = _tees.get(track)
    if found is None or found.ended:
        found = _tees[track] = _Tee(track)
        keep_loop(track)
    found.readers.append(reader)


def detach_reader(track: MediaStreamTrack, reader: Reader[Any]) -> None:
    """Hand a track's frames to a reader no longer."""
    found = _tees.get(track)
    if found is not None and reader in found.readers:
        found.readers.remove(reader)
        if not found.readers:
            del _tees[track]
            found.close()


class _Tee:
    """The one task that takes a track's frames, for its readers and a sender."""

    def __init__(self, track: MediaStreamTrack) -> None:
        self.readers: list[Reader[Any]] = []
        self.ended = False
        self._recv = track.recv
        self._described = f"{track.kind} track {track.id}"
        encoded = encoded_format(track) is not None
        most = PACKET_QUEUE if encoded else SENDER_QUEUE[track.kind]
        self._others: deque[Any] = deque(maxlen=most)
        self._asking = 0
        self._asked = -math.inf
        self._changed = asyncio.Event()
        # Set on this object. (A weak one: the track would hold itself.)
        self._track = weakref.ref(track)
        track.recv = self._share  # type: ignore[method-assign]
        self._taking = asyncio.get_running_loop().create_task(
            self._take(), name=f"tee of {self._described}"
        )

    def close(self) -> None:
        """Give the track back to its sender."""
        self._taking.cancel()
        self._end(None)

    async def _take(self) -> None:
        error: MediaError | None = None
        try:
            await self._read()
        except MediaStreamError:
            logger.debug("%s has ended", self._described)
        except Exception as cause:
            logger.exception("%s failed", self._described)
            error = MediaError(f"{self._described} failed: {cause!r}")
            error.__cause__ = cause
        self._end(error)

    async def _read(self) -> None:
        origin: float | None = None
        while True:
            asked = monotonic()
            frame: Any = await self._recv()
            for reader in self.readers:
                reader.put(frame)
            now = monotonic()
            if self._asking or now - self._asked < SENDER_ACTIVE:
                self._others.append(frame)
                self._changed.set()
            else:
                self._others.clear()
            if now - asked >= READY_WITHIN:
                continue
            pause = READY_PAUSE
            if getattr(frame, "time", None) is not None:
                # A source that does not keep to real time is made to. (Packets come in time.)
                if origin is None or frame.time - now - origin > CLOCK_LEAD:
                    origin = frame.time - now
                pause = max(frame.time - now - origin - CLOCK_SLACK / 2, READY_PAUSE)
            await asyncio.sleep(pause)

    async def _share(self) -> Any:
        """Stand in for the track's ``recv``."""
        self._asking += 1
        try:
            while not self._others and not self.ended:
                self._changed.clear()
                await self._changed.wait()
            if self._others:
                return self._others.popleft()
        finally:
            self._asking -= 1
            self._asked = monotonic()
        return await self._recv()

    def _end(self, error: MediaError | None) -> None:
        self.ended = True
        track = self._track()
        if track is not None and vars(track).get("recv") == self._share:
            del track.recv
        for reader in self.readers:
            reader.end(error)
        self._changed.set()
