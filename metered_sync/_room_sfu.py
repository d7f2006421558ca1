"""Make the options of a room whose media go through the SFU, and decide what it receives."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from metered_sync.engine.rooms.media import ConnectionOptions
from metered_sync.engine.sfu.options import SfuOptions
from metered_sync.engine.sfu_rooms.room_media import SfuRoomOptions
from metered_sync.engine.sfu_rooms.room_track import RoomTrack
from metered_sync.media.tracks.track import RemoteTrack, core_of
from metered_sync.sfu import DEFAULT_STUN
from metered_sync.sfu_api import SfuMedia
from metered_sync.wire.urls import is_loopback

__all__ = ["room_options", "take_if"]


def room_options(media: SfuMedia, options: ConnectionOptions, max_video: int) -> SfuRoomOptions:
    """Return the engine's options for the sessions of a room's member."""
    servers = options.ice_servers
    if servers is None:
        servers = () if is_loopback(urlsplit(media.url).hostname) else DEFAULT_STUN
    sfu = SfuOptions(
        url=media.url,
        metadata=None,
        ice_servers=servers,
        gather_timeout=options.gather_timeout,
        recover=True,
        max_pixels=options.max_pixels,
        relay_only=options.relay_only,
        ca_file=options.ca_file,
    )
    return SfuRoomOptions(sfu, media.calls, max_video=max_video)


def take_if(wanted: Callable[[RemoteTrack], bool]) -> Callable[[RemoteTrack], None]:
    """Return a function that receives a track where the user's function says so."""

    def decide(track: RemoteTrack) -> None:
        incoming = core_of(track).incoming
        if wanted(track) and isinstance(incoming, RoomTrack):
            incoming.take()

    return decide
