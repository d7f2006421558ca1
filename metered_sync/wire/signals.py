"""Parse and build the signals with which members of a room set up their media.

A signal is the payload of a direct message: a session description, an ICE candidate,
the end of the candidates, or the metadata of a track. Both published clients speak them. A
hello is a signal of this library alone, in a form that the others take for nothing.
Source: docs/protocol/rooms.md#signals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metered_sync.wire.fields import FieldError, Fields
from metered_sync.wire.limits import MAX_FRAME
from metered_sync.wire.session_description import SessionDescription

__all__ = [
    "MAX_CANDIDATE",
    "Candidate",
    "EndOfCandidates",
    "Hello",
    "SessionDescription",
    "Signal",
    "TrackMetadata",
    "build_signal",
    "is_reserved",
    "parse_signal",
]

MAX_NAME = 256
"""Characters of a track's or stream's id, a mid or a user name fragment."""

MAX_CANDIDATE = 1000
"""Characters of an ICE candidate; a longer one is malformed."""

_DESCRIPTION = "rtc-description"
_CANDIDATE = "rtc-ice"
_METADATA = "__meteredTrackMeta"
_HELLO = "$metered_sync"
"""The track that a hello takes the metadata back of: there is none of this id."""


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


@dataclass(frozen=True)
class Hello:
    """The first signal of a peer with this library: it needs no courtesy."""

    offers: bool
    """Whether it has something to offer at the moment."""


Signal = SessionDescription | Candidate | EndOfCandidates | TrackMetadata | Hello


def is_reserved(data: object) -> bool:
    """Return whether data looks like a signal, so that a receiver may take it for one."""
    return isinstance(data, Mapping) and (
        data.get("type") in (_DESCRIPTION, _CANDIDATE) or _METADATA in data
    )


def parse_signal(data: object) -> Signal | None:
    """Return the signal in a direct message's data; ``None`` for data of the user's own.

    A description that is longer than a member's frame can be is none.
    """
    if not isinstance(data, Mapping):
        return None
    fields = Fields(data)
    try:
        if fields.get("type") == _DESCRIPTION:
            return SessionDescription.read(fields.object("description"), most=MAX_FRAME)
        if fields.get("type") == _CANDIDATE and "candidate" in fields:
            return _candidate(fields)
        return _metadata_or_hello(fields.object(_METADATA))
    except FieldError:
        return None


def _candidate(signal: Fields) -> Candidate | EndOfCandidates:
    if signal.get("candidate") is None:
        return EndOfCandidates()
    fields = signal.object("candidate")
    index = fields.get("sdpMLineIndex")
    fragment = fields.text_or_none("usernameFragment", most=MAX_NAME)
    if fields.get("candidate") == "":  # some browsers' end of candidates
        return EndOfCandidates(fragment)
    return Candidate(
        fields.text_or_none("candidate", most=MAX_CANDIDATE) or "",
        fields.text_or_none("sdpMid", most=MAX_NAME),
        index if isinstance(index, int) and not isinstance(index, bool) else None,
        fragment,
    )


def _metadata_or_hello(fields: Fields) -> TrackMetadata | Hello:
    if fields.get("trackId") == _HELLO:
        return Hello(fields.get("offers") is True)
    return TrackMetadata(
        fields.filled("trackId", most=MAX_NAME),
        fields.optional_object("metadata"),
        fields.optional_filled("streamId", most=MAX_NAME),
        fields.optional_filled("kind", most=MAX_NAME),
    )


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
    if isinstance(signal, Hello):
        return {_METADATA: {"trackId": _HELLO, "offers": signal.offers}}
    # The JS client does not know `"metadata": null`: what is not there is left out.
    fields = {
        "trackId": signal.track_id,
        "metadata": signal.metadata,
        "kind": signal.kind,
        "streamId": signal.stream_id,
    }
    return {_METADATA: {name: value for name, value in fields.items() if value is not None}}
