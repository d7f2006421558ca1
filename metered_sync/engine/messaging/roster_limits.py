"""Bound what the list of a channel's members holds: ids and metadata come from strangers."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from typing import Any

from metered_sync.wire.events import PresencePeer

__all__ = ["MAX_MEMBER_METADATA", "MAX_ROSTER", "RosterLimits"]

logger = logging.getLogger("metered_sync")

MAX_MEMBER_METADATA = 16 << 10
"""Bytes of JSON of one member's metadata that are kept; the service admits 4 KB."""
MAX_ROSTER = 4 << 20
"""Bytes of a channel's members that are kept: their ids, their metadata, an entry for each."""
ENTRY = 32
"""Bytes that a member counts besides."""


class RosterLimits:
    """Count the bytes of one channel's members."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._sizes: dict[str, int] = {}
        self._total = 0
        self._warned = False

    def admit(self, peer: PresencePeer) -> PresencePeer | None:
        """Return a member, without metadata where they are too large; ``None``: it is left out."""
        size = ENTRY + len(peer.peer_id)
        if peer.metadata is not None:
            metadata = _json_size(peer.metadata)
            if metadata > MAX_MEMBER_METADATA:
                self._warn("metadata of a member are larger than %d bytes", MAX_MEMBER_METADATA)
                peer = replace(peer, metadata=None)
            else:
                size += int(metadata)
        before = self._sizes.get(peer.peer_id, 0)
        if self._total - before + size > MAX_ROSTER:
            self._warn("the members and their metadata are more than %d bytes", MAX_ROSTER)
            return None
        self._sizes[peer.peer_id] = size
        self._total += size - before
        return peer

    def forget(self, peer_id: str) -> None:
        """Take note that a member is not in the list any more."""
        self._total -= self._sizes.pop(peer_id, 0)

    def clear(self) -> None:
        """Take note that the list is empty."""
        self._sizes.clear()
        self._total = 0

    def _warn(self, problem: str, limit: int) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(f"%s: {problem}; what is beyond it is left out", self._label, limit)


def _json_size(metadata: dict[str, Any]) -> float:
    """Return the length of data as JSON in ASCII, whatever strings are in it."""
    try:
        return len(json.dumps(metadata, separators=(",", ":")))
    except RecursionError:
        return math.inf
