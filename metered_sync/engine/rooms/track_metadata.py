"""Match the metadata a member announced for its tracks with the tracks that arrive.

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

__all__ = ["AnnouncedMetadata"]

MAX_ANNOUNCED = 512
"""For how many tracks of one member metadata is kept."""


class AnnouncedMetadata:
    """The metadata that one member has announced for its tracks."""

    def __init__(self) -> None:
        self._by_id: dict[str, TrackMetadata] = {}
        self._bare: dict[str, None] = {}
        """The ids that came without a stream since tracks last came."""
        self._names: weakref.WeakKeyDictionary[IncomingTrack, str] = weakref.WeakKeyDictionary()
        """The id under which a track's metadata came, where it was announced under another."""
        self._seen: weakref.WeakSet[IncomingTrack] = weakref.WeakSet()
        """The tracks that have come, and are still there."""
        self._taken_back: TrackMetadata | None = None
        """The metadata that the latest announcement has taken back."""

    def __len__(self) -> int:
        return len(self._by_id)

    def note(self, announced: TrackMetadata, tracks: Sequence[IncomingTrack]) -> None:
        """Keep a track's metadata for when the track is there; or forget it.

        ``tracks`` are those that are there.
        """
        before = self._forget(announced.track_id)
        taken_back, self._taken_back = self._taken_back, None
        if announced.metadata is None:
            self._taken_back = before
            return
        self._by_id[announced.track_id] = announced
        while len(self._by_id) > MAX_ANNOUNCED:
            self._forget(next(iter(self._by_id)))
        if before is None and taken_back and taken_back.metadata == announced.metadata:
            for track in tracks:
                if self._name(track) == taken_back.track_id:
                    self._names[track] = announced.track_id
        known = announced.track_id in {self._name(track) for track in tracks}  # told once more
        if announced.stream_id is None and announced.kind is None and not known:
            self._bare[announced.track_id] = None

    def _forget(self, track_id: str) -> TrackMetadata | None:
        self._bare.pop(track_id, None)
        return self._by_id.pop(track_id, None)

    def match(self, tracks: Sequence[IncomingTrack]) -> None:
        """Find the metadata of tracks that were not there before; ``tracks`` are all of them."""
        named = {self._name(track) for track in tracks}
        unclaimed = [track_id for track_id in self._bare if track_id not in named]
        new = [track for track in tracks if track not in self._seen]
        self._bare.clear()
        self._seen.update(new)
        nameless = [track for track in new if self.of(track, tracks) is None]
        found = [self._by_id[track_id].metadata for track_id in unclaimed]
        if len(nameless) == len(unclaimed) and all(one == found[0] for one in found):
            self._names.update(zip(nameless, unclaimed, strict=True))

    def track_gone(self, track: IncomingTrack) -> None:
        """Note that a track is not there any more; it may come again."""
        self._seen.discard(track)

    def of(self, track: IncomingTrack, tracks: Sequence[IncomingTrack]) -> dict[str, Any] | None:
        """Return a track's metadata, as far as it is known; from any thread."""
        announced = self._by_id.get(track.id) or self._by_id.get(self._name(track))
        if announced is not None:
            return announced.metadata
        others = {self._name(other) for other in tracks}
        found = [
            one.metadata
            for one in tuple(self._by_id.values())  # (the loop may change it meanwhile)
            if one.stream_id is not None
            and (one.stream_id, one.kind) == (track.stream_id, track.kind)
            and one.track_id not in others
        ]
        return found[0] if found and all(one == found[0] for one in found) else None

    def _name(self, track: IncomingTrack) -> str:
        return self._names.get(track, track.id)
