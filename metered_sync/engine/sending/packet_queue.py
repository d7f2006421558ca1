"""Queue packets of media that is encoded already: what is dropped is dropped up to a key frame.

The feed's lock guards everything here.
"""

from __future__ import annotations

import math

from metered_sync.engine.sending.feed import DueFrame, Feed, FeedQueue, Frame
from metered_sync.engine.sending.pushed import PushedQueue

__all__ = ["MAX_GROUP_BYTES", "MAX_GROUP_SECONDS", "LivePacketQueue", "PacketQueue", "is_key"]

PROMPT = 15
"""Packets that may wait for a consumer that is there: about 0.5 s of pictures."""
MAX_GROUP_BYTES = 4 << 20
MAX_GROUP_SECONDS = 12.0
"""The longest group of pictures that is kept. Who comes late to a longer one waits for the next."""


def is_key(frame: Frame) -> bool:
    """Say whether a packet can be decoded without those before it."""
    return bool(getattr(frame, "is_keyframe", True))


class PacketQueue(FeedQueue):
    """A queue whose producer waits while it is full, as for frames."""

    def __init__(self, feed: Feed, kind: str, size: int) -> None:
        super().__init__(feed, kind, size)
        self.lost = False
        """Whether something was dropped, so that only a key frame can follow."""

    def put(self, frame: Frame | None, due: float, position: float) -> bool:
        """Queue a packet, or drop what cannot be decoded; see :meth:`FeedQueue.put`."""
        with self.feed.lock:
            if frame is not None:
                self.lost = self.kind == "video" and self.lost and not is_key(frame)
                if self.lost:
                    return not self.feed.interrupted
        return super().put(frame, due, position)

    def _drop(self) -> None:
        super()._drop()
        while self.kind == "video" and self.items and not self._begins():
            super()._drop()
        self.lost = not self.items

    def _begins(self) -> bool:
        frame = self.items[0].frame
        return frame is None or is_key(frame)


class LivePacketQueue(PushedQueue):
    """A queue that makes nobody wait, and holds the latest key frame for who comes late.

    Of pictures that nobody takes it has those from the latest key frame on, and hands them out
    all at once when somebody does; of sound, the latest.
    """

    def __init__(self, feed: Feed, kind: str, size: int) -> None:
        super().__init__(feed, kind, size)
        self.dropped = 0
        """Pictures that were not taken in time, or could not be decoded."""
        self.lost = kind == "video"
        """Whether only a key frame can follow."""
        self._bytes = 0

    def put(self, frame: Frame | None, due: float, position: float) -> bool:
        """Queue a packet; say whether to go on, as :meth:`FeedQueue.put` does."""
        feed = self.feed
        with feed.lock:
            if frame is None:
                return super().put(frame, due, position)
            if not feed.interrupted and not self.closed and self.wanted:
                feed.begin(due)
                self._add(frame, due, position)
            else:
                self.lost = self.kind == "video"
            return not feed.interrupted

    def _add(self, frame: Frame, due: float, position: float) -> None:
        if self.kind == "audio":
            while len(self.items) >= PROMPT:
                self.items.popleft()
        elif is_key(frame):
            self.lost = False
            if len(self.items) > PROMPT:
                self._clear()
        elif self.lost:
            self.dropped += 1
            return
        self._bytes += getattr(frame, "size", 0)
        self.items.append(DueFrame(due, position, frame))
        if len(self.items) == 1:
            self._wake()
        elif self._bytes > MAX_GROUP_BYTES or due - self.items[0].due > MAX_GROUP_SECONDS:
            self._clear()
            self.lost = self.kind == "video"

    def pass_time(self) -> None:
        """Drop what nobody takes, where nothing follows: the track ends with it."""
        if self.ending and self.items and self._is_left_alone(self.items[-1].due):
            self._clear()
            self._end_if_empty()

    def _is_empty(self) -> bool:
        return not self.items

    def _clear(self) -> None:
        self.dropped += len(self.items)
        self.items.clear()
        self._bytes = 0

    def _due_in(self) -> float:
        return 0.0 if self.items else math.inf

    def _next(self) -> DueFrame | None:
        item = super()._next()
        if item is not None:
            self._bytes -= getattr(item.frame, "size", 0)
        return item
