"""Make parts of a room by themselves: no socket, no service, no peer connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiortc import RTCDataChannel, RTCPeerConnection

from metered_sync.bridge.loop import Engine
from metered_sync.engine.messaging.link import SignallingLink
from metered_sync.engine.messaging.options import SignallingOptions
from metered_sync.engine.rooms.direct_messages import DirectMessages
from metered_sync.engine.rooms.media import MediaOwner, MemberMedia
from metered_sync.engine.rooms.member import Member
from metered_sync.engine.rooms.roster import Roster
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.engine.webrtc.sdp_repair import UnfitTrack
from metered_sync.events import Direct, Event, IceServer, PresencePeer
from metered_sync.wire.states import MeteredPeerState, PeerConnectionState
from metered_sync.wire.timings import DEFAULT_TIMINGS, Timings


class IdleMedia:
    """The media of a member that negotiates nothing: tests set its state and its tracks."""

    def __init__(self, owner: MediaOwner) -> None:
        self.owner = owner
        self.state: PeerConnectionState = "idle"
        self.generations = 1
        self.tracks: tuple[IncomingTrack, ...] = ()
        self.unfit: tuple[UnfitTrack, ...] = ()
        self.pc: RTCPeerConnection | None = None
        self.sent: list[LocalTrack] = []
        self.local_ids: list[str] = []
        """The ids under which it was begun anew."""
        self.closed = False

    def become(self, state: PeerConnectionState) -> None:
        """Change the state, as a connection does."""
        self.state = state
        self.owner.on_state(state)

    def set_tracks(self, tracks: Sequence[LocalTrack]) -> None:
        self.sent = list(tracks)

    def replace_track(self, old: LocalTrack, new: LocalTrack | None) -> None:
        raise NotImplementedError

    def take_message(self, data: Any, *, direct: bool) -> bool:
        return False

    def rebuild(self, *, local_id: str) -> None:
        self.local_ids.append(local_id)

    async def open_channel(self, label: str, options: Mapping[str, Any]) -> RTCDataChannel:
        raise NotImplementedError

    def end_tracks(self, error: BaseException | None) -> None:
        for track in self.tracks:
            track.end(error)

    async def stats(self) -> dict[str, Any]:
        return {}

    async def aclose(self) -> None:
        self.closed = True


class Journal:
    """A room's roster, with an owner that notes what happens to the members."""

    def __init__(self, timings: Timings = DEFAULT_TIMINGS) -> None:
        self.state: MeteredPeerState = "joined"
        self.error: BaseException | None = None
        self.happened: list[Any] = []
        """What happened to members, in order; events of a member as pairs of its id and it."""
        self.direct: list[Direct] = []
        self.roster = Roster(self, self, "room", timings)
        options = SignallingOptions(url="wss://nowhere.invalid", api_key="pk_live_x")
        link = SignallingLink(Engine("never started"), self, options, "room")
        self._messages = DirectMessages(link, "room", lambda _: None)

    def take_happened(self) -> list[Any]:
        """Return what happened since the last call."""
        happened, self.happened = self.happened, []
        return happened

    # --- the owner of the roster ---

    def make_member(self, peer: PresencePeer) -> Member:
        return Member(peer, self, self._messages, self)

    def connect(self, member: Member) -> None:
        self.happened.append(f"connect {member.id}")

    def reconnect(self, member: Member) -> None:
        self.happened.append(f"reconnect {member.id}")

    def on_arrived(self, member: Member) -> None:
        self.happened.append(f"arrived {member.id}")

    def disconnect(self, member: Member) -> None:
        self.happened.append(f"disconnect {member.id}")

    def take_direct(self, event: Direct) -> None:
        self.direct.append(event)

    def on_listed(self) -> None:
        self.happened.append("listed")

    def on_unlisted(self, member: Member) -> None:
        self.happened.append(f"unlisted {member.id}")

    def ask_for_list(self) -> None:
        self.happened.append("ask for list")

    def on_no_list(self) -> None:
        self.happened.append("no list")

    # --- the host of members ---

    def media_of(self, member: Member) -> MemberMedia:
        return IdleMedia(member)

    def ice_servers(self) -> tuple[IceServer, ...]:
        return ()

    def on_lost(self, member: Member) -> None:
        self.roster.give_up(member)

    # --- the sink ---

    def emit(self, event: Event) -> None:
        self.happened.append(event)

    def end(self, error: BaseException | None = None) -> None:
        self.happened.append("end")

    def objects_for(self, member: Member) -> Any:
        return None

    def peer_joined(self, member: Member) -> None:
        self.happened.append(f"joined {member.id}")

    def peer_left(self, member: Member) -> None:
        self.happened.append(f"left {member.id}")

    def peer_event(self, member: Member, event: Event) -> None:
        self.happened.append((member.id, event))

    def peer_ended(self, member: Member, error: BaseException | None) -> None:
        self.happened.append(f"ended {member.id}")

    def track(self, member: Member, track: IncomingTrack) -> None:
        self.happened.append((member.id, track))

    def track_gone(self, member: Member, track: IncomingTrack) -> None:
        self.happened.append((member.id, None))

    def track_ended(self, member: Member, track: IncomingTrack) -> None:
        self.happened.append((member.id, track, "ended"))

    def own_track_ended(self, track: LocalTrack) -> None:
        self.happened.append(track)

    def metadata(self, member: Member) -> None:
        self.happened.append(f"metadata of {member.id}")

    def channel(self, member: Member, raw: RTCDataChannel) -> None:
        self.happened.append((member.id, raw))
