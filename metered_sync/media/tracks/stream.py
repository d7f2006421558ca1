"""Group tracks into streams."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from typing import Any

from metered_sync.bridge.atomic import Atomic
from metered_sync.bridge.guard import LiveObject
from metered_sync.media.sources.base import Source
from metered_sync.media.tracks.given import AnyTrack, TrackLike, tracks_of
from metered_sync.media.tracks.track import RemoteTrack
from metered_sync.wire.arguments import shown

__all__ = ["MediaStream"]

STREAM_ID = re.compile(r"(?!-\Z)[!#-'*+.\-0-9A-Z^-~]{1,256}")
"""The ids that a session description allows (RFC 8830, RFC 8866); ``-`` means no stream."""


class MediaStream(LiveObject):
    """Group tracks under a name: those of one camera, say, or of one screen.

    Receivers play the tracks of one stream in step, and find them by its id. A stream is a
    value: making or changing one sends nothing. Safe to use from many threads at once.
    """

    def __init__(
        self, tracks: TrackLike | Iterable[TrackLike] = (), *, id: str | None = None
    ) -> None:
        """Make a stream.

        Args:
            tracks: Tracks, or a source, whose tracks are taken; of each at most one.
            id: What receivers know it by: up to 256 printable ASCII characters without
                spaces or any of ``"(),/:;<=>?@[\\]``. ``None``: a random one.

        Raises:
            MediaError: ``None`` among the tracks, as a source's ``.video`` or ``.audio``
                is where it lacks it.
            TypeError: Something that is neither a track nor a source.
        """
        if id is None:
            id = str(uuid.uuid4())
        elif not isinstance(id, str):
            raise TypeError(f"a stream's id must be a str, not {type(id).__name__}")
        elif not STREAM_ID.fullmatch(id):
            raise ValueError(
                f"{shown(id)} cannot be a stream's id: 1 to 256 printable ASCII characters without "
                "spaces or punctuation that separates can ('camera', 'screen-2'), but not '-'"
            )
        self._id = id
        self._all: Atomic[tuple[AnyTrack, ...]] = Atomic(())
        one_thing = isinstance(tracks, (str, bytes, RemoteTrack, Source))
        plain = isinstance(tracks, Iterable) and not one_thing
        added: Any = tracks if plain else tracks_of(tracks)[0]
        for one in added:
            self.add_track(one)

    @classmethod
    def _received(cls, id: str) -> MediaStream:
        """Make a stream that another one has named: its id is taken as it is."""
        stream = cls()
        stream._id = id
        return stream

    def __repr__(self) -> str:
        kinds = ", ".join(track.kind for track in self._tracks) or "no tracks"
        return f"<MediaStream {self._id!r}: {kinds}>"

    @property
    def _tracks(self) -> tuple[AnyTrack, ...]:
        return self._all.value

    @property
    def id(self) -> str:
        """The id by which receivers know the stream."""
        return self._id

    @property
    def tracks(self) -> list[Any]:
        """The tracks, in the order in which they were added; a list of one's own."""
        return list(self._tracks)

    def get_tracks(self) -> list[Any]:
        """Return the tracks, as :attr:`tracks` has them: the browsers' name for it."""
        return self.tracks

    def get_audio_tracks(self) -> list[Any]:
        """Return the tracks with sound."""
        return [track for track in self._tracks if track.kind == "audio"]

    def get_video_tracks(self) -> list[Any]:
        """Return the tracks with pictures."""
        return [track for track in self._tracks if track.kind == "video"]

    def add_track(self, track: TrackLike) -> None:
        """Add a track, or the tracks of a source; one that it has already is left as it is.

        Where the stream is being sent already, send the track with ``add_track(track,
        stream)`` of the peer.

        Raises:
            MediaError: ``None``, as a source's ``.video`` or ``.audio`` is where it lacks it.
            TypeError: Neither a track nor a source.
        """
        added = tracks_of(track)[0]

        def longer(there: tuple[AnyTrack, ...]) -> tuple[AnyTrack, ...]:
            for one in added:
                if all(one is not other for other in there):
                    there = (*there, one)
            return there

        self._all.swap(longer)

    def remove_track(self, track: TrackLike) -> None:
        """Take a track, or the tracks of a source, out; others are left as they are.

        What is being sent goes on being sent.
        """
        removed = tracks_of(track)[0]
        self._all.swap(
            lambda there: tuple(one for one in there if all(one is not other for other in removed))
        )
