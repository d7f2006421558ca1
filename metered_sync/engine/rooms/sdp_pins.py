"""Keep payload types, extension ids and sections as they were agreed on.

Once negotiated, a header extension's id and a codec's payload type must not change
their meaning in later offers (RFC 8285, section 5; RFC 9429, section 5.2.2): Chromium
refuses other ids, and aiortc's senders and receivers keep the payload types that they
began with. Nor may sections change their order or vanish. aiortc (1.14 to 1.16) numbers
each of its offers anew, so they are rewritten: :class:`Pins` has the numbers,
:func:`arrange` the sections.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from metered_sync.wire.sdp import Codec, Description, Extension, Section

__all__ = ["Pins", "arrange"]

K = TypeVar("K", bound=Hashable)
_Meaning = tuple[str, ...]
_OFFERED_EXTENSIONS = {"http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time": 12}
"""The header extension offered unasked: bandwidth estimation needs it. Nobody else uses its
number. An offer of the other side's may cross ours, in which the number means something else:
Chromium (156) is then stuck, and aiortc (1.14 to 1.16) reads its extensions under the numbers
of its latest offer, agreed on or not, and closes where a length is wrong. Chromium's own offers
have 1 to 11, 13 and 14, aiortc's 1 to 3."""
_PAYLOAD_TYPES = range(96, 128)
_FORMATS = {
    "av1": {"profile": "0", "tier": "0"},
    "h264": {"packetization-mode": "0", "profile-level-id": ""},
    "h265": {"profile-id": "1", "tier-flag": "0", "tx-mode": "SRST"},
    "vp9": {"profile-id": "0"},
}
"""The parameters by which payload types of one codec differ, with what stands for none (AV1's RTP
specification, section 7.2; RFC 6184, section 8.1; RFC 7798, section 7.1; RFC 9628, section 7)."""


class Pins:
    """The payload types and extension ids agreed on for a connection, which is one bundle."""

    def __init__(self) -> None:
        self._extensions = dict(_OFFERED_EXTENSIONS)
        self._types: dict[_Meaning, int] = {}

    def learn(self, description: Description) -> None:
        """Take over the numbers in a description of the other side. The latest meaning counts."""
        for section in description.sections:
            if not section.rejected:
                for extension in section.extensions:
                    _learn(self._extensions, extension.uri, extension.id)
                for meaning, codec in _meanings(section):
                    _learn(self._types, meaning, codec.payload_type)

    def apply(self, offer: Description) -> Description:
        """Return an offer of ours with the numbers that were agreed on.

        A header extension whose number is not known is left out, and nothing is lost:
        aiortc tells streams apart by their SSRC.
        """
        types = dict(self._types)
        sections = (self._renumber(section, types) for section in offer.sections)
        return replace(offer, sections=tuple(sections))

    def _renumber(self, section: Section, types: dict[_Meaning, int]) -> Section:
        extensions = (
            Extension(self._extensions[extension.uri], extension.uri)
            for extension in section.extensions
            if extension.uri in self._extensions
        )
        renumbered: dict[str, str] = {}
        kept = []
        for meaning, codec in _meanings(section):
            number = _give(types, meaning, codec.payload_type)
            if number is not None:
                renumbered[str(codec.payload_type)] = str(number)
                kept.append(replace(codec, payload_type=number))
        codecs = tuple(_point(codec, renumbered) for codec in kept)
        return replace(section, extensions=tuple(extensions), codecs=codecs)


def _learn(numbers: dict[K, int], key: K, number: int) -> None:
    for other in [k for k, n in numbers.items() if n == number]:
        del numbers[other]
    numbers[key] = number


def _give(types: dict[_Meaning, int], meaning: _Meaning, wish: int) -> int | None:
    """Return the payload type of a codec, if need be a new one; ``None``: there is none left."""
    if meaning not in types:
        taken = types.values()
        free = next((n for n in (wish, *_PAYLOAD_TYPES) if n not in taken), None)
        if free is None:
            return None
        types[meaning] = free
    return types[meaning]


def _meanings(section: Section) -> list[tuple[_Meaning, Codec]]:
    """Return the codecs, each with what distinguishes it from all others."""
    meanings = {str(codec.payload_type): _meaning(section.kind, codec) for codec in section.codecs}
    return [
        (_retransmission(codec, meanings) or meanings[str(codec.payload_type)], codec)
        for codec in section.codecs
    ]


def _meaning(kind: str, codec: Codec) -> _Meaning:
    name, given = codec.name.lower(), codec.parameters
    fields = [kind, name, str(codec.clock_rate), str(codec.channels)]
    for parameter, default in _FORMATS.get(name, {}).items():
        value = given.get(parameter, default).lower()
        # (Of H.264 the level may differ.)
        fields.append(value[:4] if parameter == "profile-level-id" else value)
    return tuple(fields)


def _retransmission(codec: Codec, meanings: Mapping[str, _Meaning]) -> _Meaning | None:
    if codec.name.lower() != "rtx":
        return None
    return ("rtx", *meanings.get(codec.parameters.get("apt", ""), ("of nothing",)))


def _point(codec: Codec, types: Mapping[str, str]) -> Codec:
    """Have a retransmission refer to its codec's new payload type."""
    if codec.name.lower() != "rtx":
        return codec
    apt = codec.parameters.get("apt", "")
    return replace(codec, fmtp=f"apt={types.get(apt, apt)}")


def arrange(offer: Description, order: Sequence[int], mids: Sequence[str]) -> Description:
    """Return an offer with its sections in this order, under these mids."""
    sections = tuple(
        replace(offer.sections[index], mid=mid) for index, mid in zip(order, mids, strict=True)
    )
    return replace(offer, sections=sections, bundle=tuple(mids))
