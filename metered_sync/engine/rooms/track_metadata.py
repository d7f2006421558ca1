"""What a member has told about its tracks, and which of them each word is about.

Metadata comes ahead of its track, with the id that the track has at its sender. Most
descriptions announce it under that id. Where they do not, there are three ways to find it:

- The async client and this library name stream and kind as well.
- A track that replaces another goes on in the section of that one, under its id. The
  published clients take the metadata back under the old id and at once give it again under
  the new one.
- Chromium announces a track under an id of its own where it takes a section that the other
  side has made, Firefox always; and the JS client (1.2) tells nothing but id and metadata. So
  what it has told since tracks last came belongs to those that come now and are not named, if
  that leaves no doubt.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.wire.signals import TrackMetadata

__all__ = ["Told"]

MAX_TOLD = 512
"""Tracks of one member whose metadata is kept."""


class Told:
    """One member's words about its tracks."""

    def __init__(self) -> None:
        self._told: dict[str, TrackMetadata] = {}
        self._fresh: dict[str, None] = {}
        """The ids that came bare since tracks last came."""
        self._meant: weakref.WeakKeyDictionary[IncomingTrack, str] = weakref.WeakKeyDictionary()
        """The id under which a track was told, where it was announced under another."""
        self._seen: weakref.WeakSet[IncomingTrack] = weakref.WeakSet()
        """Tracks that have come, and are still there."""
        self._taken_back: TrackMetadata | None = None
        """What the latest word has taken back."""

    def __len__(self) -> int:
        return len(self._told)

    def note(self, word: TrackMetadata, tracks: Sequence[IncomingTrack]) -> None:
        """Keep a track's metadata for when the track is there; or forget it.

        ``tracks`` are those that are there.
        """
        before = self._forget(word.track_id)
        taken_back, self._taken_back = self._taken_back, None
        if word.metadata is None:
            self._taken_back = before
            return
        self._told[word.track_id] = word
        while len(self._told) > MAX_TOLD:
            self._forget(next(iter(self._told)))
        if before is None and taken_back is not None and taken_back.metadata == word.metadata:
            for track in tracks:
                if self._id(track) == taken_back.track_id:
                    self._meant[track] = word.track_id
        if word.stream_id is None and word.kind is None:
            self._fresh[word.track_id] = None

    def _forget(self, track_id: str) -> TrackMetadata | None:
        self._fresh.pop(track_id, None)
        return self._told.pop(track_id, None)

    def come(self, tracks: Sequence[IncomingTrack]) -> None:
        """Find out what was told about tracks that were not there before."""
        named = {self._id(track) for track in tracks}
        unclaimed = [track_id for track_id in self._fresh if track_id not in named]
        new = [track for track in tracks if track not in self._seen]
        self._fresh.clear()
        self._seen.update(new)
        nameless = [track for track in new if self.of(track, tracks) is None]
        said = [self._told[track_id].metadata for track_id in unclaimed]
        if len(nameless) == len(unclaimed) and all(one == said[0] for one in said):
            self._meant.update(zip(nameless, unclaimed, strict=True))

    def gone(self, track: IncomingTrack) -> None:
        """Note that a track is not there any more; it may come again."""
        self._seen.discard(track)

    def of(self, track: IncomingTrack, tracks: Sequence[IncomingTrack]) -> dict[str, Any] | None:
        """Return a track's metadata, as far as it is known."""
        word = self._told.get(track.id) or self._told.get(self._id(track))
        if word is not None:
            return word.metadata
        others = {self._id(other) for other in tracks}
        said = [
            one.metadata
            for one in self._told.values()
            if one.stream_id is not None
            and (one.stream_id, one.kind) == (track.stream_id, track.kind)
            and one.track_id not in others
        ]
        return said[0] if said and all(one == said[0] for one in said) else None

    def _id(self, track: IncomingTrack) -> str:
        return self._meant.get(track, track.id)
