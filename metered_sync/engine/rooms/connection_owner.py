"""What a connection to a peer tells whom it belongs to, and asks of it."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from aiortc import RTCDataChannel

from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.errors import MeteredError, NegotiationFailedError
from metered_sync.wire.events import IceServer

__all__ = ["Owner", "State"]

State = Literal["idle", "connecting", "connected", "reconnecting", "closed"]


class Owner(Protocol):
    """Whom a connection belongs to. All is called on the loop, and must not block or raise."""

    async def signal(self, data: dict[str, Any]) -> None:
        """Send a direct message to the peer; return once it is acknowledged.

        Messages must leave in the order of the calls. Raises :class:`SignallingError`.
        """

    def ice_servers(self) -> tuple[IceServer, ...]:
        """Return the servers for a new generation."""

    def on_state(self, state: State) -> None:
        """The state changed."""

    def on_track(self, track: IncomingTrack, first: bool) -> None:
        """The peer sends a track: for the first time, or again."""

    def on_track_gone(self, track: IncomingTrack) -> None:
        """The peer does not send a track any more; it may do so again."""

    def on_channel(self, raw: RTCDataChannel) -> None:
        """The peer opened a data channel."""

    def on_reset(self) -> None:
        """There is a new generation: data channels are gone, and may be created anew."""

    def on_error(self, error: MeteredError) -> None:
        """A negotiation failed; more attempts may follow."""

    def on_exhausted(self, error: NegotiationFailedError) -> None:
        """All attempts failed. What may help is an offer of the peer, or a rebuild."""
