"""Carry an offer or an answer in a JSON object, as rooms and the SFU both do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from metered_sync.wire.fields import Fields
from metered_sync.wire.sdp import MAX_DESCRIPTION

__all__ = ["SessionDescription"]


@dataclass(frozen=True)
class SessionDescription:
    """An offer or an answer as it travels: its type and its text, not parsed."""

    type: Literal["offer", "answer"]
    sdp: str = field(repr=False)
    """The text; left out of ``repr`` because it holds the ICE password."""

    @classmethod
    def read(cls, fields: Fields, most: int = MAX_DESCRIPTION) -> SessionDescription:
        """Return the description that the fields ``type`` and ``sdp`` hold.

        The text has at most so many characters.
        """
        kind: Any = fields.get("type")
        if kind not in ("offer", "answer"):
            raise fields.error("type", 'must be "offer" or "answer"')
        return cls(kind, fields.text("sdp", most=most))

    def body(self) -> dict[str, str]:
        """Return the object for JSON."""
        return {"type": self.type, "sdp": self.sdp}
