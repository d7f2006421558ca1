"""Keep numbers and sections where the other side knows them.

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
from typing import Generic, TypeVar

from metered_sync.wire.sdp import Codec, Description, Extension, Section

__all__ = ["Pins", "arrange"]

K = TypeVar("K", bound=Hashable)
_Meaning = tuple[str, ...]
_EXTENSION_IDS = range(1, 15)
_PAYLOAD_TYPES = range(96, 128)


class _Numbers(Generic[K]):
    """What each number of one space means."""

    def __init__(self, space: range, known: Mapping[K, int]) -> None:
        self._space = space
        self.known = dict(known)

    def learn(self, key: K, number: int) -> None:
        """Take over a number; the latest meaning counts."""
        self.known = {k: n for k, n in self.known.items() if n != number}
        self.known[key] = number

    def give(self, key: K, wish: int) -> int | None:
        """Return the number for a key, if need be a new one; ``None``: there is none left."""
        taken = self.known.values()
        if key not in self.known:
            free = (n for n in (wish, *self._space) if n not in taken)
            number = next(free, None)
            if number is None:
                return None
            self.known[key] = number
        return self.known[key]


class Pins:
    """The numbers that the sections of a connection, one bundle, have agreed on."""

    def __init__(self) -> None:
        self._extensions = _Numbers[str](_EXTENSION_IDS, {})
        self._codecs = _Numbers[_Meaning](_PAYLOAD_TYPES, {})

    def learn(self, description: Description) -> None:
        """Take over what a description of the other side says."""
        for section in description.sections:
            if not section.rejected:
                for extension in section.extensions:
                    self._extensions.learn(extension.uri, extension.id)
                for meaning, codec in _meanings(section):
                    self._codecs.learn(meaning, codec.payload_type)

    def apply(self, offer: Description) -> Description:
        """Return an offer of ours with the numbers that were agreed on."""
        extensions = _Numbers(_EXTENSION_IDS, self._extensions.known)
        codecs = _Numbers(_PAYLOAD_TYPES, self._codecs.known)
        sections = (_renumber(section, extensions, codecs) for section in offer.sections)
        return replace(offer, sections=tuple(sections))


def _renumber(section: Section, extensions: _Numbers[str], codecs: _Numbers[_Meaning]) -> Section:
    numbered = [(extensions.give(e.uri, e.id), e.uri) for e in section.extensions]
    types: dict[str, str] = {}
    kept = []
    for meaning, codec in _meanings(section):
        number = codecs.give(meaning, codec.payload_type)
        if number is not None:
            types[str(codec.payload_type)] = str(number)
            kept.append(replace(codec, payload_type=number))
    return replace(
        section,
        extensions=tuple(Extension(number, uri) for number, uri in numbered if number is not None),
        codecs=tuple(_point(codec, types) for codec in kept),
    )


def _meanings(section: Section) -> list[tuple[_Meaning, Codec]]:
    """Return the codecs, each with what distinguishes it from all others."""
    meanings = {str(codec.payload_type): _meaning(section.kind, codec) for codec in section.codecs}
    return [
        (_retransmission(codec, meanings) or meanings[str(codec.payload_type)], codec)
        for codec in section.codecs
    ]


def _meaning(kind: str, codec: Codec) -> _Meaning:
    fields = [kind, codec.name.lower(), str(codec.clock_rate), str(codec.channels)]
    if codec.name.lower() == "h264":
        parameters = codec.parameters
        fields.append(parameters.get("packetization-mode", "0"))
        fields.append(parameters.get("profile-level-id", "").lower()[:4])
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
