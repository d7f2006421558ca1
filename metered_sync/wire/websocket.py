"""Build the WebSocket frames that carry text messages (RFC 6455, 5.2)."""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Callable

__all__ = ["WHOLE_TEXT", "forget_masks", "masked_text_frame", "text_head", "text_payload"]

WHOLE_TEXT = 0x81
"""The first byte of a text message that comes in one frame."""
_MASKED = 0x80
_MASKS_AT_ONCE = 1024
_masks: deque[bytes] = deque()
"""Masks for the frames to come, each of them used once: asking the system for one lets another
thread have the interpreter, and a burst of frames would be handed to it one by one."""


def _fresh_mask() -> bytes:
    """Return four bytes of the system's randomness, which nobody has been given."""
    try:
        return _masks.pop()
    except IndexError:
        pool = os.urandom(4 * _MASKS_AT_ONCE)
        _masks.extend(pool[at : at + 4] for at in range(4, len(pool), 4))
        return pool[:4]


def forget_masks() -> None:
    """Take new masks from the system: in a forked process, which has its parent's."""
    _masks.clear()


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
    mask = _fresh_mask()
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
