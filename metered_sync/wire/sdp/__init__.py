"""Parse and build session descriptions (SDP, RFC 8866) as WebRTC uses them.

=========== ============================================================================
description what a description says, as frozen values
parser      read the text of a description, within bounds
builder     write it
=========== ============================================================================

A :class:`Description` is a list of :class:`Section` values, one per ``m=`` line,
in the order of the text. Attributes that may stand at session level (ICE,
fingerprint, setup, extmap) are copied into each section by :func:`parse`, so a
reader needs to look in one place only. Attributes that WebRTC does not need are
dropped: ``parse`` then ``build`` gives an equivalent description, not the same text.

Sources: RFC 8866 (SDP), RFC 9429 (JSEP), RFC 8839 (ICE), RFC 8842 (DTLS setup),
RFC 9143 (BUNDLE), RFC 8285 (extmap), RFC 5576 (ssrc), RFC 8830 (msid),
RFC 8851 and RFC 8853 (rid, simulcast), RFC 8841 (data channels).
"""

from __future__ import annotations

from metered_sync.wire.sdp.builder import build
from metered_sync.wire.sdp.description import (
    DIRECTIONS,
    Codec,
    Description,
    Extension,
    Fingerprint,
    Section,
    SsrcGroup,
)
from metered_sync.wire.sdp.parser import MAX_DESCRIPTION, SdpError, parse

__all__ = [
    "DIRECTIONS",
    "MAX_DESCRIPTION",
    "Codec",
    "Description",
    "Extension",
    "Fingerprint",
    "SdpError",
    "Section",
    "SsrcGroup",
    "build",
    "parse",
]
