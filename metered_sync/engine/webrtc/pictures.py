"""Bring every picture that is to be encoded into the one shape that encoders are told of.

Wherever frames enter (files, cameras, RTSP servers, pictures that a program writes, tracks of
aiortc's, tracks that arrive and are recorded or sent on), they come by here. Encoders get
yuv420p from 16 to 235, in the colours of BT.601, upright, with square pixels, of even size: VP8
knows nothing else (RFC 6386, section 9.2), and browsers take no notice of pixels' shapes.
"""

from __future__ import annotations

import functools
import struct
from typing import Any

from av import VideoFrame

from metered_sync.engine.webrtc.filters import FilterChain, Step
from metered_sync.engine.webrtc.picture_extensions import Colours

__all__ = [
    "FULL",
    "LIMITED",
    "PictureNormalizer",
    "describe",
    "is_plain",
    "scaling",
    "turn_of",
    "turned",
]

MATRIX = struct.Struct("=9i")
"""A display matrix: rows of three numbers, as FFmpeg has them in memory."""
LIMITED, FULL = 1, 2
"""FFmpeg's numbers for the ranges from 16 to 235, and from 0 to 255."""
BT709, BT601 = 1, 6
"""The numbers of ITU-T H.273 for colours: primaries and gamma, which nobody converts; matrix."""
OTHER_MATRICES = frozenset((1, 4, 7, 8, 9, 10))
"""The matrices that differ from BT.601's so that it shows: BT.709, BT.2020 and others."""
MAX_STRETCH = 8
"""The most that a pixel may be wider than high, or higher than wide, to be believed."""
MAX_SIDE = 16382
"""The greatest even width or height, in pixels, that VP8 knows: no picture is stretched further."""

_TURNS: dict[tuple[int, int, int, int], tuple[Step, ...]] = {
    (-1, 0, 0, 1): (("hflip", ""),),
    (1, 0, 0, -1): (("vflip", ""),),
    (-1, 0, 0, -1): (("hflip", ""), ("vflip", "")),
    (0, 1, 1, 0): (("transpose", "cclock_flip"),),
    (0, 1, -1, 0): (("transpose", "clock"),),
    (0, -1, 1, 0): (("transpose", "cclock"),),
    (0, -1, -1, 0): (("transpose", "clock_flip"),),
}
"""The filters for each display matrix but the plain one, by the signs of its upper left part."""


def is_plain(colours: Colours | None) -> bool:
    """Return whether colours are those of pictures that say nothing of theirs."""
    return colours is None or (colours.matrix not in OTHER_MATRICES and colours.range != FULL)


def turned(quarters: int) -> tuple[Step, ...]:
    """Return the filters that turn a frame clockwise."""
    return ((), *(_TURNS[matrix] for matrix in ((0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0))))[
        quarters & 3
    ]


def turn_of(frame: VideoFrame) -> tuple[Step, ...]:
    """Return the filters that put a frame upright, and mirror it, as its display matrix says."""
    found: Any = frame.side_data.get("DISPLAYMATRIX")
    data = b"" if found is None else bytes(found)
    if len(data) < MATRIX.size:
        return ()
    a, b, _, c, d, *_rest = MATRIX.unpack_from(data)
    largest = max(abs(a), abs(b), abs(c), abs(d), 1)
    # (One that turns by other angles is left out: what stands nearly upright stays as it is.)
    signs = round(a / largest), round(b / largest), round(c / largest), round(d / largest)
    return _TURNS.get(signs, ())


def scaling(frame: VideoFrame, range_: int) -> str:
    """Return the scaler's arguments for a picture in the colours of BT.601, and a range."""
    # (From another matrix it goes by way of RGB, rounds twice, and makes everything lighter unless
    # told otherwise.)
    other = not frame.format.is_rgb and int(frame.colorspace) in OTHER_MATRICES
    flags = "bilinear+accurate_rnd" if other else "bilinear"
    return f"flags={flags}:out_color_matrix=smpte170m:out_range={range_}"


def describe(encoder: Any) -> None:
    """Have an encoder that has not been opened say what the pictures are that it will get."""
    encoder.color_range, encoder.colorspace = LIMITED, BT601
    encoder.color_primaries = encoder.color_trc = BT709


class PictureNormalizer:
    """Bring frames into the shape that encoders are told of; on any thread, one at a time."""

    def __init__(self, aspect: float = 1.0) -> None:
        """Prepare.

        Args:
            aspect: How much wider than high a pixel is, for frames that do not say themselves:
                what their container says.
        """
        self._aspect = aspect
        self._chain = FilterChain()

    def normal(self, frame: VideoFrame) -> VideoFrame:
        """Return a frame for an encoder: it may be stamped, and its pixels are not to be changed.

        (An encoder writes into the frame it is given: its time base, its picture type.)
        """
        turn = turn_of(frame)
        lying = bool(turn) and turn[0][0] == "transpose"
        scale = f"{_square(1 / self._aspect if lying else self._aspect)}:{scaling(frame, LIMITED)}"
        made = self._chain.run(
            frame, *turn, ("scale", scale), ("format", "yuv420p"), ("setsar", "1"),
            ("sidedata", "delete"),
        )  # fmt: skip
        # Which pictures are key frames is for the encoder to say.
        made.pict_type = 0
        return made


@functools.cache
def _square(aspect: float) -> str:
    """Return the scaler's arguments for square pixels and even sides."""
    own = f"if(eq(sar,1),{aspect:.6f},sar)"
    small = f"lte(iw*max({own},1),{MAX_SIDE})*lte(ih/min({own},1),{MAX_SIDE})"
    ratio = f"if(between({own},1/{MAX_STRETCH},{MAX_STRETCH})*{small},{own},1)"
    width = f"max(2*floor(iw*max({ratio},1)/2+0.25),2)"
    height = f"max(2*floor(ih/min({ratio},1)/2+0.25),2)"
    return f"w='{width}':h='{height}':eval=frame"
