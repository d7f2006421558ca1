"""Take a frame's text apart into its type and its fields; begin the fields of one."""

from __future__ import annotations

from typing import Any, Final

from metered_sync.wire.json_codec import decode
from metered_sync.wire.secrets import scrubbed_cause

__all__ = ["MISSING", "FrameError", "fields_of", "head"]


class FrameError(ValueError):
    """A frame cannot be understood; it has the code that the server answers with."""

    def __init__(
        self, message: str, code: str = "malformed_message", request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id


MISSING: Final = object()
"""The value of a key that a frame does not have; ``null`` would be one."""


def fields_of(text: str | bytes) -> tuple[str, dict[str, Any]]:
    """Return the type and the fields of a frame."""
    try:
        value = decode(text)
    except (ValueError, RecursionError) as error:
        raise FrameError("not JSON") from scrubbed_cause(error)
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str):
        raise FrameError('not a JSON object with a string "type"')
    return kind, value


def head(kind: str, request_id: str | None) -> dict[str, Any]:
    """Return the first fields of a frame: its type, and the request's id where there is one."""
    return {"type": kind} if request_id is None else {"type": kind, "requestId": request_id}
