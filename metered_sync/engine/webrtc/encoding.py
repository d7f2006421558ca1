"""Choose how a track is encoded: bit rate, frame rate, codec.

aiortc offers the choice of a codec, and nothing else: its encoders follow what the receiver
reports, between fixed limits, and the encoder of a sender is private.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import cpu_count
from typing import Any

from aiortc import RTCRtpSender, RTCRtpTransceiver
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder, number_of_threads
from av import CodecContext

from metered_sync.engine.webrtc.aiortc_private.capabilities import Capability, can
from metered_sync.engine.webrtc.aiortc_private.sending import first_codec, set_encoder
from metered_sync.engine.webrtc.pictures import describe
from metered_sync.wire.arguments import plain_number, shown

__all__ = [
    "PINNED",
    "DescribedH264Encoder",
    "Encoding",
    "ExactVp8Encoder",
    "check_encoding",
    "pin_bitrate",
    "prefer_codec",
]

MIN_BITRATE = 10_000
"""Bits per second below which a number must be meant in some other unit."""


@dataclass(frozen=True)
class Encoding:
    """A publisher's wishes for one track; ``None`` leaves the choice to aiortc."""

    video_bitrate: int | None = None
    """Bits per second, held whatever the receiver reports."""
    max_framerate: float | None = None
    """Frames per second at most; others are left out."""
    codec: str | None = None
    """The codec to put first, in lower case."""


def check_encoding(
    kinds: set[str], video_bitrate: Any, max_framerate: Any, codec: Any
) -> dict[str, Encoding]:
    """Return the encoding for tracks of each kind.

    Raises:
        ValueError: A value that makes no sense, or that concerns none of these kinds.
    """
    for name, value, least in (
        ("video_bitrate", video_bitrate, MIN_BITRATE),
        ("max_framerate", max_framerate, 0),
    ):
        if value is None:
            continue
        number = plain_number(value)
        if number is None:
            raise TypeError(f"{name} must be a number, not {type(value).__name__}")
        if not least < number < float("inf"):
            unit = "bits per second, above 10000" if least else "frames per second, above 0"
            raise ValueError(f"{name} is in {unit}; got {shown(value)}")
        if "video" not in kinds:
            raise ValueError(f"{name} is for video, and there is only audio to publish")
    bitrate = plain_number(video_bitrate)
    video = Encoding(None if bitrate is None else round(bitrate), plain_number(max_framerate))
    encodings = {"audio": Encoding(), "video": video}
    if codec is not None:
        if not isinstance(codec, str):
            raise TypeError(f"codec must be a string, not {type(codec).__name__}")
        available = {kind: codecs(kind) for kind in sorted(kinds)}
        found = [kind for kind in available if codec.lower() in available[kind]]
        if not found:
            names = ", ".join(name for names in available.values() for name in names)
            raise ValueError(f"codec {shown(codec)} is unknown; available: {names}")
        for kind in found:
            one = encodings[kind]
            encodings[kind] = Encoding(one.video_bitrate, one.max_framerate, codec.lower())
    return encodings


def codecs(kind: str) -> list[str]:
    """Return the names of the codecs that can be sent, in lower case."""
    names = (c.name.lower() for c in RTCRtpSender.getCapabilities(kind).codecs)
    return [name for name in dict.fromkeys(names) if name != "rtx"]


def prefer_codec(transceiver: RTCRtpTransceiver, codec: str | None, *, alone: bool = False) -> None:
    """Put a codec first in what is offered from now on; unless alone, the others stay possible."""
    if codec is not None:
        capabilities = RTCRtpSender.getCapabilities(transceiver.kind).codecs
        if alone:
            kept = [c for c in capabilities if c.name.lower() in (codec, "rtx")]
        else:
            kept = sorted(capabilities, key=lambda c: c.name.lower() != codec)
        transceiver.setCodecPreferences(kept)


def pin_bitrate(transceiver: RTCRtpTransceiver, bitrate: int | None) -> None:
    """Have a sender that has not begun yet keep to a bit rate."""
    if bitrate is not None and can(Capability.BITRATES):
        codec = first_codec(transceiver)
        if codec in PINNED:
            set_encoder(transceiver.sender, PINNED[codec](int(bitrate)))


