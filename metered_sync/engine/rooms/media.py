"""Describe the media of one member: all that a room and the face know of how media travel.

A room makes a :class:`MemberMedia` for each member, by a :class:`MediaFactory`, and is its
:class:`MediaOwner`. In a mesh it is a connection to the member
(:class:`~metered_sync.engine.rooms.connection.RemoteConnection`). Where media go through a
server, it is the member's part of what all share:

- Its state is ``"connected"`` once it is known what the member sends.
- A track is there, and told of, from its announcement on. It is received once somebody reads
  it: the track knows its readers.
- A connection of its own, and with it :attr:`MemberMedia.pc`, is made with the first data
  channel that is opened.
- Messages of the member reach it however they were sent: to this peer, or to the whole room.

Everything here is called on the loop, except where it says otherwise.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aiortc import RTCDataChannel, RTCPeerConnection

from metered_sync.engine.rooms.room_channel import RoomChannel
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.engine.webrtc.sdp_repair import UnfitTrack
from metered_sync.errors import MeteredError
from metered_sync.wire.events import IceServer
from metered_sync.wire.key_frames import MAX_PIXELS
from metered_sync.wire.signals import TrackMetadata
from metered_sync.wire.states import PeerConnectionState

__all__ = [
    "ConnectionOptions",
    "MediaFactory",
    "MediaOwner",
    "MemberMedia",
    "RoomHost",
    "RoomMedia",
    "TrackReceiver",
]


@dataclass(frozen=True)
class ConnectionOptions:
    """The options of a room's media connections."""

    ice_servers: tuple[IceServer, ...] | None = None
    """STUN and TURN servers, instead of those that the service names."""
    relay_only: bool = False
    """Whether to use TURN only, and reveal no address of this machine."""
    gather_timeout: float = 5.0
    """Seconds to wait for those servers in each negotiation, at most."""
    max_pixels: int = MAX_PIXELS
    """The area of the pictures that are decoded, at most."""
    ca_file: str | None = None
    """The certificates that are trusted; else the environment's."""


class MediaOwner(Protocol):
    """The member that media belong to. Nothing here may block or raise, but :meth:`signal`."""

    @property
    def signalling_is_up(self) -> bool:
        """Whether signals can leave; once they can again, the media are begun anew."""

    async def signal(self, data: dict[str, Any]) -> None:
        """Send a direct message to the member; return once it is acknowledged.

        Messages must leave in the order of the calls. Raises :class:`SignallingError`.
        """

    def post(self, data: dict[str, Any]) -> None:
        """Send a direct message and wait for nothing."""

    def ice_servers(self) -> tuple[IceServer, ...]:
        """Return the STUN and TURN servers that the service names at present."""

    def on_state(self, state: PeerConnectionState) -> None:
        """Take note of a new state."""

    def on_track(self, track: IncomingTrack, first: bool) -> None:
        """Take note of a track that the member sends: for the first time, or again."""

    def on_track_gone(self, track: IncomingTrack) -> None:
        """Take note of a track that the member does not send any more; it may do so again."""

    def on_track_ended(self, track: IncomingTrack) -> None:
        """Take note of a track that has ended."""

    def on_metadata(self, announced: TrackMetadata) -> None:
        """Take note of the metadata of a track, which may not be there yet."""

    def on_channel(self, raw: RTCDataChannel) -> None:
        """Take note of a data channel that the member has opened."""

    def on_reset(self) -> None:
        """Take note of a new connection: data channels are gone, and may be opened anew."""

    def on_error(self, error: MeteredError) -> None:
        """Take note of a negotiation that failed; more attempts may follow."""

    def on_candidate_error(self, error: MeteredError) -> None:
        """Take note of a network address of the member that cannot be used."""

    def on_exhausted(self, error: MeteredError) -> None:
        """Take note that all attempts failed. An offer of the member may help, or a rebuild."""


