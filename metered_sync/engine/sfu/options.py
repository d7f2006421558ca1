"""Hold the options of sessions with the SFU."""

from __future__ import annotations

from dataclasses import dataclass

from metered_sync.wire.events import IceServer

__all__ = ["SfuOptions"]


@dataclass(frozen=True)
class SfuOptions:
    """The options of a session."""

    url: str
    """The SFU's origin, or the gate's."""
    metadata: str | None
    ice_servers: tuple[IceServer, ...]
    gather_timeout: float
    recover: bool
    max_pixels: int
    """The area of the pictures that are decoded, at most."""
    ca_file: str | None = None
    """The certificates that are trusted; else the environment's."""
    relay_only: bool = False
    """Whether relayed candidates alone are used."""
