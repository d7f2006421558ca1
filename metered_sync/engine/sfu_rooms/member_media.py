"""Keep one member's part of the room's media: its announced tracks, data channels on demand.

A member's tracks are those of its newest state. Its data channels travel by a connection to it
that carries nothing else and is made with the first of them, by whichever side.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from aiortc import RTCDataChannel, RTCPeerConnection

from metered_sync.engine.rooms.media import MediaFactory, MediaOwner, MemberMedia
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.engine.sfu_rooms.messages import (
    AnnouncedTrack,
    RoomState,
    StateRequest,
    Watching,
    is_room_message,
    parse_room_message,
)
from metered_sync.engine.sfu_rooms.our_state import OurState
from metered_sync.engine.sfu_rooms.room_track import RoomTrack
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.engine.webrtc.sdp_repair import UnfitTrack
from metered_sync.errors import NegotiationFailedError
from metered_sync.wire.events import IceServer
from metered_sync.wire.signals import SessionDescription, TrackMetadata, parse_signal
from metered_sync.wire.states import PeerConnectionState
from metered_sync.wire.timings import Timings

__all__ = ["MemberRoom", "SfuMember"]

logger = logging.getLogger("metered_sync")


class MemberRoom(Protocol):
    """The media of the room that a member belongs to."""

    our_state: OurState

    def new_track(self, member: SfuMember, announced: AnnouncedTrack, session_id: str) -> RoomTrack:
        """Return a track that a member has announced."""

    def claim(self, session_id: str, member: SfuMember) -> bool:
        """Take over a session for a member; false where another one has it, and is there."""

    def changed(self, member: SfuMember) -> None:
        """Take note that a member has other tracks, or other ids of them."""

    def speaks(self, member: SfuMember, speaking: bool) -> None:
        """Take note of what a member says about its speaking."""

    async def outgoing(self) -> list[dict[str, Any]]:
        """Return the counts of what this peer publishes."""

    def paths(self) -> list[dict[str, str]]:
        """Return the kinds of the ICE candidates that the sessions use."""

    def gone(self, member: SfuMember) -> None:
        """Forget a member."""


class SfuMember:
    """The media of one member, as :class:`~metered_sync.engine.rooms.media.MemberMedia`."""

    def __init__(
        self,
        room: MemberRoom,
        owner: MediaOwner,
        connect: MediaFactory,
        *,
        local_id: str,
        remote_id: str,
        label: str,
        timings: Timings,
    ) -> None:
        """Prepare; ``connect`` makes the connection for data channels, once it is needed."""
        self.id = remote_id
        self.owner = owner
        self.known: RoomState | None = None
        """The newest state, once there is one."""
        self.watched: frozenset[str] = frozenset()
        """The tracks of ours that the member says it takes."""
        self._room = room
        self._connect = connect
        self._local_id = local_id
        self._label = label
        self._timings = timings
        self._tracks: dict[str, RoomTrack] = {}
        """By id; those that were closed here among them. It is replaced, not changed: other
        threads read it meanwhile."""
        self._absent: dict[RoomTrack, asyncio.TimerHandle] = {}
        """Tracks that the member sends no more, with the moment at which they end."""
        self._data: MemberMedia | None = None
        self._warned_of_mesh = False
        self._warned_of_size = False
        self._state: PeerConnectionState = "idle"

    # --- any thread ---

    @property
    def state(self) -> PeerConnectionState:
        """``"connected"`` once it is known what the member sends, or data can flow."""
        return self._state

    @property
    def generations(self) -> int:
        """How many connections for data channels there have been, or will have been with one."""
        return 1 if self._data is None else self._data.generations

    @property
    def tracks(self) -> tuple[IncomingTrack, ...]:
        """The tracks that the member sends."""
        return self.room_tracks

    @property
    def room_tracks(self) -> tuple[RoomTrack, ...]:
        """The same, as what they are."""
        return tuple(track for track in tuple(self._tracks.values()) if not track.ended)

    @property
    def unfit(self) -> tuple[UnfitTrack, ...]:
        """None: a track is there from its announcement on, and ends if it cannot be received."""
        return ()

    @property
    def pc(self) -> RTCPeerConnection | None:
        """The connection for data channels, if there is one."""
        return None if self._data is None else self._data.pc

    # --- what we send: the room publishes it, for all members at once ---

    def set_tracks(self, tracks: Sequence[LocalTrack]) -> None:
        """Do nothing: the room publishes them."""

    def replace_track(self, old: LocalTrack, new: LocalTrack | None) -> None:
        """Do nothing: the room publishes them."""

    # --- messages ---

    def take_message(self, data: Any, *, direct: bool) -> bool:
        """Take a message about media; else return false."""
        if is_room_message(data):
            message = parse_room_message(data)
            if isinstance(message, RoomState):
                self._take_state(message)
            elif isinstance(message, StateRequest):
                self._room.our_state.tell(self.owner)
            elif isinstance(message, Watching):
                self.watched = frozenset(message.track_ids)
            return True
        signal = parse_signal(data) if direct else None
        if signal is None:
            return False
        if isinstance(signal, SessionDescription) and _has_media(signal.sdp):
            self._note_mesh()
        elif isinstance(signal, SessionDescription):
            self._connection().take_message(data, direct=True)
        elif self._data is not None and not isinstance(signal, TrackMetadata):
            self._data.take_message(data, direct=True)
        return True

    def _note_mesh(self) -> None:
        if not self._warned_of_mesh:
            self._warned_of_mesh = True
            error = NegotiationFailedError(
                f"{self._label} speaks mesh: it offers its media to each member, and this room's "
                'media go through the SFU; have it join with media="sfu", or this peer without',
                stage="offer",
            )
            logger.warning("%s", error)
            self.owner.on_error(error)

    def _take_state(self, state: RoomState) -> None:
        known = self.known
        if known is not None and known.boot == state.boot and state.revision <= known.revision:
            return
        self.known = state
        if state.cut and not self._warned_of_size:
            self._warned_of_size = True
            logger.warning(
                "%s announces more tracks, or more metadata, than a room takes of one member: "
                "%d tracks are left out",
                self._label,
                state.cut,
            )
        self._become("connected")  # before its tracks are told of
        self.apply()
        self._room.speaks(self, state.speaking)

    def apply(self) -> None:
        """Make the tracks those of the newest state, as far as its session is the member's."""
        state = self.known
        if state is None:
            return
        session_id = state.session_id
        mine = session_id is not None and self._room.claim(session_id, self)
        listed = {track.track_id: track for track in state.tracks} if mine else {}
        new = [track for track_id, track in listed.items() if track_id not in self._tracks]
        gone = [track for track_id, track in self._tracks.items() if track_id not in listed]
        tracks = {one: track for one, track in self._tracks.items() if one in listed}
        absent = [track for track in self._absent if not track.ended]
        arrived = []
        for announced in listed.values():
            known = tracks.get(announced.track_id)
            known = known or _find_again(announced, gone) or _find_again(announced, absent)
            if known is not None:
                known.announce(announced, session_id or "")
                tracks[announced.track_id] = known
                if known in self._absent:
                    self._absent.pop(known).cancel()
                    arrived.append(known)
        for announced in new:
            if announced.track_id not in tracks:
                track = self._room.new_track(self, announced, session_id or "")
                track.on_end = self._on_ended
                tracks[announced.track_id] = track
                arrived.append(track)
        self._tracks = tracks
        for track in gone:
            if not track.ended:
                self.owner.on_track_gone(track)
                self._let_end(track, at_once=not state.tracks)
        if not state.tracks:
            for track in tuple(self._absent):
                self._end_absent(track)
        for announced in listed.values():
            self.owner.on_metadata(
                TrackMetadata(
                    announced.track_id, announced.metadata, announced.stream_id, announced.kind
                )
            )
        for track in arrived:
            self.owner.on_track(track, True)
        self._room.changed(self)

    def _let_end(self, track: RoomTrack, *, at_once: bool) -> None:
        """End a track that the member sends no more, unless it sends it again in time."""
        if at_once:
            track.end()
        else:
            loop = asyncio.get_running_loop()
            pause = self._timings.track_return
            self._absent[track] = loop.call_later(pause, self._end_absent, track)

    def _end_absent(self, track: RoomTrack) -> None:
        timer = self._absent.pop(track, None)
        if timer is not None:
            timer.cancel()
            track.end()

    def hand_over(self, other: SfuMember) -> None:
        """Give all tracks to the same member under another id."""
        tracks, self._tracks = self._tracks, {}
        for track in tuple(tracks.values()):
            if not track.ended:
                self.owner.on_track_gone(track)
        other.receive(tracks)

    def receive(self, tracks: dict[str, RoomTrack]) -> None:
        """Take over the tracks that were another member's."""
        self._tracks = {**self._tracks, **tracks}
        for track in tracks.values():
            track.on_end, track.peer_id = self._on_ended, self.id
            if not track.ended:
                self.owner.on_track(track, True)

    def _on_ended(self, track: IncomingTrack) -> None:
        self.owner.on_track_ended(track)
        self._room.changed(self)

    def _become(self, state: PeerConnectionState) -> None:
        if state != self._state and self._state != "closed":
            self._state = state
            self.owner.on_state(state)

    # --- data channels ---

    async def open_channel(self, label: str, options: Mapping[str, Any]) -> RTCDataChannel:
        """Make a data channel, and the connection for it if need be."""
        return await self._connection().open_channel(label, options)

    def _connection(self) -> MemberMedia:
        if self._data is None:
            self._data = self._connect(
                _DataOwner(self.owner, self._on_data_state),
                local_id=self._local_id,
                remote_id=self.id,
                label=self._label,
            )
        return self._data

    def _on_data_state(self, state: PeerConnectionState) -> None:
        if self.known is None or state == "closed":
            self._become(state)

    # --- the end ---

    def rebuild(self, *, local_id: str) -> None:
        """Begin the connection for data anew; media go on. The member may not know our state."""
        self._local_id = local_id
        if self._data is not None:
            self._data.rebuild(local_id=local_id)
        self._room.our_state.arrived(self.owner)

    def end_tracks(self, error: BaseException | None) -> None:
        """End the tracks that the member sends."""
        for track in (*self._tracks.values(), *self._absent):
            track.end(error)
        if self._data is not None:
            self._data.end_tracks(error)

    async def stats(self) -> dict[str, Any]:
        """Return what was sent and received so far."""
        paths = self._room.paths()
        if self._data is not None:
            paths += (await self._data.stats()).get("paths", [])
        return {
            "state": self.state,
            "generations": self.generations,
            "paths": paths,
            "incoming": [track.stats() for track in self.room_tracks],
            "outgoing": await self._room.outgoing(),
        }

    async def aclose(self) -> None:
        """Close the connection for data, and forget the member."""
        self._state = "closed"
        for track in tuple(self._absent):
            self._end_absent(track)
        self._room.gone(self)
        if self._data is not None:
            await self._data.aclose()


