"""Make the media of a room as a mesh: a connection to each of the members."""

from __future__ import annotations

from metered_sync.engine.rooms.connection import RemoteConnection
from metered_sync.engine.rooms.media import ConnectionOptions, MediaOwner
from metered_sync.engine.webrtc.ice import loopback_address
from metered_sync.engine.webrtc.peer_connection import gather_on
from metered_sync.wire.timings import Timings

__all__ = ["Mesh"]


class Mesh:
    """Make the connections of a mesh, as a :class:`MediaFactory` does."""

    def __init__(self, options: ConnectionOptions, url: str, timings: Timings) -> None:
        """Prepare; ``url`` is the service's, which may be on a loopback address."""
        self._options = options
        self._timings = timings
        self._gather_on = loopback_address(url)

    def __call__(
        self, owner: MediaOwner, *, local_id: str, remote_id: str, label: str
    ) -> RemoteConnection:
        """Return a connection to a member, of which nothing has been negotiated."""
        context = gather_on.set(self._gather_on)
        try:
            return RemoteConnection(
                owner,
                local_id=local_id,
                remote_id=remote_id,
                label=label,
                timings=self._timings,
                options=self._options,
            )
        finally:
            gather_on.reset(context)
