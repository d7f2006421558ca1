"""Bring encoded pictures into the form in which they are sent as they are, or refuse them.

A picture of H.264 is an access unit in Annex B. Cameras and files may have the parameter sets
somewhere else (in a session description, in a file's header), at the beginning only, or anew
with each change: here they are put before each IDR picture, so that a receiver can begin with
any of those. Pictures must come in the order in which they are shown: WebRTC has one timestamp
a picture, and no B-frames.

Facts: H.264, sections 7.3.1 to 7.3.3, 7.4.1.2.4; RFC 7741 (VP8).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple, Protocol

from metered_sync.engine.webrtc.stream_formats import StreamFormat
from metered_sync.errors import MediaError
from metered_sync.wire.key_frames import Bits

__all__ = [
    "MAX_PARAMETER_SETS",
    "START_CODE",
    "AccessUnit",
    "AccessUnits",
    "access_units",
    "split_units",
]

SLICE, IDR, SEQUENCE, PICTURE = 1, 5, 7, 8
LEFT_OUT = {9, 10, 11, 12}
"""Delimiters, ends and filling: packets and their markers say the same."""
MAX_PARAMETER_SETS = 64
"""Parameter sets that are kept."""
WITHOUT_B_FRAMES = (
    "have its encoder make none (a camera: Baseline profile, or B-frames 0; a file: "
    "`ffmpeg -i IN -c:v libx264 -bf 0 -c:a libopus OUT.mkv`), or leave encoded=True out"
)
START_CODE = b"\0\0\0\x01"
_START = re.compile(rb"\0\0\x01")


class AccessUnit(NamedTuple):
    """An encoded picture, or a packet of sound."""

    data: bytes
    key: bool
    """Whether it can be decoded without those before it."""


class AccessUnits(Protocol):
    """A stream whose access units are read one after the other."""

    @property
    def format(self) -> StreamFormat | None:
        """The format; ``None`` while it is not known."""

    lacks_parameters: bool
    """Whether the latest one is a key frame for which the parameters have not come."""

    def read(self, data: bytes, *, key: bool = False) -> AccessUnit | None:
        """Return an access unit as it is to be sent; ``None``: there is nothing to send.

        ``key`` says that it is a key frame, which is seen where it is one by the codec's rules.

        Raises:
            MediaError: It cannot be sent as it is.
        """


def access_units(
    codec: str, label: str, header: bytes = b"", *, remedy: str = WITHOUT_B_FRAMES
) -> AccessUnits:
    """Return a reader of a stream.

    Args:
        codec: ``"h264"``, ``"vp8"`` or ``"opus"``.
        label: What the stream is called in errors.
        header: Parameter sets in Annex B that are known from elsewhere.
        remedy: What to do where it has B-frames.
    """
    return H264Units(label, header, remedy) if codec == "h264" else PlainUnits(codec)


class PlainUnits:
    """A stream of VP8 or Opus, whose packets are sent as they are."""

    def __init__(self, codec: str) -> None:
        self._codec = codec
        self.format: StreamFormat | None = StreamFormat(codec)
        self.lacks_parameters = False

    def read(self, data: bytes, *, key: bool = False) -> AccessUnit | None:
        """Return a packet, and whether it is a key frame; see :class:`AccessUnits`."""
        if not data:
            return None
        return AccessUnit(data, key or self._codec != "vp8" or not data[0] & 1)


class H264Units:
    """A stream of H.264 in Annex B."""

    def __init__(self, label: str, header: bytes = b"", remedy: str = WITHOUT_B_FRAMES) -> None:
        self._label = label
        self._remedy = remedy
        self._sets: dict[tuple[int, int], bytes] = {}
        """Parameter sets, by type and id."""
        self._in_use: bytes = b""
        """The sequence parameter set that came latest."""
        self.lacks_parameters = False
        for unit in split_units(header):
            self._learn(unit)

    @property
    def format(self) -> StreamFormat | None:
        """The format, with the profile of the latest parameters; ``None`` before the first."""
        return StreamFormat("h264", self._in_use[1:4].hex()) if self._in_use else None

    def read(self, data: bytes, *, key: bool = False) -> AccessUnit | None:
        """Return a picture that begins with all it needs; see :class:`AccessUnits`."""
        self.lacks_parameters = False
        units = [u for u in split_units(data) if u[0] & 0x1F not in LEFT_OUT]
        kinds = {unit[0] & 0x1F for unit in units}
        for unit in units:
            kind = unit[0] & 0x1F
            if kind in (SEQUENCE, PICTURE):
                self._learn(unit)
            elif kind in (SLICE, IDR) and _slice_type(unit) % 5 == 1:
                raise MediaError(
                    f"{self._label} has B-frames, which WebRTC cannot carry as they are: "
                    f"{self._remedy}"
                )
        if not kinds & {1, 2, 5}:
            return None
        key = key or IDR in kinds
        if key and not {SEQUENCE, PICTURE} <= kinds:
            units = [u for u in units if u[0] & 0x1F not in (SEQUENCE, PICTURE)]
            units[:0] = [self._sets[which] for which in sorted(self._sets)]
        if key and not self._in_use:
            self.lacks_parameters = True
            return None  # nobody can decode it
        return AccessUnit(b"".join(START_CODE + unit for unit in units), key)

    def _learn(self, unit: bytes) -> None:
        kind = unit[0] & 0x1F
        if kind == SEQUENCE and len(unit) > 4:
            self._in_use = unit
            number = _numbers(unit[4:12], 1)
        elif kind == PICTURE and len(unit) > 1:
            number = _numbers(unit[1:9], 1)
        else:
            return
        if number and ((kind, *number) in self._sets or len(self._sets) < MAX_PARAMETER_SETS):
            self._sets[kind, number[0]] = unit


def split_units(data: bytes) -> Iterator[bytes]:
    """Yield the units of an access unit in Annex B, without start codes."""
    starts = [match.end() for match in _START.finditer(data)]
    ends = (*(start - 3 for start in starts[1:]), len(data))
    for start, end in zip(starts, ends):  # noqa: B905 - without a start there is one end
        if unit := data[start:end].rstrip(b"\0"):
            yield unit


def _slice_type(unit: bytes) -> int:
    """Return a slice's type; 0 (P) where it is cut off."""
    numbers = _numbers(unit[1:17], 2)
    return numbers[1] if len(numbers) == 2 else 0


def _numbers(data: bytes, count: int) -> list[int]:
    """Return the first numbers in some bytes of a unit (H.264, section 9.1), fewer at their end."""
    bits = Bits(data)
    numbers: list[int] = []
    with suppress(ValueError):
        while len(numbers) < count:
            numbers.append(bits.golomb())
    return numbers
