"""Choose and match the codecs, feedback and header extensions that the SFU negotiates.

Sources: RFC 6184 (H.264), RFC 9628 (VP9), the AV1 RTP specification, RFC 4585 (feedback),
RFC 8285 (extmap).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from metered_sync.wire.sdp import Codec, Extension

__all__ = [
    "DEFAULT_CODECS",
    "DEFAULT_EXTENSIONS",
    "MID",
    "default_codecs",
    "default_extensions",
    "find_match",
    "forwardable",
    "known_extensions",
    "merge",
    "with_formats",
]

MID = "urn:ietf:params:rtp-hdrext:sdes:mid"
_ABS_SEND_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
_COLOR_SPACE = "http://www.webrtc.org/experiments/rtp-hdrext/color-space"
_VIDEO_ORIENTATION = "urn:3gpp:video-orientation"
_AUDIO_LEVEL = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"

_FORWARDED_EXTENSIONS = frozenset(
    (
        MID,
        _ABS_SEND_TIME,
        _AUDIO_LEVEL,
        "urn:ietf:params:rtp-hdrext:toffset",
        _VIDEO_ORIENTATION,
        "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
        "http://www.webrtc.org/experiments/rtp-hdrext/video-content-type",
        "http://www.webrtc.org/experiments/rtp-hdrext/video-timing",
        _COLOR_SPACE,
        "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
    )
)
"""Header extensions that make sense end to end. Transport-wide congestion control is not
among them: its sequence numbers belong to one hop."""

_REPAIR_FORMATS = frozenset(("rtx", "red", "ulpfec", "flexfec", "flexfec-03"))
"""Formats that repair or repeat others; losses are repaired with plain NACKs instead."""
_HANDLED_FEEDBACK = frozenset(("nack", "nack pli", "ccm fir", "goog-remb"))
_VIDEO_FEEDBACK = ("nack", "nack pli", "ccm fir", "goog-remb")

_H264_PARAMETERS = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id="

# What a session is offered in a kind of media for which its client has shown no table of
# its own. The numbers are those that aiortc uses in its own offers: it renumbers every
# section when it makes one, so with other numbers here its streams would break.
DEFAULT_CODECS: dict[str, tuple[Codec, ...]] = {
    "audio": (
        Codec(96, "opus", 48000, 2, "minptime=10;useinbandfec=1"),
        Codec(9, "G722", 8000),
        Codec(0, "PCMU", 8000),
        Codec(8, "PCMA", 8000),
    ),
    "video": (
        Codec(97, "VP8", 90000, feedback=_VIDEO_FEEDBACK),
        Codec(99, "H264", 90000, 1, _H264_PARAMETERS + "42001f", _VIDEO_FEEDBACK),
        Codec(101, "H264", 90000, 1, _H264_PARAMETERS + "42e01f", _VIDEO_FEEDBACK),
        Codec(103, "VP9", 90000, 1, "profile-id=0", _VIDEO_FEEDBACK),
        Codec(105, "AV1", 90000, 1, "", _VIDEO_FEEDBACK),
    ),
}
DEFAULT_EXTENSIONS: dict[str, tuple[Extension, ...]] = {
    "audio": (Extension(1, MID), Extension(2, _AUDIO_LEVEL)),
    "video": (
        Extension(1, MID),
        Extension(3, _ABS_SEND_TIME),
        Extension(8, _COLOR_SPACE),
        Extension(13, _VIDEO_ORIENTATION),
    ),
}


def forwardable(codecs: Iterable[Codec]) -> tuple[Codec, ...]:
    """Return the codecs that the SFU accepts, with the feedback that it handles."""
    return tuple(
        dataclasses.replace(
            codec, feedback=tuple(item for item in codec.feedback if item in _HANDLED_FEEDBACK)
        )
        for codec in codecs
        if codec.name.lower() not in _REPAIR_FORMATS
    )


def known_extensions(extensions: Iterable[Extension]) -> tuple[Extension, ...]:
    """Return the header extensions that the SFU carries from end to end."""
    return tuple(item for item in extensions if item.uri in _FORWARDED_EXTENSIONS)


def find_match(codec: Codec, table: Sequence[Codec]) -> Codec | None:
    """Return the codec of *table* whose receiver can decode what *codec* encodes."""
    candidates = [item for item in table if _family(item) == _family(codec)]
    for item in candidates:
        if _profile(item) == _profile(codec):
            return item
    # Decoders of H.264 read the header of the stream, not the profile of the SDP, and
    # aiortc for one announces a single profile only.
    return candidates[0] if candidates and codec.name.lower() == "h264" else None


def merge(table: Sequence[Codec], news: Iterable[Codec]) -> tuple[Codec, ...]:
    """Return *table* with the codecs of *news* whose payload types it does not hold yet.

    A payload type in use keeps its meaning for ever: neither side of a live stream may
    be told another one.
    """
    known = {codec.payload_type for codec in table}
    return (*table, *(codec for codec in news if codec.payload_type not in known))


def with_formats(
    table: Sequence[Codec], wanted: Sequence[Codec], taken: Iterable[int]
) -> tuple[Codec, ...]:
    """Return *table* ordered by the publisher's codecs, with those that it lacks added.

    Args:
        table: What the subscriber's session has learned for this kind of media.
        wanted: What the publisher sends.
        taken: Payload types that already have a meaning in the subscriber's session.
    """
    numbers = _FreeNumbers({codec.payload_type for codec in table} | set(taken))
    first: list[Codec] = []
    for codec in wanted:
        match = find_match(codec, table) or numbers.renumber(codec)
        if match is not None and match not in first:
            first.append(match)
    return (*first, *(codec for codec in table if codec not in first))


def default_codecs(kind: str, taken: Iterable[int]) -> tuple[Codec, ...]:
    """Return a table of codecs for a kind of media of which the client has shown none."""
    numbers = _FreeNumbers(set(taken))
    codecs = (numbers.renumber(codec) for codec in DEFAULT_CODECS[kind])
    return tuple(codec for codec in codecs if codec is not None)


def default_extensions(kind: str, known: Sequence[Extension]) -> tuple[Extension, ...]:
    """Return header extensions for such a kind, in keeping with the ids *known* already.

    One id must mean one extension in all sections of a bundle (RFC 8285, section 6).
    """
    ids = {item.uri: item.id for item in known}
    result = []
    for item in DEFAULT_EXTENSIONS[kind]:
        if item.uri not in ids:
            free = (number for number in (item.id, *range(1, 15)) if number not in ids.values())
            ids[item.uri] = next(free, 0)
        if ids[item.uri]:
            result.append(Extension(ids[item.uri], item.uri))
    return tuple(result)


class _FreeNumbers:
    """Hands out payload types that are free (those that RFC 3551 and RFC 5761 leave)."""

    def __init__(self, used: set[int]) -> None:
        self._used = used

    def renumber(self, codec: Codec) -> Codec | None:
        """Return *codec* under its own number if that is free, else another; `None`: all gone."""
        for number in (codec.payload_type, *range(96, 128), *range(35, 64)):
            if number not in self._used:
                self._used.add(number)
                return dataclasses.replace(codec, payload_type=number)
        return None


def _family(codec: Codec) -> tuple[str, int, int, str]:
    """Return what must be equal for two formats to be the same codec at all."""
    name = codec.name.lower()
    mode = codec.parameters.get("packetization-mode", "0") if name == "h264" else ""
    return name, codec.clock_rate, codec.channels, mode


def _profile(codec: Codec) -> str:
    """Return the profile part of the format parameters, in one spelling."""
    name, parameters = codec.name.lower(), codec.parameters
    if name == "vp9":
        return parameters.get("profile-id", "0")
    if name == "av1":
        return parameters.get("profile", "0")
    if name == "h265":
        return parameters.get("profile-id", "1")
    if name == "h264":
        return _h264_profile(parameters.get("profile-level-id", "42e01f").lower())
    return ""


def _h264_profile(level_id: str) -> str:
    """Return profile and constraints without the level (RFC 6184, section 8.1, table 5)."""
    profile, constraints = level_id[:2], level_id[2:4]
    try:
        flags = int(constraints, 16)
    except ValueError:
        return level_id
    constrained = {"42": 0x40, "4d": 0x80, "58": 0xC0}.get(profile)
    if constrained is not None and flags & constrained == constrained:
        return "constrained baseline"
    if profile == "64":
        return f"high {flags & 0x0C:x}"
    return profile
