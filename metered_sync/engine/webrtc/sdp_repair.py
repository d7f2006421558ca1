"""Make a foreign session description fit for aiortc, and ours fit for the other side.

aiortc (1.14 to 1.16) fails as a whole on a description that holds one section it cannot
use: one that was rejected or stopped (JSEP lets such a section go without its ICE
lines), one whose codecs it does not know, one that is not bundled. :func:`repair` puts
an inactive section in the place of each of these, and says which they are;
:func:`reject` marks them as rejected in what is sent back.

aiortc also takes the transport's parameters from whichever section comes first in its
own order, and candidates from whichever comes last, so all bundled sections are given
those of the one that counts (RFC 9143: the first of the group that is in use).
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

from metered_sync.engine.webrtc.stream_formats import StreamFormat, admit, is_plain_h264
from metered_sync.wire.sdp import Codec, Description, SdpError, Section
from metered_sync.wire.signals import MAX_CANDIDATE

__all__ = [
    "MAX_CANDIDATES",
    "Repaired",
    "Sender",
    "UnfitTrack",
    "candidate_problem",
    "is_usable_candidate",
    "is_usable_codec",
    "misfit",
    "placeholder",
    "reject",
    "repair",
    "senders",
    "unfit_tracks",
]

MAX_CANDIDATES = 200
"""Candidates that one description may have, those sent after it included."""
MAX_COPIED_CANDIDATES = 2048
"""Candidates of all sections together: aiortc is given a copy of them in each."""
MAX_SECTIONS = 128
"""Media sections of one connection to a member."""

_PLACEHOLDERS = {
    "audio": Codec(0, "PCMU", 8000),
    "video": Codec(127, "VP8", 90000),
}
_USABLE_CODECS = {
    ("audio", "opus", 48000),
    ("audio", "g722", 8000),
    ("audio", "pcmu", 8000),
    ("audio", "pcma", 8000),
    ("video", "vp8", 90000),
}
_STATIC_PAYLOAD_TYPES = (0, 8, 9)
_FITTING = {
    "audio": "Opus, G.722, PCMU or PCMA",
    "video": "VP8, or H.264 with packetization mode 1",
}
"""The codecs of :func:`is_usable_codec` in words."""
_REPAIR_CODECS = ("rtx", "red", "ulpfec", "flexfec", "flexfec-03", "cn", "telephone-event")
"""Codecs that repair or accompany others."""
MAX_NAMED_CODECS = 6
"""Codecs that are named in a message."""
_CANDIDATE_TYPES = ("host", "srflx", "relay")
"""The types that aioice (0.10 to 0.13) takes; it drops others without a word."""
_MDNS = re.compile(r"[A-Za-z0-9-]{1,63}\.local")


@dataclass(frozen=True)
class Repaired:
    """A foreign description, and the one that aiortc is given in its place."""

    original: Description
    description: Description
    """The description that aiortc is given."""
    rejected: frozenset[str]
    """The mids of sections that are not in use, or cannot be."""

    @property
    def is_usable(self) -> bool:
        """Whether any section can be in use."""
        return len(self.rejected) < len(self.original.sections)

    @property
    def fragment(self) -> str:
        """The ICE user name fragment: each restart of ICE has another."""
        return self.description.sections[0].ice_ufrag

    @property
    def tagged(self) -> tuple[str, int]:
        """The mid and index of the section whose transport and candidates count."""
        mid = self.description.bundle[0]
        return mid, [section.mid for section in self.description.sections].index(mid)


class Sender(NamedTuple):
    """A track that a description announces."""

    kind: str
    stream_id: str | None
    track_id: str | None


class UnfitTrack(NamedTuple):
    """A track that is sent in codecs that aiortc does not know."""

    kind: str
    stream_id: str | None
    problem: str
    """The codecs that it is offered in, and those that fit, in words."""


def is_usable_codec(kind: str, codec: Codec) -> bool:
    """Return whether aiortc knows a codec, retransmission aside. (Of H.264 it decodes more.)"""
    if codec.payload_type not in _STATIC_PAYLOAD_TYPES and not 96 <= codec.payload_type <= 127:
        return False  # (it takes others' payload types over in this range only)
    name = codec.name.lower()
    if (kind, name, codec.clock_rate) == ("video", "h264", 90000):
        return is_plain_h264(codec)
    return (kind, name, codec.clock_rate) in _USABLE_CODECS


def is_usable_candidate(text: str) -> bool:
    """Return whether aioice can take a candidate, given as after ``candidate:``."""
    fields = text.split()
    if len(text) > MAX_CANDIDATE or len(fields) < 8 or fields[6] != "typ":
        return False
    component, transport, priority, host, port = fields[1:6]
    return (
        component == "1"
        and transport.lower() == "udp"
        and priority.isdecimal()
        and len(priority) <= 10
        and port.isdecimal()
        and 0 < int(port[:6]) < 65536
        and (_MDNS.fullmatch(host) is not None or _is_address(host))
        and len(fields) % 2 == 0
    )


def candidate_problem(text: str) -> str | None:
    """Return why a well-formed candidate is refused; ``None`` where it is not, or is malformed.

    Candidates for TCP and for RTCP are neither: browsers send them beside those that count.
    """
    fields = text.split()
    if is_usable_candidate(text):
        return None if fields[7] in _CANDIDATE_TYPES else f"its type is {fields[7][:100]!r}"
    if is_usable_candidate(" ".join((*fields[:4], "0.0.0.0", *fields[5:]))):
        return f"{fields[4][:100]!r} is not an address"
    return None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def repair(
    description: Description,
    before: Repaired | None = None,
    *,
    answer: bool = False,
    formats: Mapping[str, StreamFormat] = MappingProxyType({}),
) -> Repaired:
    """Return a description together with one that aiortc can take in its place.

    Args:
        description: The description of the other side.
        before: The one before it, whose transport goes on where nothing is said of one.
        answer: Whether it is an answer: one that rejects all needs no transport.
        formats: The formats of what this side sends encoded already, by mid.

    Raises:
        SdpError: Nothing can be done with it.
    """
    original = description
    admitted = (admit(section, formats.get(section.mid)) for section in description.sections)
    description = replace(description, sections=tuple(admitted))
    sections = description.sections
    if not 0 < len(sections) <= MAX_SECTIONS:
        raise SdpError(f"{len(sections)} sections, where 1 to {MAX_SECTIONS} are possible")
    mids = [section.mid for section in sections]
    if "" in mids or len(set(mids)) != len(mids):
        raise SdpError("the sections have no mids to tell them by")
    usable = [section for section in sections if _is_usable(section)]
    if not usable and before is not None and not any(s.ice_ufrag for s in sections):
        tagged = _with_transport(sections[0], before.description.sections[0])
    elif not usable and answer and not any(s.ice_ufrag for s in sections):
        return Repaired(original, description, frozenset(mids))
    else:
        tagged = _tagged(description, usable)
    most = min(MAX_CANDIDATES, MAX_COPIED_CANDIDATES // len(sections))
    candidates = itertools.islice(filter(is_usable_candidate, tagged.candidates), most)
    tagged = replace(tagged, candidates=tuple(candidates))
    bundled = [s.mid for s in usable if s.mid == tagged.mid or s.mid in description.bundle]
    if tagged.mid not in description.bundle:
        bundled = [s.mid for s in usable if s.mid == tagged.mid]
    rejected = frozenset(mids) - frozenset(bundled)
    group = (tagged.mid, *(mid for mid in mids if mid != tagged.mid))
    fixed = tuple(
        placeholder(s, tagged, formats.get(s.mid)) if s.mid in rejected else _trim(s, tagged)
        for s in sections
    )
    return Repaired(original, replace(description, sections=fixed, bundle=group), rejected)


def misfit(section: Section, *, first: bool = False) -> str | None:
    """Return in words why what is sent in a section cannot be decoded; ``None``: it can be.

    Args:
        section: A section of the other side.
        first: Whether its first codec is the one that will be sent, as a server offers it that
            forwards what somebody else has encoded; else any may be.
    """
    if section.kind not in _PLACEHOLDERS:
        return None
    codecs = [one for one in section.codecs if one.name.lower() not in _REPAIR_CODECS]
    considered = codecs[:1] if first else codecs
    admitted = admit(replace(section, codecs=tuple(considered))).codecs
    if any(is_usable_codec(section.kind, codec) for codec in admitted):
        return None
    names = list(dict.fromkeys(map(_codec_name, considered)))
    more = f" and {len(names) - MAX_NAMED_CODECS} more" if len(names) > MAX_NAMED_CODECS else ""
    offered = ", ".join(names[:MAX_NAMED_CODECS]) + more or "no codec that is known"
    return f"it is offered in {offered}, and can be received in {_FITTING[section.kind]} only"


def _codec_name(codec: Codec) -> str:
    name = re.sub(r"[^\w.+-]", "?", codec.name[:32], flags=re.ASCII)
    if name.lower() != "h264":
        return name
    mode = codec.parameters.get("packetization-mode", "0")
    profile = codec.parameters.get("profile-level-id", "42e01f")
    details = f" (packetization mode {mode[:4]}, profile {profile[:8]})"
    return name + re.sub(r"[^\w ,()]", "?", details, flags=re.ASCII)


def unfit_tracks(description: Description) -> tuple[UnfitTrack, ...]:
    """Return the tracks that a description's writer sends, and that cannot be decoded here."""
    return tuple(
        UnfitTrack(section.kind, _sender(section).stream_id, problem)
        for section in description.sections
        if section.sends and (problem := misfit(section)) is not None
    )


