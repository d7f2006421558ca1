"""Hold what two peers have told each other on one generation, and judge what comes by it."""

from __future__ import annotations

from dataclasses import dataclass

from metered_sync.engine.rooms.negotiation.events import AnswerCame, RemoteDescription

__all__ = ["MAX_DOUBTS", "Exchange"]

MAX_DOUBTS = 3
"""How often in a row we offer once more because of an answer too many."""


@dataclass
class Exchange:
    """The descriptions that were exchanged on one generation."""

    remote: RemoteDescription | None = None
    """The latest of the other side that was taken."""
    described: bool = False
    """Whether we have described ourselves."""
    offered: bool = False
    """Whether an offer of ours waits for its answer."""
    answered: bool = False
    """Whether an answer of ours is the latest description."""
    connected: bool = False
    """Whether media could flow at some time."""
    repeated: bool = False
    """Whether an offer was repeated, so that an answer may be one to an earlier offer."""
    doubts: int = 0
    """How often in a row we have offered once more because of that."""

    def is_stale(self, description: RemoteDescription) -> bool:
        """Return whether a description is older than what we have."""
        known = self.remote
        return (
            known is not None
            and known.origin_id == description.origin_id
            and known.origin_version > description.origin_version
        )

    @property
    def may_doubt(self) -> bool:
        """Whether we may offer once more because of an answer too many."""
        return self.doubts < MAX_DOUBTS

    def is_doubted_by(self, came: AnswerCame) -> bool:
        """Return whether an answer that nobody waits for is a reason to offer once more."""
        answered = self.remote is not None and not self.is_stale(came.answer)
        return answered and came.differs and self.may_doubt

    def is_over(self, description: RemoteDescription) -> bool:
        """Return whether the other side has begun a new generation."""
        return self.remote is not None and self.remote.fragment != description.fragment