class _DataOwner:
    """The owner of a connection that carries data channels only."""

    def __init__(self, owner: MediaOwner, on_state: Callable[[PeerConnectionState], None]) -> None:
        self._owner = owner
        self.on_state = on_state
        self.signal, self.post = owner.signal, owner.post
        self.on_channel, self.on_reset = owner.on_channel, owner.on_reset
        self.on_error, self.on_exhausted = owner.on_error, owner.on_exhausted
        self.on_candidate_error = owner.on_candidate_error

    @property
    def signalling_is_up(self) -> bool:
        return self._owner.signalling_is_up

    def ice_servers(self) -> tuple[IceServer, ...]:
        return self._owner.ice_servers()

    def on_track(self, track: IncomingTrack, first: bool) -> None:
        """Nothing is sent on it: a description with media is not taken."""

    def on_track_gone(self, track: IncomingTrack) -> None:
        """As above."""

    def on_track_ended(self, track: IncomingTrack) -> None:
        """As above."""

    def on_metadata(self, announced: TrackMetadata) -> None:
        """Metadata come with states."""


def _find_again(announced: AnnouncedTrack, gone: list[RoomTrack]) -> RoomTrack | None:
    """Return the track that has other ids now, taken out of those that are gone."""
    for track in gone:
        if announced.name is not None and (
            (track.name, track.kind, track.stream_id)
            == (announced.name, announced.kind, announced.stream_id)
        ):
            gone.remove(track)
            return track
    return None


def _has_media(text: str) -> bool:
    """Return whether a description has sections of sound or pictures."""
    return any(line.startswith(("m=audio", "m=video")) for line in text.splitlines())
