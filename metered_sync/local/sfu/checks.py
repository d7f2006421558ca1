"""Check a client's description before the SFU acts on it.

Sources: RFC 9429 (JSEP), sections 5.2 and 5.3; RFC 8842, section 5.2 (setup).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from metered_sync.local.rest import Refusal
from metered_sync.local.sfu.codecs import forwardable
from metered_sync.local.sfu.slots import Slot
from metered_sync.wire import sdp
from metered_sync.wire.sfu import PublishTrack, SessionDescription

__all__ = [
    "check_answer",
    "check_count",
    "check_offer",
    "check_publish",
    "first_active",
    "media_ssrcs",
    "parse_description",
]

_MAX_SESSION_SECTIONS = 200
"""Media sections of one session; a description of so many is some 300 kB long."""


def parse_description(description: SessionDescription) -> sdp.Description:
    """Parse a description of a client."""
    try:
        return sdp.parse(description.sdp)
    except sdp.SdpError as error:
        raise _unusable(f"sessionDescription.sdp: {error}") from None


def first_active(description: sdp.Description) -> sdp.Section | None:
    """Return the first section in use: it tells about the transport that all share."""
    return next((item for item in description.sections if not item.rejected), None)


def media_ssrcs(description: sdp.Description) -> dict[int, str]:
    """Return the SSRCs that carry the media itself, with the mid of their section."""
    result = {}
    for section in description.sections:
        if section.sends and section.ssrcs:
            # Of a simulcast, the first layer; of a stream and its retransmission, the stream.
            groups = (x.ssrcs for x in section.ssrc_groups if x.semantics in ("SIM", "FID"))
            result[next((group for group in groups if group), section.ssrcs)[0]] = section.mid
    return result


def check_count(number: int) -> None:
    """Refuse more sections than a session may have."""
    if number > _MAX_SESSION_SECTIONS:
        message = f"a session has at most {_MAX_SESSION_SECTIONS} media sections"
        raise Refusal(413, "too_many_tracks", message)


def check_offer(description: sdp.Description, slots: Sequence[Slot]) -> None:
    """Refuse an offer that does not continue the session."""
    sections = description.sections
    check_count(len(sections))
    if not sections or len(sections) < len(slots):
        raise _unusable("the offer lacks sections of the session")
    if not slots and first_active(description) is None:
        raise _unusable("the offer needs a media section in use")
    mids = [section.mid for section in sections if section.mid or not section.rejected]
    if not all(mids) or len(set(mids)) != len(mids):
        raise _unusable("each section needs a mid of its own")
    for slot, section in zip(slots, sections, strict=False):
        if not slot.rejected and not _continues(slot, section):
            raise _unusable(f"the section with mid {slot.mid!r} has moved or gone")
    first = first_active(description)
    if first is not None:
        if not (first.ice_ufrag and first.ice_pwd and first.fingerprints):
            raise _unusable("ICE credentials or the certificate's fingerprint are missing")
        if first.setup not in ("actpass", "active"):
            raise _unusable('setup must be "actpass" or "active": the SFU is the DTLS server')


def check_answer(description: sdp.Description, slots: Sequence[Slot]) -> None:
    """Refuse an answer that is not one to the SFU's offer of *slots*."""
    sections = description.sections
    if len(sections) != len(slots) or not all(map(_continues, slots, sections)):
        raise _unusable("the answer's sections are not the offer's")
    first = first_active(description)
    if first is not None and first.setup == "passive":
        raise _unusable('setup must be "active": the SFU is the DTLS server')


def check_publish(
    tracks: Sequence[PublishTrack], description: sdp.Description, published: Mapping[str, str]
) -> None:
    """Refuse tracks that the offer does not carry, or that clash.

    Args:
        tracks: The tracks to publish.
        description: The offer that comes with them.
        published: The mid of each track that the session has already, by track id.
    """
    sections = {section.mid: section for section in description.sections}
    mids: set[str] = set()
    taken = dict(published)
    for track in tracks:
        section = sections.get(track.mid)
        if section is None or section.kind not in ("audio", "video") or not section.sends:
            raise _bad_track(f"the offer sends no media in a section with mid {track.mid!r}")
        if not forwardable(section.codecs):
            raise _bad_track(f"none of the codecs of mid {track.mid!r} can be forwarded")
        if track.mid in mids:
            raise _bad_track(f"mid {track.mid!r} is named twice")
        mids.add(track.mid)
        if taken.setdefault(track.track_id, track.mid) != track.mid:
            message = f"this session publishes another track {track.track_id!r}"
            raise Refusal(409, "track_exists", message)


def _continues(slot: Slot, section: sdp.Section) -> bool:
    """Return whether *section* is the slot's; a rejected one may have lost its mid."""
    if section.kind != slot.kind:
        return False
    return section.mid == slot.mid or (section.rejected and not section.mid)


def _unusable(message: str) -> Refusal:
    return Refusal(400, "bad_description", message)


def _bad_track(message: str) -> Refusal:
    return Refusal(400, "bad_track", message)
