"""Describe media that is encoded already: in offers by its own profile, and by no other codec.

aiortc (1.14 to 1.16) offers H.264 in baseline profile only, and finds no codec in common where a
description names another profile. What it sends is packed by us, and what it receives is decoded
by FFmpeg, which reads the profile from the stream. So our descriptions name the stream's
profile, and descriptions of the other side are given to aiortc with the one that it knows.

Facts: RFC 6184, sections 8.1 and 8.2.2 (profile, packetization mode).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from metered_sync.wire.sdp import Codec, Description, Section

__all__ = [
    "INSTEAD",
    "PLAIN_PROFILE",
    "StreamFormat",
    "admit",
    "is_plain_h264",
    "offer_only",
    "restore_profiles",
]

H264_LEVELS = {10, 11, 12, 13, 20, 21, 22, 30, 31, 32, 40, 41, 42, 50, 51, 52}
PLAIN_PROFILE = "42e01f"
"""The profile and level of H.264 that aiortc is told of in the place of others."""
INSTEAD = (
    "open its source without encoded=True, or encode it in another codec or profile (H.264 in "
    "Constrained Baseline, VP8)"
)
"""What to do where nobody takes what is encoded already."""
NAMES = {"h264": "H.264", "vp8": "VP8", "opus": "Opus"}
PROFILES = {0x42: "Baseline", 0x4D: "Main", 0x58: "Extended", 0x64: "High"}


@dataclass(frozen=True)
class StreamFormat:
    """The codec of a stream that is encoded already, as receivers must be told."""

    codec: str
    """``"h264"``, ``"vp8"`` or ``"opus"``."""
    profile_level_id: str = ""
    """Profile, constraints and level of H.264, in six hexadecimal digits; else empty."""

    def __str__(self) -> str:
        if not self.profile_level_id:
            return NAMES[self.codec]
        profile = PROFILES.get(int(self.profile_level_id[:2], 16), "another")
        return f"H.264 ({profile} profile, {self.profile_level_id})"

    @property
    def parameters(self) -> str:
        """The parameters of the codec in a description; empty: those that are there."""
        if self.codec != "h264":
            return ""
        return (
            "level-asymmetry-allowed=1;packetization-mode=1;"
            f"profile-level-id={self.profile_level_id or PLAIN_PROFILE}"
        )

    @property
    def placeholder(self) -> Codec:
        """The codec as a section describes it in which nothing is sent."""
        if self.codec == "opus":
            return Codec(127, "opus", 48000, 2)
        name = {"h264": "H264", "vp8": "VP8"}[self.codec]
        return Codec(127, name, 90000, 1, StreamFormat("h264").parameters if name == "H264" else "")


def is_plain_h264(codec: Codec) -> bool:
    """Return whether aiortc knows this kind of H.264: baseline with packetization mode 1."""
    profile = _profile(codec)
    return (
        _has_fragments(codec)
        and re.fullmatch("42[0-9a-f]0[0-9a-f]{2}", profile) is not None
        and int(profile[4:], 16) in H264_LEVELS
    )


def _profile(codec: Codec) -> str:
    return codec.parameters.get("profile-level-id", PLAIN_PROFILE).lower()


def _has_fragments(codec: Codec) -> bool:
    """Return whether a codec is H.264 in packetization mode 1: large units in fragments."""
    return codec.name.lower() == "h264" and codec.parameters.get("packetization-mode") == "1"


def offer_only(description: Description, formats: Mapping[str, StreamFormat]) -> Description:
    """Return a description of ours that has in some sections one codec, with its profile.

    ``formats`` has the formats of what is sent there, by mid.
    """
    sections = (
        _only(section, formats[section.mid]) if section.mid in formats else section
        for section in description.sections
    )
    return replace(description, sections=tuple(sections))


def _only(section: Section, format: StreamFormat) -> Section:
    codec = next((c for c in section.codecs if c.name.lower() == format.codec), None)
    if codec is None:
        return section
    return _narrowed(section, replace(codec, fmtp=format.parameters or codec.fmtp))


def _narrowed(section: Section, codec: Codec) -> Section:
    """Return a section with one codec, and with what retransmits that."""
    apt = str(codec.payload_type)
    rtx = (c for c in section.codecs if c.name.lower() == "rtx" and c.parameters.get("apt") == apt)
    return replace(section, codecs=(codec, *rtx))


def admit(section: Section, format: StreamFormat | None = None) -> Section:
    """Return a section of the other side whose H.264 aiortc takes.

    Args:
        section: A section of pictures, or another, which is left as it is.
        format: What is sent there by this side, if that is encoded already.

    Other profiles than baseline are admitted where they come first, or where there is no
    baseline: else that is what the two sides go on with.
    """
    offered = [c for c in section.codecs if _has_fragments(c)]
    if format is not None and format.codec == "h264" and offered:
        wanted = format.profile_level_id[:4]
        best = next((c for c in offered if _profile(c)[:4] == wanted), offered[0])
        return _narrowed(section, _plain(best))
    known = any(map(is_plain_h264, offered)) and (
        section.codecs[0] not in offered or is_plain_h264(section.codecs[0])
    )
    if section.kind != "video" or known or all(map(is_plain_h264, offered)):
        return section
    others = [c for c in offered if not is_plain_h264(c)]
    codecs = tuple(_plain(c) if c in others else c for c in section.codecs)
    return replace(section, codecs=codecs)


def _plain(codec: Codec) -> Codec:
    return replace(codec, fmtp=StreamFormat("h264").parameters)


def restore_profiles(answer: Description, offer: Description) -> Description:
    """Return an answer of ours with the profiles of the offer, where :func:`admit` hid them."""
    offered = {
        (section.mid, codec.payload_type): codec
        for section in offer.sections
        for codec in section.codecs
        if _has_fragments(codec) and not is_plain_h264(codec)
    }

    def restored(section: Section) -> Section:
        codecs = (
            replace(c, fmtp=offered[section.mid, c.payload_type].fmtp)
            if (section.mid, c.payload_type) in offered and c.name.lower() == "h264"
            else c
            for c in section.codecs
        )
        return replace(section, codecs=tuple(codecs))

    return replace(answer, sections=tuple(map(restored, answer.sections)))
