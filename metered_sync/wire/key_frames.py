"""Recognise the start of a picture, or of a key frame, from the first bytes of an RTP payload.

Sources: RFC 7741 (VP8), RFC 9628 (VP9), RFC 6184 (H.264), RFC 7798 (H.265) and the AV1 RTP
specification, section 4.4.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["detector", "starts_picture", "starts_stream"]


def detector(codec_name: str) -> Callable[[bytes], bool] | None:
    """Return the test for key frames of this codec; `None` if it is not known here."""
    return _DETECTORS.get(codec_name.lower())


def starts_picture(codec_name: str, payload: bytes) -> bool:
    """Return whether a picture may start with this payload; `True` but for VP8 and H.264.

    Parameters that stand before a picture are a part of it.
    """
    test = _PICTURE_STARTS.get(codec_name.lower())
    return test is None or test(payload)


def starts_stream(codec_name: str, payload: bytes) -> bool:
    """Return whether a decoder that knows nothing yet can start with this payload.

    H.264: only with parameters. `True` for codecs whose key frames are not known here.
    """
    test = _STREAM_STARTS.get(codec_name.lower())
    return test is None or test(payload)


def _vp8_starts(payload: bytes) -> bool:
    return payload[0] & 0x17 == 0x10  # Start of a partition, and the first one.


def _vp8(payload: bytes) -> bool:
    if not _vp8_starts(payload):
        return False
    position = 1
    if payload[0] & 0x80:
        extended = payload[1]
        position = 2
        if extended & 0x80:
            position += 2 if payload[position] & 0x80 else 1
        position += bool(extended & 0x40) + bool(extended & 0x30)
    return not payload[position] & 0x01


def _vp9(payload: bytes) -> bool:
    # Not predicted from another picture, and the start of a frame.
    return payload[0] & 0x48 == 0x08


def _av1(payload: bytes) -> bool:
    # N: the first packet of a coded video sequence.
    return bool(payload[0] & 0x08)


def _h264_unit(payload: bytes) -> bytes:
    """Return the first bytes of the unit that starts in a payload; none if none does."""
    kind = payload[0] & 0x1F
    if kind == 24:  # STAP-A: a size of two bytes, then the first unit.
        return payload[3:5]
    if kind == 28:  # FU-A: only its first fragment starts anything.
        return payload[1:3] if payload[1] & 0x80 else b""
    return payload[:2]


def _h264(payload: bytes) -> bool:
    return _h264_unit(payload)[0] & 0x1F in (5, 7)


def _h264_parameters(payload: bytes) -> bool:
    return _h264_unit(payload)[0] & 0x1F == 7


def _h264_starts(payload: bytes) -> bool:
    unit = _h264_unit(payload)
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