def _is_usable(section: Section) -> bool:
    if section.rejected:
        return False
    if section.kind == "application":
        return section.protocol.endswith("DTLS/SCTP")
    return (
        section.kind in _PLACEHOLDERS
        and section.rtcp_mux
        and any(is_usable_codec(section.kind, codec) for codec in section.codecs)
    )


def _tagged(description: Description, usable: list[Section]) -> Section:
    """Return the section whose transport counts; of a description without one, any."""
    by_mid = {section.mid: section for section in usable}
    for mid in description.bundle:
        if mid in by_mid:
            first = by_mid[mid]
            break
    else:
        first = (usable or list(description.sections))[0]
    if first.ice_ufrag and first.ice_pwd and first.fingerprints:
        return first
    # A bundled section may leave them to another (and a rejected one may have none).
    for section in description.sections:
        if section.ice_ufrag and section.ice_pwd and section.fingerprints:
            return replace(
                first,
                ice_ufrag=section.ice_ufrag,
                ice_pwd=section.ice_pwd,
                fingerprints=section.fingerprints,
                setup=first.setup or section.setup,
                candidates=first.candidates or section.candidates,
            )
    raise SdpError("no section has the parameters of a transport (ICE, DTLS)")


def _with_transport(section: Section, tagged: Section) -> Section:
    return replace(
        section,
        ice_ufrag=tagged.ice_ufrag,
        ice_pwd=tagged.ice_pwd,
        fingerprints=tagged.fingerprints,
        setup=tagged.setup or "actpass",
        candidates=tagged.candidates,
        end_of_candidates=tagged.end_of_candidates,
        bundle_only=False,
    )