class MemberMedia(Protocol):
    """The media that are exchanged with one member."""

    @property
    def state(self) -> PeerConnectionState:
        """How far media have come. From any thread."""

    @property
    def generations(self) -> int:
        """How many connections there have been. From any thread."""

    @property
    def tracks(self) -> tuple[IncomingTrack, ...]:
        """The tracks that the member sends. From any thread."""

    @property
    def unfit(self) -> tuple[UnfitTrack, ...]:
        """The tracks that it sends and that cannot be received. From any thread."""

    @property
    def pc(self) -> RTCPeerConnection | None:
        """The connection to the member, if there is one. From any thread."""

    def set_tracks(self, tracks: Sequence[LocalTrack]) -> None:
        """Send these tracks, and no others, and their metadata."""

    def replace_track(self, old: LocalTrack, new: LocalTrack | None) -> None:
        """Send another track in the place of one. With ``None`` it is removed."""

    def take_message(self, data: Any, *, direct: bool) -> bool:
        """Take a message of the member if it is about media; else return false.

        Args:
            data: The message.
            direct: Whether it was sent to this peer alone, not to the whole room.
        """

    def rebuild(self, *, local_id: str) -> None:
        """Begin anew: the member was away, or we were, and have perhaps another id now."""

    async def open_channel(self, label: str, options: Mapping[str, Any]) -> RTCDataChannel:
        """Make a data channel; return it while it connects.

        It ends with its connection, of which :meth:`MediaOwner.on_reset` tells.

        Args:
            label: Its name.
            options: As aiortc's ``createDataChannel`` has them.
        """

    def end_tracks(self, error: BaseException | None) -> None:
        """End the tracks that the member sends: it is gone for good, or we are.

        There may be no loop any more.

        Args:
            error: What their readers get; ``None``: ``ClosedError``.
        """

    async def stats(self) -> dict[str, Any]:
        """Return what was sent and received so far, as ``RemotePeer.stats`` shows it."""

    async def aclose(self) -> None:
        """Close, for good, within a bound."""


class MediaFactory(Protocol):
    """Make the media of a room's members."""

    def __call__(
        self, owner: MediaOwner, *, local_id: str, remote_id: str, label: str
    ) -> MemberMedia:
        """Return the media of a member; nothing is negotiated until there is something to send."""


class TrackReceiver(Protocol):
    """The media of a member, or of all of them, as far as tracks are sent to it."""

    def set_tracks(self, tracks: Sequence[LocalTrack]) -> None:
        """Send these tracks, and no others."""

    def replace_track(self, old: LocalTrack, new: LocalTrack | None) -> None:
        """Send one track in the place of another."""


class RoomHost(Protocol):
    """The room that media belong to, for media that its members share."""

    channel: RoomChannel

    @property
    def send_refused(self) -> MeteredError | None:
        """Why direct messages cannot be sent, where the key or token does not permit it."""

    async def token(self) -> str:
        """Return the token that this peer is connected with; raise ``SfuAuthError`` for none."""

    def is_listed(self, peer_id: str) -> bool:
        """Return whether presence lists this member."""

    def spawn(self, function: Callable[[], Awaitable[None]]) -> None:
        """Run a coroutine function in the background."""

    def forget(self, peer_id: str) -> None:
        """Forget a member that is there under another id."""

    def on_speakers(self, ids: tuple[str, ...]) -> None:
        """Take note of those who speak, the loudest first."""

    def on_media_refused(self, error: MeteredError) -> None:
        """Take note that no media can be exchanged, for good."""


class RoomMedia(MediaFactory, Protocol):
    """The media of a whole room: what its members share, and what each has for itself."""

    independent: bool
    """Whether media go on while signalling is lost, on either side."""

    @property
    def speakers(self) -> tuple[str, ...]:
        """The ids of those who speak, the loudest first. From any thread."""

    def attach(self, host: RoomHost) -> None:
        """Belong to a room."""

    def receivers(self, members: Iterable[MemberMedia]) -> Iterable[TrackReceiver]:
        """Return those to whom our tracks are given; ``members`` are the media of all members."""

    def is_message(self, data: object) -> bool:
        """Return whether the data of a message are about media, whoever has sent it."""

    def on_joined(self) -> None:
        """Begin: the room has been joined."""

    def on_listed(self) -> None:
        """Take note that the members are known: after joining, and after each reconnect."""

    def on_unlisted(self, remote_id: str) -> None:
        """Take note that presence does not list a member any more."""

    def on_send_refused(self) -> None:
        """Take note that no direct messages can be sent."""

    async def leave(self) -> None:
        """Say good-bye to the members, within a bound."""

    def close(self, error: BaseException) -> None:
        """End what runs in the background; there may be no loop any more."""

    async def aclose(self) -> None:
        """Close what the members share."""
