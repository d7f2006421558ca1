"""Pictures of a received track as they are encoded, for readers that need no frames."""

from __future__ import annotations

from typing import Any, NamedTuple

from metered_sync.bridge.reader import Reader
from metered_sync.engine.webrtc.picture_extensions import Colours

__all__ = ["EncodedPicture", "PictureReader"]


class EncodedPicture(NamedTuple):
    """A picture that has come whole, as has all that it refers to."""

    codec: str
    """Its codec, in lower case."""
    data: bytes
    """The bitstream without its RTP payload headers; H.264: in Annex B."""
    key: bool
    """Whether it can be decoded without those before it."""
    pts: int
    """The timestamp that its frame will have, or would, in 1/90000 s."""
    arrived: float
    """The moment at which its first packet came (``time.monotonic()``)."""
    turns: int
    """The quarters, clockwise, by which it is to be turned."""
    colours: Colours | None
    """What its packets say of its colours."""


class PictureReader(Reader[Any]):
    """Take pictures as they are encoded, as long as that is possible; then frames, for good."""

    reads_frames = False
    """Whether frames are to be decoded for this reader."""

    @property
    def lacks_key_frame(self) -> bool:
        """Whether only a key frame can be taken."""
        raise NotImplementedError

    def take(self, picture: EncodedPicture) -> bool:
        """Take a picture, on the loop; ``False``: frames are to be decoded from here on."""
        raise NotImplementedError
