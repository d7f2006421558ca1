"""Choose the tracks that a command line means."""

from __future__ import annotations

from collections.abc import Sequence

from metered_sync.errors import MediaError, SfuNotFoundError
from metered_sync.sfu import SfuClient
from metered_sync.wire.sfu import TrackInfo

__all__ = ["choose", "find_tracks", "first_video"]


def find_tracks(
    sfu: SfuClient, session_id: str | None, tracks: Sequence[str], name: str | None, wait: float
) -> list[TrackInfo]:
    """Return tracks of a session, or all of a name from the newest session that has one.

    Args:
        sfu: A connected client.
        session_id: The session; ``None``: whichever has tracks of that name.
        tracks: Ids or names of tracks in that session; none: all that it publishes.
        name: The tracks' name, where the session is not known.
        wait: Seconds to wait for a track of that name.

    Raises:
        SfuNotFoundError: There is no such session or track.
        MeteredTimeoutError: No track of that name was published in time.
    """
    if session_id is not None:
        return choose(sfu.tracks(session_id), session_id, tracks)
    found = sfu.wait_for_track(name=name, timeout=wait)
    return [one for one in sfu.tracks(found.session_id) if one.name == name]


def choose(listed: Sequence[TrackInfo], session_id: str, wanted: Sequence[str]) -> list[TrackInfo]:
    """Return those of a session's tracks that have one of these ids, or else names.

    A name may stand for several tracks: pictures and sound of one source share theirs. Without
    ids and names all tracks are returned.

    Raises:
        SfuNotFoundError: There is no such track; the error lists those that there are.
    """
    there = ", ".join(
        f"{one.kind} {one.track_id}" + (f" ({one.name})" if one.name else "") for one in listed
    )
    if not listed:
        raise SfuNotFoundError(f"session {session_id} publishes nothing")
    chosen: list[TrackInfo] = [] if wanted else list(listed)
    for one in wanted:
        fitting = [track for track in listed if track.track_id == one]
        fitting = fitting or [track for track in listed if track.name == one]
        if not fitting:
            raise SfuNotFoundError(f"session {session_id} has no track {one!r}; it has {there}")
        chosen += [track for track in fitting if track not in chosen]
    return chosen


def first_video(tracks: Sequence[TrackInfo]) -> TrackInfo:
    """Return the first track that has pictures.

    Raises:
        MediaError: All are sound.
    """
    for track in tracks:
        if track.kind == "video":
            return track
    raise MediaError("a snapshot is of pictures, and the tracks that were named are sound")
