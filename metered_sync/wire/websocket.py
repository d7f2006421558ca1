"""Build the WebSocket frames that carry text messages (RFC 6455, 5.2)."""

from __future__ import annotations

import secrets

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform for which it is not built
    from websockets.utils import apply_mask

__all__ = ["WHOLE_TEXT", "masked_text_frame", "text_head", "text_payload"]

WHOLE_TEXT = 0x81
"""The first byte of a text message that comes in one frame."""
_MASKED = 0x80


def masked_text_frame(payload: bytes) -> bytes:
    """Return a client's text frame: header, a fresh mask, the masked payload."""
    mask = secrets.token_bytes(4)
    return text_head(len(payload), _MASKED) + mask + apply_mask(payload, mask)


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
