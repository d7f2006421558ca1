"""Read the RTP header extensions that say how a picture is to be shown.

Sources: 3GPP TS 26.114, section 7.4.5 (orientation); WebRTC's description of its ``color-space``
extension, whose numbers are those of ITU-T H.273. An extension comes with the last packet of a
picture: the orientation when it changes and with key frames (or with all that are turned), the
colours with key frames. What is not said stays as it was.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["COLOR_SPACE", "VIDEO_ORIENTATION", "Colours", "read_colours", "read_turns"]

VIDEO_ORIENTATION = "urn:3gpp:video-orientation"
COLOR_SPACE = "http://www.webrtc.org/experiments/rtp-hdrext/color-space"
_RANGES = {1: 1, 2: 2}
"""The ranges from 16 to 235 and from 0 to 255, with the same numbers in FFmpeg."""


class Colours(NamedTuple):
    """The meaning of a picture's numbers."""

    matrix: int
    """The number of ITU-T H.273, table 4; 2: not known."""
    range: int
    """1: from 16 to 235; 2: from 0 to 255; 0: not known."""


def read_turns(value: bytes) -> int:
    """Return by how many quarters, clockwise, a picture is to be turned."""
    return value[0] & 3 if value else 0


def read_colours(value: bytes) -> Colours | None:
    """Return the colours of a picture; ``None``: they cannot be read."""
    if len(value) < 4:
        return None
    return Colours(value[2], _RANGES.get(value[3] >> 4 & 3, 0))
