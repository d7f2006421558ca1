"""Find the tracks that a user means: by a track, by a source, by a stream.

Wherever a track is taken, a source that has one track by its nature stands for that track, and
a track that arrives may be sent on. So what users give goes through here first.
"""

from __future__ import annotations

from typing import Any

from aiortc.mediastreams import MediaStreamTrack

from metered_sync.errors import MediaError
from metered_sync.media.sources.base import Source, TrackSource
from metered_sync.media.tracks.track import RemoteTrack, core_of
from metered_sync.wire.arguments import shown

__all__ = ["AnyTrack", "TrackLike", "one_track", "sendable", "tracks_of"]

AnyTrack = RemoteTrack | MediaStreamTrack
"""A track that arrives, or a local one."""
TrackLike = AnyTrack | Source | None
"""What may be given where a track is taken, for type checkers: a source that has one, too.

And the ``None`` that a source has for what it lacks: the error says so.
"""


def tracks_of(value: object) -> tuple[list[AnyTrack], bool]:
    """Return the tracks that a user means, and whether by something that may have several.

    Args:
        value: A track, a source, or anything else that has ``.tracks``, such as a stream.

    Returns:
        The tracks, and ``True`` where ``value`` may have any number of them: publishers then
        answer with a list, even of one.

    Raises:
        MediaError: ``None``, as a source's ``.video`` or ``.audio`` is where it lacks it.
        TypeError: Anything else.
    """
    if isinstance(value, (RemoteTrack, MediaStreamTrack)):
        return [value], False
    if isinstance(value, TrackSource):
        return [value.track], False
    tracks: Any = getattr(value, "tracks", None)
    if isinstance(tracks, (list, tuple)) and all(
        isinstance(one, (RemoteTrack, MediaStreamTrack)) for one in tracks
    ):
        return list(tracks), True
    if value is None:
        raise MediaError(
            "None is no track: either a source has no pictures or no sound (its .video or .audio "
            "is None then: pass the source itself, or its .tracks), or no track was ever set"
        )
    raise TypeError(
        "a track or a source is needed (what from_file() returns, its .video or .audio, "
        f"any aiortc track, a RemoteTrack), not {_described(value)}"
    )


def one_track(value: object, what: str) -> AnyTrack:
    """Return the one track that a user means.

    Args:
        value: A track, or a source that has one.
        what: The call that takes it, for errors: ``"add_track()"``.

    Raises:
        MediaError: ``None``, as a source's ``.video`` or ``.audio`` is where it lacks it.
        TypeError: Anything else, such as a source with pictures and sound.
    """
    if isinstance(value, Source) and len(value.kinds) > 1:
        raise TypeError(
            f"{what} takes one track, and {value!r} has pictures and sound: pass its .video or "
            "its .audio"
        )
    tracks, many = tracks_of(value)
    if many and not isinstance(value, Source):
        raise TypeError(f"{what} takes one track: pass one of the .tracks of {shown(value)}")
    return tracks[0]


def sendable(track: AnyTrack) -> MediaStreamTrack:
    """Return the track of aiortc's that is sent for a track: for one that arrives, its relay."""
    return core_of(track).relay if isinstance(track, RemoteTrack) else track


def _described(value: object) -> str:
    """Return a value in few words: an array would fill the screen."""
    text = shown(value)
    return text if len(text) <= 100 else f"{text[:80]}… ({type(value).__name__})"
