"""Make the media of a room as a mesh: a connection to each of the members."""

from __future__ import annotations

from collections.abc import Iterable

from metered_sync.engine.rooms.connection import RemoteConnection
from metered_sync.engine.rooms.media import (
    ConnectionOptions,
    MediaOwner,
    MemberMedia,
    RoomHost,
    TrackReceiver,
)
from metered_sync.engine.webrtc.ice import loopback_address
from metered_sync.engine.webrtc.peer_connection import gather_on
from metered_sync.wire.timings import Timings

__all__ = ["Mesh"]


class Mesh:
    """Make the connections of a mesh, as :class:`RoomMedia`. The members share nothing."""

    independent = False
    speakers: tuple[str, ...] = ()

    def __init__(self, options: ConnectionOptions, url: str, timings: Timings) -> None:
        """Prepare; ``url`` is the service's, which may be on a loopback address."""
        self._options = options
        self._timings = timings
        self._url = url
        self._gather_on = loopback_address(url)

    def with_timings(self, timings: Timings) -> Mesh:
        """Return another one, with other intervals."""
        return Mesh(self._options, self._url, timings)

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

    def receivers(self, members: Iterable[MemberMedia]) -> Iterable[TrackReceiver]:
        """Return the media of each member."""
        return members

    def is_message(self, data: object) -> bool:
        """Return false: signals are taken from members that are known."""
        return False

    def attach(self, host: RoomHost) -> None:
        """Do nothing, as below."""

    def on_joined(self) -> None: ...
    def on_listed(self) -> None: ...
    def on_unlisted(self, remote_id: str) -> None: ...
    def on_send_refused(self) -> None: ...
    async def leave(self) -> None: ...
    def close(self, error: BaseException) -> None: ...
    async def aclose(self) -> None: ...
