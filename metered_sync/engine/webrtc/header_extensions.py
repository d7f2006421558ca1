"""Agree on the header extensions that say how pictures are to be shown, and have them read.

aiortc (1.14 to 1.16) knows neither of them, so they are added to its descriptions. A browser that
may not tell the colours of a canvas sends them wrong, not otherwise.
"""

from __future__ import annotations

from dataclasses import replace

from aiortc import RTCPeerConnection

from metered_sync.engine.webrtc.aiortc_private.extensions import read_extensions
from metered_sync.engine.webrtc.picture_extensions import COLOR_SPACE, VIDEO_ORIENTATION
from metered_sync.wire.sdp import Description, Extension, Section

__all__ = ["PictureExtensions"]

_OFFERED = {VIDEO_ORIENTATION: 13, COLOR_SPACE: 8}
"""The numbers under which they are offered: Chromium's, whose own offers may cross ours."""


class PictureExtensions:
    """The extensions of one connection, which is one bundle: each number has one meaning."""

    def __init__(self) -> None:
        self._numbers = dict(_OFFERED)

    def learn(self, description: Description, pc: RTCPeerConnection) -> None:
        """Take over the numbers of a description of the other side, and read what comes by them."""
        agreed: dict[int, str] = {}
        for section in description.sections:
            for extension in section.extensions:
                if section.kind == "video" and extension.uri in _OFFERED:
                    self._numbers[extension.uri] = extension.id
                    agreed[extension.id] = extension.uri
        read_extensions(pc, agreed)

    def offer(self, description: Description) -> Description:
        """Return an offer of ours with the extensions in its sections of pictures."""
        return replace(description, sections=tuple(map(self._offered, description.sections)))

    def _offered(self, section: Section) -> Section:
        if section.kind != "video" or section.rejected:
            return section
        taken = {extension.id for extension in section.extensions}
        added = (Extension(n, uri) for uri, n in self._numbers.items() if n not in taken)
        return replace(section, extensions=(*section.extensions, *added))

    def answer(self, description: Description, offer: Description) -> Description:
        """Return an answer of ours with those of the extensions that the offer has."""
        offered = {
            section.mid: tuple(e for e in section.extensions if e.uri in _OFFERED)
            for section in offer.sections
            if section.kind == "video"
        }
        sections = (
            section
            if section.rejected
            else replace(section, extensions=(*section.extensions, *offered.get(section.mid, ())))
            for section in description.sections
        )
        return replace(description, sections=tuple(sections))
