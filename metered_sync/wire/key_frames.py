"""Recognise where pictures and key frames start in RTP payloads, and the size of a picture.

Sources: RFC 7741 (VP8), RFC 9628 (VP9), RFC 6184 (H.264), RFC 7798 (H.265) and the AV1 RTP
specification, section 4.4.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

__all__ = [
    "MAX_PIXELS",
    "Bits",
    "detector",
    "is_vp8",
    "largest_size",
    "size_in_payload",
    "starts_picture",
    "stream_detector",
]

MAX_PIXELS = 4096 * 2304
"""The area of a picture that is decoded by default, at most: a decoder takes 1.5 bytes a pixel,
several times, for whatever a stranger's packet claims."""
MAX_PARAMETER_SETS = 16
"""Parameter sets that are read in one picture; one with more is refused."""
UNREADABLE = (1 << 16, 1 << 16)
"""The size of a picture whose parameters cannot be read: larger than any that is admitted."""

_H264_SEQUENCE = re.compile(rb"\0\0\x01[\x07\x27\x47\x67\x87\xa7\xc7\xe7]")
_CHROMA_PROFILES = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
"""H.264 profiles whose parameters tell of colours (H.264, section 7.3.2.1.1)."""


def detector(codec_name: str) -> Callable[[bytes], bool] | None:
    """Return the test for key frames of this codec; `None` if it is not known here."""
    return _DETECTORS.get(codec_name.lower())


def starts_picture(codec_name: str, payload: bytes) -> bool:
    """Return whether a picture may start with this payload; `True` but for VP8 and H.264.

    Parameters that stand before a picture are a part of it.
    """
    test = _PICTURE_STARTS.get(codec_name.lower())
    return test is None or test(payload)


def stream_detector(codec_name: str) -> Callable[[bytes], bool] | None:
    """Return the test for what a decoder that knows nothing yet can start with.

    H.264: only with parameters. `None` for codecs whose key frames are not known here.
    """
    return _STREAM_STARTS.get(codec_name.lower())


def _vp8_starts(payload: bytes) -> bool:
    return payload[0] & 0x17 == 0x10  # Start of a partition, and the first one.


def _vp8(payload: bytes) -> bool:
    return _vp8_starts(payload) and not payload[_vp8_header(payload)] & 0x01


def _vp8_header(payload: bytes) -> int:
    """Return the length of the payload descriptor."""
    position = 1
    if payload[0] & 0x80:
        extended = payload[1]
        position = 2
        if extended & 0x80:
            position += 2 if payload[position] & 0x80 else 1
        position += bool(extended & 0x40) + bool(extended & 0x30)
    return position


def _vp9(payload: bytes) -> bool:
    # Not predicted from another picture, and the start of a frame.
    return payload[0] & 0x48 == 0x08


def _av1(payload: bytes) -> bool:
    # N: the first packet of a coded video sequence.
    return bool(payload[0] & 0x08)


def _h264_units(payload: bytes) -> Iterator[bytes]:
    """Yield the first bytes of each unit that starts in a payload."""
    kind = payload[0] & 0x1F
    if kind == 24:  # STAP-A: before each unit its size, in two bytes.
        position = 1
        while position + 2 < len(payload):
            size = int.from_bytes(payload[position : position + 2], "big")
            if size:
                yield payload[position + 2 : position + 4]
            position += 2 + size
    elif kind == 28:  # FU-A: only its first fragment starts anything.
        if payload[1] & 0x80:
            yield payload[1:3]
    else:
        yield payload[:2]


def _h264(payload: bytes) -> bool:
    return any(unit[0] & 0x1F in (5, 7) for unit in _h264_units(payload))


def _h264_parameters(payload: bytes) -> bool:
    return any(unit[0] & 0x1F == 7 for unit in _h264_units(payload))


def _h264_starts(payload: bytes) -> bool:
    unit = next(_h264_units(payload), b"")
    # Parameters and the like; or a slice whose first macroblock is number 0 (a bit that is set).
    kind = unit[0] & 0x1F
    return kind in (6, 7, 8, 9) or (kind in (1, 5) and bool(unit[1] & 0x80))


def _h265(payload: bytes) -> bool:
    kind = payload[0] >> 1 & 0x3F
    if kind == 48:
        kind = payload[4] >> 1 & 0x3F
    elif kind == 49:
        kind = payload[2] & 0x3F if payload[2] & 0x80 else 0
    return 16 <= kind <= 21 or kind in (32, 33)


def _guarded(test: Callable[[bytes], bool]) -> Callable[[bytes], bool]:
    def guarded(payload: bytes) -> bool:
        try:
            return test(payload)
        except IndexError:
            return False  # Cut off, or nothing but padding.

    return guarded


_DETECTORS = {
    "vp8": _guarded(_vp8),
    "vp9": _guarded(_vp9),
    "av1": _guarded(_av1),
    "h264": _guarded(_h264),
    "h265": _guarded(_h265),
}
_PICTURE_STARTS = {"vp8": _guarded(_vp8_starts), "h264": _guarded(_h264_starts)}
_STREAM_STARTS = {**_DETECTORS, "h264": _guarded(_h264_parameters)}


# --- sizes ------------------------------------------------------------------------------


