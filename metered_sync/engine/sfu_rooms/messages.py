"""Parse and build the messages by which members of a room tell of their tracks on the SFU.

Three messages, each the data of a broadcast or of a direct message: a member's whole state, the
question for one, and what a member takes of another's tracks. What comes is the claim of a
stranger: a message of other types is ignored, and of a state that is too large the rest is cut
off. Source: docs/protocol/rooms-sfu.md#messages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metered_sync.wire.fields import FieldError, Fields

__all__ = [
    "MAX_STATE",
    "MAX_STATE_TRACKS",
    "MAX_WATCHED",
    "AnnouncedTrack",
    "RoomMessage",
    "RoomState",
    "StateRequest",
    "Watching",
    "build_room_message",
    "is_room_message",
    "parse_room_message",
]

VERSION = 1
_MARK = "$sfu"
MAX_STATE_TRACKS = 32
"""Tracks of one member that are taken; further ones are cut off."""
MAX_STATE = 8192
"""Characters of JSON that the tracks of one member may take; what goes beyond is cut off."""
MAX_WATCHED = 512
"""Tracks that one member may say it takes."""
MAX_ID = 256
"""Characters of a track's, a stream's or a session's id, and of a track's name."""
MAX_SESSION = 2048
"""Characters of a session's id, which may carry a gate's ticket."""
MAX_BOOT = 64
MAX_REVISION = 2**53


@dataclass(frozen=True)
class AnnouncedTrack:
    """A track as its sender announces it to the room."""

    track_id: str
    """The track's id on the SFU."""
    kind: str
    """``"audio"`` or ``"video"``."""
    stream_id: str | None = None
    name: str | None = None
    """A name that outlives the session: by it the track is found again."""
    on: bool = True
    """Whether more is sent than a trickle: false for a track that is muted."""
    metadata: dict[str, Any] | None = None

    def body(self) -> dict[str, Any]:
        """Return the track's JSON."""
        return {
            "id": self.track_id,
            "kind": self.kind,
            "stream": self.stream_id,
            "name": self.name,
            "on": self.on,
            "meta": self.metadata,
        }


@dataclass(frozen=True)
class RoomState:
    """All that a member tells of itself, sent whole with each change."""

    boot: str
    """Chosen at random when the member started."""
    revision: int
    """Counts the changes since then."""
    session_id: str | None
    """The SFU session that publishes the tracks; ``None`` where there are none."""
    tracks: tuple[AnnouncedTrack, ...] = ()
    speaking: bool = False
    cut: int = 0
    """Tracks of the message that were left out, because they were too many or too large."""


@dataclass(frozen=True)
class StateRequest:
    """The question for a member's state."""


@dataclass(frozen=True)
class Watching:
    """The tracks of the receiver that the sender takes at present."""

    track_ids: tuple[str, ...]


RoomMessage = RoomState | StateRequest | Watching


def is_room_message(data: object) -> bool:
    """Return whether data is a message of this convention, in whatever version."""
    return isinstance(data, Mapping) and _is_whole(data.get(_MARK))


def parse_room_message(data: object) -> RoomMessage | None:
    """Return the message in a broadcast's or a direct message's data.

    ``None`` for other data, another version, and a message whose fields have other types.
    """
    if not isinstance(data, Mapping) or not _is_whole(data.get(_MARK)) or data[_MARK] != VERSION:
        return None
    fields = Fields(data)
    try:
        if data.get("ask") is True:
            return StateRequest()
        if "watch" in fields:
            watched = fields.optional_texts("watch") or ()
            return Watching(tuple(one for one in watched[:MAX_WATCHED] if len(one) <= MAX_ID))
        return _state(fields)
    except FieldError:
        return None


def build_room_message(message: RoomMessage) -> dict[str, Any]:
    """Return the data of the message."""
    if isinstance(message, StateRequest):
        return {_MARK: VERSION, "ask": True}
    if isinstance(message, Watching):
        return {_MARK: VERSION, "watch": list(message.track_ids)}
    return {
        _MARK: VERSION,
        "boot": message.boot,
        "rev": message.revision,
        "session": message.session_id,
        "tracks": [track.body() for track in message.tracks],
        "speaking": message.speaking,
    }


def fitting(tracks: Sequence[AnnouncedTrack]) -> tuple[AnnouncedTrack, ...]:
    """Return as many of the tracks, from the first on, as receivers take of one member."""
    return _fitting([(track, track.body()) for track in tracks])


def _state(fields: Fields) -> RoomState:
    revision = fields.get("rev")
    if not _is_whole(revision) or not 0 <= revision < MAX_REVISION:
        raise fields.error("rev", "must be a whole number")
    listed = fields.get("tracks")
    if not isinstance(listed, list):
        raise fields.error("tracks", "must be a list")
    known = []
    seen: set[str] = set()
    for body in listed[: 4 * MAX_STATE_TRACKS]:
        track = _track(body)
        if track is not None and track.track_id not in seen:
            seen.add(track.track_id)
            known.append((track, body))
    tracks = _fitting(known)
    return RoomState(
        boot=fields.filled("boot", most=MAX_BOOT),
        revision=revision,
        session_id=fields.optional_filled("session", most=MAX_SESSION),
        tracks=tracks,
        speaking=fields.get("speaking") is True,
        cut=len(known) - len(tracks) + max(len(listed) - 4 * MAX_STATE_TRACKS, 0),
    )


def _track(body: object) -> AnnouncedTrack | None:
    """Return a track of a state; ``None`` for one of an unknown kind, or malformed."""
    try:
        fields = Fields(body)
        if fields.get("kind") not in ("audio", "video"):
            return None
        return AnnouncedTrack(
            track_id=fields.filled("id", most=MAX_ID),
            kind=fields.text("kind"),
            stream_id=fields.optional_filled("stream", most=MAX_ID),
            name=fields.optional_filled("name", most=MAX_ID),
            on=fields.get("on") is not False,
            metadata=fields.object_or_none("meta"),
        )
    except FieldError:
        return None


def _fitting(
    tracks: Sequence[tuple[AnnouncedTrack, dict[str, Any]]],
) -> tuple[AnnouncedTrack, ...]:
    left = MAX_STATE
    fit = []
    for track, body in tracks[:MAX_STATE_TRACKS]:
        left -= _size(body)
        if left < 0:
            break
        fit.append(track)
    return tuple(fit)


def _size(body: dict[str, Any]) -> int:
    """Return the characters of a track's JSON; of what is nested too deep, more than fit."""
    try:
        return len(json.dumps(body, ensure_ascii=False))
    except RecursionError:
        return MAX_STATE + 1


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
