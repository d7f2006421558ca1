"""Build the WebSocket frames that carry text messages (RFC 6455, 5.2)."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

__all__ = ["WHOLE_TEXT", "masked_text_frame", "text_head", "text_payload"]

WHOLE_TEXT = 0x81
"""The first byte of a text message that comes in one frame."""
_MASKED = 0x80


@functools.cache
def _mask_function() -> Callable[[bytes, bytes], bytes]:
    # Here: the package looks up its own version, which takes as long as much of this library.
    try:
        from websockets.speedups import apply_mask
    except ImportError:  # a platform for which it is not built
        from websockets.utils import apply_mask
    return apply_mask


def masked_text_frame(payload: bytes) -> bytes:
    """Return a client's text frame: header, a fresh mask, the masked payload."""
    mask = os.urandom(4)
    return text_head(len(payload), _MASKED) + mask + _mask_function()(payload, mask)


def text_head(size: int, masked: int = 0) -> bytes:
    """Return the header of a text message in one frame, as far as the mask."""
    if size < 126:
        return bytes((WHOLE_TEXT, masked | size))
    if size < 65536:
        return bytes((WHOLE_TEXT, masked | 126)) + size.to_bytes(2, "big")
    return bytes((WHOLE_TEXT, masked | 127)) + size.to_bytes(8, "big")


def text_payload(frame: bytes) -> bytes:
    """Return the text of a frame with such a header and no mask."""
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :]
