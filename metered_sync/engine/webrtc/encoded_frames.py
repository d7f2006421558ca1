"""Pictures and sound that arrive, as they are encoded, for readers that need none decoded."""

from __future__ import annotations

from typing import Any, NamedTuple

from metered_sync.bridge.reader import Reader
from metered_sync.engine.webrtc.picture_extensions import Colours

__all__ = ["EncodedFrame", "EncodedFrameReader"]


class EncodedFrame(NamedTuple):
    """A picture that has come whole, as has all that it refers to; or a packet of sound."""

    codec: str
    """Its codec, in lower case."""
    data: bytes
    """The bitstream without its RTP payload headers; H.264: in Annex B."""
    key: bool
    """Whether it can be decoded without those before it."""
    pts: int
    """The timestamp that its frame will have, or would: in 1/90000 s; of Opus in 1/48000 s."""
    arrived: float
    """The moment at which its first packet came (``time.monotonic()``)."""
    turns: int = 0
    """The quarters, clockwise, by which it is to be turned."""
    colours: Colours | None = None
    """What its packets say of its colours."""


class EncodedFrameReader(Reader[Any]):
    """Take frames as they are encoded, as long as that is possible; then decoded, for good."""

    reads_frames = False
    """Whether frames are to be decoded for this reader."""

    @property
    def lacks_key_frame(self) -> bool:
        """Whether only a key frame can be taken."""
        raise NotImplementedError

    def take(self, encoded: EncodedFrame) -> bool:
        """Take a frame, on the loop; ``False``: frames are to be decoded from here on."""
        raise NotImplementedError
