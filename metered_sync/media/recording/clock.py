"""Place the frames of tracks that each count time in their own way on one clock.

A frame says when it is due on its track's own clock, which is smooth but begins anywhere;
when it arrives says when that is here, but networks and buffers delay it, each time by
something else. The least delay is nearest to the truth. So a track is placed by the most
punctual of its frames, then follows its own clock, and its drift is followed slowly.
Seconds are those of ``time.monotonic()``.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["MAX_SLEW", "TrackClock"]

DELAY_WINDOW = 10.0
"""Seconds within which a frame is sought that was not delayed."""
MAX_SLEW = 0.01
"""Seconds by which a track is moved in a second, at most, to follow its drift."""
MAX_STRAY = 1.0
"""Seconds by which a track may stray from its clock before it is placed anew."""
SAME_PLACE = 0.25
"""Seconds between an old place of a track and a new one that are taken for the same."""


class TrackClock:
    """Tell when the frames of one track belong."""

    def __init__(self) -> None:
        self._offset: float | None = None
        self._last = 0.0
        self._since = 0.0
        self._least = self._least_before = 0.0

    def fits(self, media: float, arrived: float) -> bool:
        """Return whether a frame can be placed at once: :meth:`anchor` has been called for it."""
        if self._offset is None:
            return False
        return media >= self._last and abs(arrived - media - self._offset) <= MAX_STRAY

    def anchor(self, frames: Iterable[tuple[float, float]]) -> None:
        """Place the track anew, by the times and arrivals of several of its frames."""
        frames = tuple(frames)
        least = min(arrived - media for media, arrived in frames)
        if self._offset is None or abs(least - self._offset) > SAME_PLACE:
            self._offset = least
        self._least = self._least_before = self._offset
        self._last, self._since = frames[0]

    def place(self, media: float, arrived: float) -> float:
        """Return when a frame belongs."""
        assert self._offset is not None
        if arrived - self._since > DELAY_WINDOW / 2:
            self._least_before, self._least = self._least, arrived - media
            self._since = arrived
        self._least = min(self._least, arrived - media)
        wanted = min(self._least, self._least_before) - self._offset
        most = max(media - self._last, 0.0) * MAX_SLEW
        self._offset += max(-most, min(most, wanted))
        self._last = media
        return media + self._offset
