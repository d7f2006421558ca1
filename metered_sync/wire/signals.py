"""Parse and build the signals with which members of a room set up their media.

A signal is the payload of a direct message: a session description, an ICE candidate,
the end of the candidates, or the metadata of a track. Both published clients speak them.
Source: docs/protocol/rooms.md#signals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metered_sync.wire.sdp import SessionDescription

__all__ = [
    "Candidate",
    "EndOfCandidates",
    "SessionDescription",
    "Signal",
    "TrackMetadata",
    "build_signal",
    "is_reserved",
    "parse_signal",
]

MAX_NAME = 256
"""Characters of a track's or stream's id, a mid or a user name fragment."""

_DESCRIPTION = "rtc-description"
_CANDIDATE = "rtc-ice"
_METADATA = "__meteredTrackMeta"


@dataclass(frozen=True)
class Candidate:
    """An ICE candidate, as browsers send them one by one."""

    candidate: str
    """As in SDP, with or without ``candidate:`` before it; empty if it was malformed."""
    sdp_mid: str | None = None
    sdp_m_line_index: int | None = None
    username_fragment: str | None = None
    """Of the description that it belongs to."""


@dataclass(frozen=True)
class EndOfCandidates:
    """The end of one side's ICE candidates."""

    username_fragment: str | None = None
    """Of the description that has no more; only browsers tell it."""


@dataclass(frozen=True)
class TrackMetadata:
    """The metadata that an application gives to a track of its own."""

    track_id: str
    metadata: dict[str, Any] | None = None
    """``None`` takes it back."""
    stream_id: str | None = None
    kind: str | None = None
    """``"audio"`` or ``"video"``."""


Signal = SessionDescription | Candidate | EndOfCandidates | TrackMetadata


def is_reserved(data: object) -> bool:
    """Return whether data looks like a signal, so that a receiver may take it for one."""
    return isinstance(data, Mapping) and (
        data.get("type") in (_DESCRIPTION, _CANDIDATE) or _METADATA in data
    )


def parse_signal(data: object) -> Signal | None:
    """Return the signal in a direct message's data; ``None`` for data of the user's own."""
    if not isinstance(data, Mapping):
        return None
    if data.get("type") == _DESCRIPTION:
        return _description(data.get("description"))
    if data.get("type") == _CANDIDATE and "candidate" in data:
        return _candidate(data["candidate"])
    return _metadata(data.get(_METADATA))


def _description(fields: object) -> SessionDescription | None:
    if isinstance(fields, Mapping):
        type_, sdp = fields.get("type"), fields.get("sdp")
        if type_ in ("offer", "answer") and isinstance(sdp, str):
            return SessionDescription(type_, sdp)
    return None


def _candidate(fields: object) -> Candidate | EndOfCandidates | None:
    if fields is None:
        return EndOfCandidates()
    if not isinstance(fields, Mapping):
        return None
    text, index = fields.get("candidate"), fields.get("sdpMLineIndex")
    fragment = _name(fields.get("usernameFragment"))
    if text == "":  # some browsers' end of candidates
        return EndOfCandidates(fragment)
    return Candidate(
        text if isinstance(text, str) else "",
        _name(fields.get("sdpMid")),
        index if isinstance(index, int) and not isinstance(index, bool) else None,
        fragment,
    )


def _metadata(fields: object) -> TrackMetadata | None:
    if not isinstance(fields, Mapping):
        return None
    track_id, metadata = _name(fields.get("trackId")), fields.get("metadata")
    if not track_id or not (metadata is None or isinstance(metadata, dict)):
        return None
    names = [fields.get("streamId"), fields.get("kind")]
    stream_id, kind = (_name(name) or None for name in names)
    if [stream_id, kind] != names:
        return None
    return TrackMetadata(track_id, metadata, stream_id, kind)


def _name(value: object) -> str | None:
    return value if isinstance(value, str) and len(value) <= MAX_NAME else None


def build_signal(signal: Signal) -> dict[str, Any]:
    """Return the data of the direct message that carries a signal."""
    if isinstance(signal, SessionDescription):
        return {"type": _DESCRIPTION, "description": signal.body()}
    if isinstance(signal, EndOfCandidates):
        return {"type": _CANDIDATE, "candidate": None}
    if isinstance(signal, Candidate):
        return {
            "type": _CANDIDATE,
            "candidate": {
                "candidate": signal.candidate,
                "sdpMid": signal.sdp_mid,
                "sdpMLineIndex": signal.sdp_m_line_index,
                "usernameFragment": signal.username_fragment,
            },
        }
    # The JS client does not know `"metadata": null`: what is not there is left out.
    fields = {
        "trackId": signal.track_id,
        "metadata": signal.metadata,
        "kind": signal.kind,
        "streamId": signal.stream_id,
    }
    return {_METADATA: {name: value for name, value in fields.items() if value is not None}}
