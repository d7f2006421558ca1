"""Read events from a bounded queue: messages are dropped from it, lifecycle events coalesced.

A program that does not read must not miss that it was disconnected, or who has left; but a
stranger who causes such events at will must not fill its memory either. So they may exceed the
bound, up to :data:`CEILING` times; then the newest of each subject is kept.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Hashable
from typing import Any, TypeVar

from metered_sync.bridge.reader import Reader
from metered_sync.wire.events import Event

__all__ = ["CEILING", "EventReader"]

T_co = TypeVar("T_co", covariant=True)
logger = logging.getLogger("metered_sync")

CEILING = 10
"""How many times ``maxsize`` events may wait, those that are not dropped included."""
MAX_HELD = 32 << 20
"""Bytes that such events may hold besides: each keeps the object alive of which it tells."""


class EventReader(Reader[T_co]):
    """Read events, or what stands for them, from a queue that coalesces at its ceiling."""

    def __init__(self, label: str, **options: Any) -> None:
        super().__init__(label, **options)
        self._ceiling = CEILING * self._maxsize
        self._coalesced = False
        """Whether it has come to that, and been told of."""

    def _event(self, item: Any) -> Event | None:
        """Return the event of an item; ``None`` where it is something else, which is kept."""
        raise NotImplementedError

    def put(self, item: T_co) -> None:  # type: ignore[misc]
        """Queue an event; see ``Reader.put``."""
        coalesced, waiting = self._coalesced, len(self._items)
        super().put(item)
        if self._coalesced and not coalesced:
            logger.error(
                "%s: %d lifecycle events wait to be read: from now on only the newest of each "
                "kind and member are kept; read them, or listen to fewer classes of events",
                self._label,
                waiting,
            )

    def _droppable(self, item: T_co) -> bool:  # type: ignore[misc]
        event = self._event(item)
        return event is not None and event.droppable

    def _size(self, item: T_co) -> int:  # type: ignore[misc]
        event = self._event(item)
        return 0 if event is None else event.frame_size

    def _make_room(self, item: T_co) -> bool:  # type: ignore[misc]
        if not super()._make_room(item):
            return False
        held = self._came - self._went
        if len(self._items) >= self._ceiling or held >= self._max_bytes + MAX_HELD:
            self._coalesce(item)
        return True

    def _subject(self, item: Any) -> Hashable:
        event = self._event(item)
        return None if event is None else event._subject

    def _coalesce(self, coming: Any) -> None:
        """Keep the newest item of each subject; if that is not enough, the newest ones.

        (Where somebody takes an item meanwhile, all of them stay: the next event will see to it.)
        """
        self._coalesced = True
        old = self._items.copy()
        seen = {self._subject(coming)}
        kept: deque[Any] = deque()
        size = held = 0
        for item in reversed(old):
            subject = self._subject(item)
            room = len(kept) < self._ceiling // 2 and held < MAX_HELD // 2
            if subject is None or (subject not in seen and room):
                seen.add(subject)
                kept.appendleft(item)
                held += self._size(item)
            else:
                size += self._size(item)
        dropped = len(old) - len(kept)
        # What is kept in any case must not make each event as expensive as this one.
        forced = sum(self._subject(item) is None for item in kept)
        ceiling = max(CEILING * self._maxsize, 2 * forced)
        try:
            if self._items[0] is old[0] and self._items[-1] is old[-1]:
                # (No call since: all of this is one step.)
                self._items = kept
                self._kept = 0
                self._went += size
                self._dropped += dropped
                self._ceiling = ceiling
        except IndexError:  # all of them were taken
            pass
