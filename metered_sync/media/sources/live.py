"""Run sources that are live: they cannot be made to wait."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from metered_sync.engine.sending.feed import Feed, FeedQueue, Frame
from metered_sync.errors import MediaError
from metered_sync.media.sources.base import A_co, Source, V_co

__all__ = ["LiveSource"]

MAX_WAITING_FRAMES = {"video": 2, "audio": 15}
"""Frames that wait for a consumer, at most: 0.3 s of sound."""


class LiveSource(Source[A_co, V_co]):
    """Play a live stream from the start; frames that are not taken are dropped."""

    def __init__(
        self,
        label: str,
        kinds: Collection[str],
        produce: Callable[[Feed], None],
        *,
        queue: Callable[[Feed, str, int], FeedQueue] | None = None,
        **options: Any,
    ) -> None:
        """Make the tracks, and start; the arguments are those of :class:`Source`."""
        sizes = {kind: MAX_WAITING_FRAMES[kind] for kind in kinds}
        super().__init__(label, sizes, produce, queue=queue or LiveQueue, **options)
        with self._feed.lock:
            self._feed._start()

    @property
    def duration(self) -> None:
        """``None``: nobody knows how long it lasts."""
        return None

    def seek(self, seconds: float) -> None:
        """Raise :class:`MediaError`: a live source cannot be wound back."""
        raise MediaError(f"{self._label} is live: there is nothing to seek in")


class LiveQueue(FeedQueue):
    """Queue frames without making the producer wait: a full queue drops the oldest."""

    def put(self, frame: Frame | None, due: float, position: float) -> bool:
        """Queue a frame; say whether to go on, as :meth:`FeedQueue.put` does."""
        with self.feed.lock:
            while len(self.items) >= self._size:
                self.items.popleft()
        return super().put(frame, due, position)
