"""Queue packets of media that is encoded already: what is dropped is dropped up to a key frame.

The feed's lock guards everything here.
"""

from __future__ import annotations

import math
from typing import Any

from av import Packet

from metered_sync.engine.sending.feed import PRODUCER_POLL, DueFrame, Feed, FeedQueue, Frame
from metered_sync.engine.sending.kept_group import KeptGroup, is_too_long
from metered_sync.engine.sending.pushed import PushedQueue

__all__ = ["LivePacketQueue", "PacketQueue", "is_key"]

PROMPT = 15
"""Packets that may wait for a consumer that is there: about 0.5 s of pictures."""


def is_key(frame: Frame | None) -> bool:
    """Say whether a packet can be decoded without those before it."""
    return bool(getattr(frame, "is_keyframe", True))


def _keep(group: KeptGroup[Packet[Any]], frame: Frame | None, due: float) -> None:
    """Take note of a packet that has been handed out, or left out in its time."""
    if isinstance(frame, Packet):
        group.add(frame, key=frame.is_keyframe, size=frame.size, time=due)


class PacketQueue(FeedQueue):
    """A queue whose producer waits while it is full, as for frames."""

    def __init__(self, feed: Feed, kind: str, size: int) -> None:
        super().__init__(feed, kind, size)
        self.lost = False
        """Whether something was dropped, so that only a key frame can follow."""
        self._group: KeptGroup[Packet[Any]] = KeptGroup()

    def put(self, frame: Frame | None, due: float, position: float) -> bool:
        """Queue a packet, or drop what cannot be decoded; see :meth:`FeedQueue.put`."""
        feed = self.feed
        with feed.lock:
            if frame is not None and self.kind == "video":
                self.lost = self.lost and not is_key(frame)
                while self._passes_by() and (early := due - feed.clock()) > 0:
                    feed.moved.wait(min(early, PRODUCER_POLL))
                if self.lost:
                    _keep(self._group, frame, due)
                    return not feed.interrupted
        return super().put(frame, due, position)

    def _passes_by(self) -> bool:
        """Say whether time passes for what nobody can take: it is not read ahead then."""
        return self.lost and not self.closed and not self.feed.interrupted

    def latest_group(self) -> list[Packet[Any]]:
        """Return the pictures up to now, those included that nobody took; go on from there."""
        group = list(self._group.pictures) if self.kind == "video" else []
        self.lost = self.lost and not group
        return group

    def _next(self) -> DueFrame | None:
        return self._noted(super()._next())

    def _drop(self) -> None:
        self._leave_out()
        while self.kind == "video" and self.items and not self._begins():
            self._leave_out()
        self.lost = not self.items

    def _leave_out(self) -> None:
        self._noted(self.items.popleft())

    def _noted(self, item: DueFrame | None) -> DueFrame | None:
        if item is not None:
            _keep(self._group, item.frame, item.due)
        return item

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
        self._group: KeptGroup[Packet[Any]] = KeptGroup()

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
        elif is_too_long(self._bytes, due - self.items[0].due):
            self._clear()
            self.lost = self.kind == "video"

    def pass_time(self) -> None:
        """Drop what nobody takes, where nothing follows: the track ends with it."""
        if self.ending and self.items and self._is_left_alone(self.items[-1].due):
            self._clear()
            self._end_if_empty()

    def latest_group(self) -> list[Packet[Any]]:
        """Return the pictures before those that wait, unless these begin anew."""
        begins_anew = any(is_key(item.frame) for item in self.items)
        return [] if self.kind != "video" or begins_anew else list(self._group.pictures)

    def _is_empty(self) -> bool:
        return not self.items

    def _clear(self) -> None:
        self.dropped += len(self.items)
        self.items.clear()
        self._group.clear()
        self._bytes = 0

    def _due_in(self) -> float:
        return 0.0 if self.items else math.inf

    def _next(self) -> DueFrame | None:
        item = super()._next()
        if item is not None:
            self._bytes -= getattr(item.frame, "size", 0)
            _keep(self._group, item.frame, item.due)
        return item
