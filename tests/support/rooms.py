"""Make peers of rooms on a local cloud, whose media go one way or the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from metered_sync import MeteredPeer, ReconnectOptions
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource

FAST = ReconnectOptions(initial_delay=0.05, max_delay=0.2)
PeerFactory = Callable[..., MeteredPeer]
"""The fixture ``peer``: :func:`peer` for a mesh, and for the SFU."""


def peer(
    cloud: LocalCloud, peer_id: str, *, claims: Any = None, through: str = "mesh", **options: Any
) -> MeteredPeer:
    """Return a peer with a token; ``through`` says which way its media go."""
    connect = cloud.room_options if through == "sfu" else cloud.token_options
    return MeteredPeer(
        **{
            **connect(peer_id, **(claims or {})),
            "ice_servers": [],
            "reconnect": FAST,
            **options,
        }
    )


def pattern(width: int = 160, height: int = 120, fps: int = 10) -> PatternSource:
    """Return a source of numbered pictures."""
    return PatternSource(width, height, fps=fps)