def _trim(section: Section, tagged: Section) -> Section:
    """Return a section without the codecs that aiortc does not know, and may stumble on."""
    kept = [c for c in section.codecs if is_usable_codec(section.kind, c)]
    numbers = {str(c.payload_type) for c in kept}
    kept += [
        c
        for c in section.codecs
        if c.name.lower() == "rtx"
        and 96 <= c.payload_type <= 127
        and c.parameters.get("apt") in numbers
    ]
    extensions = tuple(e for e in section.extensions if 0 < e.id < 256)
    trimmed = replace(section, codecs=tuple(kept), extensions=extensions)
    return _with_transport(trimmed, tagged)


def placeholder(section: Section, tagged: Section, format: StreamFormat | None = None) -> Section:
    """Return an inactive section that aiortc can take in the place of one that it cannot.

    ``tagged`` has the parameters of the transport; ``format`` is that of what was to be sent
    there, if that is encoded already: it is the only codec then.
    """
    if section.kind == "application":
        bare = Section(
            "application", section.mid, protocol=section.protocol, formats=section.formats
        )
        bare = replace(bare, sctp_port=section.sctp_port or 5000)
    else:
        kind = section.kind if section.kind in _PLACEHOLDERS else "audio"
        codec = _PLACEHOLDERS[kind] if format is None else format.placeholder
        bare = Section(kind, section.mid, direction="inactive", codecs=(codec,), rtcp_mux=True)
    return _with_transport(bare, tagged)


def reject(
    description: Description, rejected: Collection[str], remote: Iterable[Section] = ()
) -> Description:
    """Return our description with those sections rejected: port 0, and out of the bundle.

    ``remote`` has the sections as the other side wrote them: an answer repeats their
    ``m=`` line.
    """
    theirs = {section.mid: section for section in remote}
    sections = []
    for section in description.sections:
        if section.mid not in rejected:
            sections.append(replace(section, port=9))
            continue
        original = theirs.get(section.mid, section)
        formats = original.formats or tuple(str(c.payload_type) for c in original.codecs)
        sections.append(
            Section(
                original.kind,
                section.mid,
                port=0,
                protocol=original.protocol,
                formats=formats,
                direction="inactive",
            )
        )
    bundle = tuple(mid for mid in description.bundle if mid not in rejected)
    return replace(description, sections=tuple(sections), bundle=bundle)


def senders(description: Description) -> dict[str, Sender]:
    """Return the tracks that a description's writer sends, by mid."""
    return {
        section.mid: _sender(section)
        for section in description.sections
        if section.kind in _PLACEHOLDERS and section.sends
    }


def _sender(section: Section) -> Sender:
    stream, track = section.msid or ("", "")
    return Sender(section.kind, stream if stream not in ("", "-") else None, track or None)