def largest_size(codec_name: str, picture: bytes) -> tuple[int, int] | None:
    """Return width and height that a whole picture claims, before it is decoded.

    ``picture`` is the bitstream without its RTP payload headers (H.264: Annex B). Of several
    sizes the largest counts. `None` where it does not tell, or the codec is not known here.
    """
    read = {"vp8": _vp8_size, "h264": _h264_size}.get(codec_name.lower())
    return None if read is None else read(picture)


def size_in_payload(codec_name: str, payload: bytes) -> tuple[int, int] | None:
    """Return width and height that a key frame's first payload tells; ``None`` for others."""
    read = {"vp8": _vp8_size_in_payload, "h264": _h264_size_in_payload}.get(codec_name.lower())
    try:
        return None if read is None else read(payload)
    except IndexError:
        return None  # cut off, or nothing but padding


def _vp8_size_in_payload(payload: bytes) -> tuple[int, int] | None:
    return _vp8_size(payload[_vp8_header(payload) :]) if _vp8_starts(payload) else None


def _h264_size_in_payload(payload: bytes) -> tuple[int, int] | None:
    units = [payload]
    if payload[0] & 0x1F == 24:  # STAP-A: before each unit its size, in two bytes.
        units, position = [], 1
        while position + 2 < len(payload):
            size = int.from_bytes(payload[position : position + 2], "big")
            units.append(payload[position + 2 : position + 2 + size])
            position += 2 + size
    for unit in units:
        if unit and unit[0] & 0x1F == 7:
            bits = Bits(unit[1:1025])
            try:
                return _cropped(bits, *_read_sequence(bits))
            except ValueError:
                return None
    return None


def _cropped(bits: Bits, width: int, height: int, frames_only: int) -> tuple[int, int]:
    """Return the size that is shown; parameters of a subsampled picture were read up to here."""
    if not frames_only:
        bits.take(1)
    bits.take(1)
    if bits.take(1):
        left, right, top, bottom = (bits.golomb() for _ in range(4))
        width -= 2 * (left + right)
        height -= 2 * (2 - frames_only) * (top + bottom)
    return width, height


def is_vp8(picture: bytes) -> bool:
    """Say whether a whole picture may be one of VP8, by what it says of itself.

    RFC 6386, section 9.1: the version, the size of the first partition, a key frame's start code.
    """
    if len(picture) < 3:
        return False
    tag = int.from_bytes(picture[:3], "little")
    head = 3 if tag & 1 else 10
    starts = tag & 1 or picture[3:6] == b"\x9d\x01\x2a"
    return bool(starts) and tag >> 1 & 7 < 4 and head + (tag >> 5) <= len(picture)


def _vp8_size(picture: bytes) -> tuple[int, int] | None:
    # RFC 6386, section 9.1.
    if len(picture) < 10 or picture[0] & 1:
        return None
    width, height = picture[6] | picture[7] << 8, picture[8] | picture[9] << 8
    return width & 0x3FFF, height & 0x3FFF


def _h264_size(picture: bytes) -> tuple[int, int] | None:
    sizes = []
    for match in _H264_SEQUENCE.finditer(picture):
        sizes.append(_sequence_size(picture[match.end() : match.end() + 1024]))
        if len(sizes) > MAX_PARAMETER_SETS:
            return UNREADABLE
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _sequence_size(data: bytes) -> tuple[int, int]:
    """Return the size in a sequence parameter set of H.264, cropping aside."""
    try:
        return _read_sequence(Bits(data))[:2]
    except ValueError:
        return UNREADABLE


def _read_sequence(bits: Bits) -> tuple[int, int, int]:
    """Return width and height, cropping aside, and whether there are whole frames only."""
    profile = bits.take(8)
    bits.take(16)  # constraints, level
    bits.golomb()  # its id
    if profile in _CHROMA_PROFILES:
        chroma = bits.golomb()
        if chroma == 3:
            bits.take(1)
        bits.golomb()  # bit depths
        bits.golomb()
        bits.take(1)
        if bits.take(1):
            for index in range(8 if chroma != 3 else 12):
                if bits.take(1):
                    _skip_scaling_list(bits, 16 if index < 6 else 64)
    bits.golomb()  # frame numbers
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1)
        bits.golomb()
        bits.golomb()
        for _ in range(min(bits.golomb(), 256)):
            bits.golomb()
    bits.golomb()  # reference frames
    bits.take(1)
    width, height = bits.golomb() + 1, bits.golomb() + 1
    frames_only = bits.take(1)
    return width * 16, height * 16 * (2 - frames_only), frames_only


def _skip_scaling_list(bits: Bits, count: int) -> None:
    last = following = 8
    for _ in range(count):
        if following:
            code = bits.golomb()
            delta = (code + 1) // 2 if code & 1 else -(code // 2)
            following = (last + delta) % 256
        last = following or last


class Bits:
    """Reads numbers from the bits of a unit of H.264; ``ValueError`` where they end."""

    def __init__(self, data: bytes) -> None:
        data = data.replace(b"\0\0\x03", b"\0\0")  # (what keeps start codes out of it)
        self._value = int.from_bytes(data, "big")
        self._left = len(data) * 8

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("the parameters are cut off")
        return self._value >> self._left & (1 << count) - 1

    def golomb(self) -> int:
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise ValueError("a number has more than 32 bits")
        return (1 << zeros) - 1 + self.take(zeros)