class _Pinned:
    """An encoder whose rate does not follow the receiver's reports."""

    def __init__(self, bitrate: int) -> None:
        super().__init__()
        self._bitrate = bitrate

    @property
    def target_bitrate(self) -> int:
        return self._bitrate

    @target_bitrate.setter
    def target_bitrate(self, bitrate: int) -> None:
        pass


class ExactVp8Encoder(Vp8Encoder):
    """A VP8 encoder that leaves libvpx's denoiser off.

    aiortc (1.14 to 1.16) has it at its strongest. Together with ``static-thresh`` it takes a block
    that changes for noise, and leaves it as it was: 3 of 100 drawn pictures of 160 x 120 had such a
    block. Without it they are smaller, too, and cost a fifth less.

    It makes the codec that its base class would make, before that does.
    """

    def encode(self, frame: Any, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        codec = self.codec
        if (
            codec is None
            or (codec.width, codec.height) != (frame.width, frame.height)
            or not codec.bit_rate
            or abs(self.target_bitrate - codec.bit_rate) / codec.bit_rate > 0.1
        ):
            self.codec = self._make(frame)
        return super().encode(frame, force_keyframe)

    def _make(self, frame: Any) -> Any:
        codec: Any = CodecContext.create("libvpx", "w")
        codec.width, codec.height = frame.width, frame.height
        codec.pix_fmt = "yuv420p"
        codec.bit_rate = self.target_bitrate
        codec.gop_size = 3000  # key frames are asked for
        codec.qmin, codec.qmax = 2, 56
        rate = str(self.target_bitrate)
        codec.options = {
            "bufsize": rate,  # a second's worth
            "cpu-used": "-6",
            "deadline": "realtime",
            "lag-in-frames": "0",
            "maxrate": rate,
            "minrate": rate,
            "noise-sensitivity": "0",
            "overshoot-pct": "15",
            "partitions": "0",
            "static-thresh": "1",
            "undershoot-pct": "100",
        }
        codec.thread_count = number_of_threads(frame.width * frame.height, cpu_count())
        return codec


class _PinnedVp8(_Pinned, ExactVp8Encoder):
    """A VP8 encoder with a fixed rate."""


class DescribedH264Encoder(H264Encoder):
    """An x264 encoder that says of its pictures which range and colours they have.

    What does not is taken for BT.709 by browsers, and the pictures are in BT.601.
    """

    _described: Any = None

    @property
    def codec(self) -> Any:
        """The encoder of FFmpeg's, as it is made for each size and bit rate."""
        return self._described

    @codec.setter
    def codec(self, codec: Any) -> None:
        if codec is not None:
            describe(codec)
        self._described = codec


class _PinnedH264(_Pinned, DescribedH264Encoder):
    """An x264 encoder with a fixed rate, which needs the frame rate for that: aiortc says 30.

    It makes the codec that its base class would make, before that does.
    """

    def __init__(self, bitrate: int) -> None:
        super().__init__(bitrate)
        self._framerate = 30.0
        self._last: float | None = None

    def encode(self, frame: Any, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        self._measure(frame)
        codec = self.codec
        if (
            codec is None
            or (codec.width, codec.height) != (frame.width, frame.height)
            or abs(float(codec.framerate) / self._framerate - 1) > 0.25
        ):
            self.codec = self._make(frame)
        return super().encode(frame, force_keyframe)

    def _measure(self, frame: Any) -> None:
        last, self._last = self._last, frame.time
        if last is not None and self._last is not None and 0.004 < self._last - last < 1:
            # Over some ten frames: one that is late is none of a slower source.
            interval = 1 / self._framerate
            self._framerate = 1 / (interval + (self._last - last - interval) / 10)

    def _make(self, frame: Any) -> Any:
        codec: Any = CodecContext.create("libx264", "w")
        codec.width, codec.height = frame.width, frame.height
        codec.pix_fmt = "yuv420p"
        codec.bit_rate = self._bitrate
        codec.framerate = Fraction(round(self._framerate * 100), 100)
        codec.time_base = Fraction(1, 90000)
        codec.profile = "Baseline"
        rate = str(self._bitrate)
        codec.options = {
            "level": "31",
            "tune": "zerolatency",
            "maxrate": rate,
            "bufsize": rate,
        }
        return codec


PINNED: dict[str, type[_Pinned]] = {"vp8": _PinnedVp8, "h264": _PinnedH264}
"""Encoders with a fixed bit rate, by codec."""
