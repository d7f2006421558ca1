"""Keep the tracks that are sent to a room, and what members have been told about them.

A track's metadata travels as a direct message of its own, ahead of the offer that brings the
track. It is told under the track's id. A track that replaces another goes on in the section of
that one, and may be known by its id; so metadata is taken back only under ids that no track
goes by any more.

Everything here runs on the loop thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from metered_sync.engine.rooms.media import TrackReceiver
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.wire.signals import TrackMetadata, build_signal
from metered_sync.wire.timings import Timings

__all__ = ["OurTracks", "SentMetadata", "metadata_signal"]


class OurTracks:
    """The tracks that are sent to every member of a room, those who come later included."""

    def __init__(
        self,
        receivers: Callable[[], Iterable[TrackReceiver]],
        on_ended: Callable[[LocalTrack], None],
        timings: Timings,
    ) -> None:
        """Prepare.

        Args:
            receivers: Returns the media of the members that are there now.
            on_ended: Called with a track that was removed because its source has ended.
            timings: Say how long a track is sent after that.
        """
        self.tracks: tuple[LocalTrack, ...] = ()
        self._receivers = receivers
        self._on_ended = on_ended
        self._last_frames = timings.last_frames
        self._closed = False

    def add(self, tracks: Sequence[LocalTrack]) -> None:
        """Send further tracks, each until its source has ended."""
        if self._set((*self.tracks, *tracks)):
            for track in tracks:
                track.watch(self._source_ended, self._last_frames)

    def _source_ended(self, track: LocalTrack) -> None:
        self.remove([track])
        self._on_ended(track)

    def remove(self, tracks: Sequence[LocalTrack]) -> None:
        """Stop sending tracks, and let go of their sources."""
        if self._set([track for track in self.tracks if track not in tracks]):
            for track in tracks:
                track.close()

    def _set(self, tracks: Iterable[LocalTrack]) -> bool:
        if not self._closed:
            self.tracks = tuple(tracks)
            for receiver in self._receivers():
                receiver.set_tracks(self.tracks)
        return not self._closed

    def replace(self, old: LocalTrack, new: LocalTrack | None) -> None:
        """Send another track in the place of one, without negotiating anew."""
        if self._closed:
            return
        if old not in self.tracks:  # its source has ended just now
            self.add([] if new is None else [new])
            return
        index = self.tracks.index(old)
        after = self.tracks[index + 1 :]
        self.tracks = (*self.tracks[:index], *(() if new is None else (new,)), *after)
        for receiver in self._receivers():
            receiver.replace_track(old, new)
        old.close()
        if new is not None:
            new.watch(self._source_ended, self._last_frames)

    def close(self) -> None:
        """Let go of all sources, for good."""
        self._closed = True
        for track in self.tracks:
            track.close()


class SentMetadata:
    """The metadata of our tracks that one member has been told."""

    def __init__(self) -> None:
        self._told: dict[str, TrackMetadata | None] = {}
        """By id; ``None`` where the member may have lost it."""

    def update(self, tracks: Sequence[LocalTrack]) -> list[dict[str, Any]]:
        """Return the signals that tell a member about our tracks what it does not know yet."""
        used = {track_id for track in tracks for track_id in track.ids}
        new = [TrackMetadata(track_id) for track_id in self._told if track_id not in used]
        for word in new:
            del self._told[word.track_id]
        for track in tracks:
            word = _metadata(track)
            if word.metadata is not None and self._told.get(track.id) != word:
                self._told[track.id] = word
                new.append(word)
        return [build_signal(word) for word in new]

    def forget(self) -> None:
        """Tell everything anew next time: the member may have lost it, or may not."""
        self._told = dict.fromkeys(self._told)


def _metadata(track: LocalTrack) -> TrackMetadata:
    metadata = None if track.metadata is None else dict(track.metadata)
    return TrackMetadata(track.id, metadata, track.stream_id, track.kind)


def metadata_signal(track: LocalTrack) -> dict[str, Any]:
    """Return the signal that tells a member a track's metadata."""
    return build_signal(_metadata(track))
