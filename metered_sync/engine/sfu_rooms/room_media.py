"""Exchange the media of a room through the SFU: publish ours once, receive what is wanted.

Who is there comes from presence, what members send from the states that they tell each other
(:mod:`metered_sync.engine.sfu_rooms.messages`). This peer has at most two sessions: one that only
publishes, made with its first track, and one that only receives, made with the first track that is
wanted. So offers never cross, and who only listens disturbs nobody.

Signalling and media do not depend on each other: an outage of one leaves the other as it is, and
after both the state is the same, whichever comes back first.

Everything here runs on the loop's thread, except where it says otherwise.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from av import AudioFrame

from metered_sync.bridge.loop import Engine
from metered_sync.engine.rooms.media import MediaOwner, MemberMedia, RoomHost, TrackReceiver
from metered_sync.engine.rooms.mesh import Mesh
from metered_sync.engine.sfu.calls import Calls
from metered_sync.engine.sfu.link import SfuLink
from metered_sync.engine.sfu.options import SfuOptions
from metered_sync.engine.sfu.tracks import SfuSink
from metered_sync.engine.sfu.watch import Watch, Watched
from metered_sync.engine.sfu_rooms.member_media import SfuMember
from metered_sync.engine.sfu_rooms.messages import (
    AnnouncedTrack,
    StateRequest,
    Watching,
    build_room_message,
    is_room_message,
)
from metered_sync.engine.sfu_rooms.our_state import OurState
from metered_sync.engine.sfu_rooms.publishing import RoomPublisher
from metered_sync.engine.sfu_rooms.receiving import RoomReceiver
from metered_sync.engine.sfu_rooms.room_track import RoomTrack, SubscribePolicy
from metered_sync.engine.sfu_rooms.speakers import Speakers, sound_level
from metered_sync.errors import MeteredError, SfuNotFoundError
from metered_sync.wire.timings import Timings

__all__ = ["SfuRoomMedia", "SfuRoomOptions"]

logger = logging.getLogger("metered_sync")
LEVEL_INTERVAL = 5
"""Received slices of sound of which one is measured."""


@dataclass(frozen=True)
class SfuRoomOptions:
    """The options of a room whose media go through the SFU."""

    sfu: SfuOptions
    calls: Callable[[str, Callable[[], Awaitable[str]], str | None], Calls]
    """Makes the SFU's calls: by a label, what returns the room's token, and a ``ca_file``."""
    subscribe: SubscribePolicy = "on-read"
    max_video: int = 16
    """Tracks of pictures that are received at once, at most."""


class SfuRoomMedia:
    """The media of one room, as :class:`~metered_sync.engine.rooms.media.MediaFactory` has them."""

    independent = True

    def __init__(
        self, engine: Engine, options: SfuRoomOptions, mesh: Mesh, label: str, timings: Timings
    ) -> None:
        """Prepare; ``mesh`` makes the connections for data channels."""
        self._engine = engine
        self._options = options
        # While the room lasts there is no giving up.
        self._timings = replace(timings, recover_budget=math.inf)
        # Nobody in such a room offers by itself, so there is nobody to let go first.
        self._mesh = mesh.with_timings(replace(timings, first_offer=0.0, courtesy=0.0))
        self._label = label
        self._members: dict[str, SfuMember] = {}
        """By peer id."""
        self._owners: dict[str, SfuMember] = {}
        """The member that publishes in a session, by its id."""
        self._host: RoomHost
        self._refused: MeteredError | None = None
        """Why the SFU does not let us in, if it does not."""
        self._told_watching: dict[str, tuple[str, ...]] = {}
        self._speakers = Speakers(self._on_speakers)
        self.our_state = OurState(label, timings)
        self._publisher = RoomPublisher(
            self._publishing_link,
            self.our_state.on_published,
            self.our_state.on_speech,
            self._on_mute,
            timings,
        )
        self._receiver = RoomReceiver(self._receiving_link, self, timings)

    # --- for the room ---

    @property
    def speakers(self) -> tuple[str, ...]:
        """The ids of those who speak, the loudest first. From any thread."""
        return self._speakers.ids

    def attach(self, host: RoomHost) -> None:
        """Belong to a room."""
        self._host = host
        self.our_state.attach(host, self._publisher)

    def __call__(
        self, owner: MediaOwner, *, local_id: str, remote_id: str, label: str
    ) -> MemberMedia:
        """Return the media of a member."""
        member = SfuMember(
            self,
            owner,
            self._mesh,
            local_id=local_id,
            remote_id=remote_id,
            label=label,
            timings=self._timings,
        )
        self._members[remote_id] = member
        self.our_state.arrived(owner)
        return member

    def receivers(self, members: Iterable[MemberMedia]) -> Iterable[TrackReceiver]:
        """Return those who take our tracks: the publisher, for all members."""
        return (self._publisher,)

    def is_message(self, data: object) -> bool:
        """Return whether the data of a message are for us, whoever has sent it."""
        return is_room_message(data)

    def on_joined(self) -> None:
        """Begin to publish and to receive."""
        self.our_state.on_joined()
        self._host.spawn(self._publisher.run)
        self._host.spawn(self._receiver.run)

    def on_listed(self) -> None:
        """Tell again what we send: to the others we have left and come back, perhaps."""
        self.our_state.repeat()

    def on_unlisted(self, remote_id: str) -> None:
        """Take note that presence does not list a member any more: it may be back as another."""
        for member in tuple(self._members.values()):
            if member.id != remote_id and member.known is not None:
                session_id = member.known.session_id
                owner = self._owners.get(session_id or "")
                if owner is not None and owner.id == remote_id:
                    member.apply()

    async def leave(self) -> None:
        """Tell the others that we send nothing any more."""
        self._publisher.end()
        await self.our_state.leave()

    def close(self, error: BaseException) -> None:
        """End everything that runs; what is to be closed is closed by :meth:`aclose`."""
        if self._engine.error is None:
            self.our_state.stop()
        self._publisher.end()
        if self._engine.error is not None:
            self._publisher.abort(error)
            self._receiver.abort(error)

    async def aclose(self) -> None:
        """Close the sessions."""
        try:
            await self._publisher.aclose()
        finally:
            await self._receiver.aclose()

    def on_send_refused(self) -> None:
        """Tell all members what could not be told to each of them."""
        for member in self._members.values():
            self.our_state.arrived(member.owner)

    # --- for the members ---

    def new_track(self, member: SfuMember, announced: AnnouncedTrack, session_id: str) -> RoomTrack:
        """Return a track that a member has announced."""
        track = RoomTrack(
            announced,
            session_id,
            member.id,
            max_pixels=self._options.sfu.max_pixels,
            policy=self._options.subscribe,
            on_demand=self._on_demand,
        )
        if announced.kind == "audio":
            track.on_decoded = _Measuring(self, track)
        return track

    def _on_demand(self) -> None:
        self._engine.post(self._receiver.wake)

    def claim(self, session_id: str, member: SfuMember) -> bool:
        """Take over a session for a member; false where another one has it, and is there."""
        owner = self._owners.get(session_id)
        if owner is not None and owner is not member and owner.id in self._members:
            if self._host.is_listed(owner.id):
                return False
            owner.hand_over(member)
            self._owners[session_id] = member
            self._host.forget(owner.id)
            return True
        for known, one in tuple(self._owners.items()):
            if one is member:
                del self._owners[known]
        self._owners[session_id] = member
        return True

    def changed(self, member: SfuMember) -> None:
        """Look at once at what is to be received."""
        self._receiver.wake()

    def speaks(self, member: SfuMember, speaking: bool) -> None:
        """Take a member's word about its speaking."""
        self._speakers.note_word(member.id, speaking)

    def note_sound(self, track: RoomTrack, frame: AudioFrame, slices: int) -> None:
        """Measure sound that has been received."""
        if track.peer_id in self._members:
            seconds = slices * frame.samples / (frame.sample_rate or 1)
            level = sound_level(frame.to_ndarray().tobytes())
            self._speakers.note_sound(track.peer_id, level, seconds)

    async def outgoing(self) -> list[dict[str, Any]]:
        """Return the counts of what this peer publishes."""
        return await self._publisher.stats()

    def paths(self) -> list[dict[str, str]]:
        """Return the kinds of the ICE candidates that the sessions use."""
        sessions = self._publisher.session, self._receiver.session
        return [path for one in sessions if one is not None for path in one.connection.paths()]

    def gone(self, member: SfuMember) -> None:
        """Forget a member."""
        if self._members.get(member.id) is member:
            del self._members[member.id]
        for session_id, owner in tuple(self._owners.items()):
            if owner is member:
                del self._owners[session_id]
        self._told_watching.pop(member.id, None)
        self._speakers.forget(member.id)
        self._receiver.wake()

    def _on_speakers(self, ids: tuple[str, ...]) -> None:
        self._receiver.wake()
        self._host.on_speakers(ids)

    # --- for the receiver ---

    def wanted(self, now: float) -> list[RoomTrack]:
        """Return the tracks that are to be received: as many of pictures as may be at once."""
        if self._refused is not None or self.our_state.left:
            return []
        sound: list[RoomTrack] = []
        pictures: list[tuple[int, float, RoomTrack]] = []
        ranks = {peer_id: rank for rank, peer_id in enumerate(self._speakers.ids)}
        for member in tuple(self._members.values()):
            for track in member.room_tracks:
                if not track.wanted_at(now):
                    continue
                if track.kind == "audio":
                    sound.append(track)
                else:
                    rank = ranks.get(member.id, len(ranks))
                    pictures.append((rank, -track.opened, track))
        pictures.sort(key=lambda one: one[:2])
        return sound + [track for *_, track in pictures[: self._options.max_video]]

    def ask(self, track: RoomTrack) -> None:
        """Ask a track's member for its state."""
        member = self._members.get(track.peer_id)
        if member is not None and self._host.send_refused is None:
            member.owner.post(build_room_message(StateRequest()))

    def on_missing(self, track: RoomTrack, error: MeteredError) -> None:
        """Tell of a track that the SFU has not had for a while."""
        member = self._members.get(track.peer_id)
        if member is not None:
            missing = SfuNotFoundError(
                f"{self._label}: the SFU does not have the {track.kind} track "
                f"{track.name or track.id!r} that {member.id!r} announces; it is asked for again "
                "with the next state of that member"
            )
            missing.__cause__ = error
            member.owner.on_error(missing)

    def on_misfit(self, track: RoomTrack, error: MeteredError) -> None:
        """End a track that can never be received, and tell why."""
        member = self._members.get(track.peer_id)
        track.end(error)
        if member is not None:
            member.owner.on_error(error)

    def on_refused(self, error: MeteredError) -> None:
        """End what cannot be received, and tell why."""
        if self._refused is None and not self.our_state.left:
            self._refused = error
            logger.warning("%s: the SFU refuses this peer: %s", self._label, error)
            self._host.on_media_refused(error)
            for member in tuple(self._members.values()):
                for track in member.room_tracks:
                    track.end(error)

    def _on_mute(self, error: MeteredError) -> None:
        """Tell that tracks of ours are not published; those of others may be received."""
        logger.warning("%s: publishing is refused: %s", self._label, error)
        self._host.on_media_refused(error)

    def on_received(self) -> None:
        """Tell those whose tracks are received which of them: it is theirs to use."""
        received = set(self._receiver.received)
        for member in tuple(self._members.values()):
            ids = tuple(track.id for track in member.room_tracks if track in received)
            if ids != self._told_watching.get(member.id, ()) and self._host.send_refused is None:
                self._told_watching[member.id] = ids
                member.owner.post(build_room_message(Watching(ids)))

    # --- links ---

    def _publishing_link(self, sink: SfuSink) -> SfuLink:
        return self._link(sink, "publishing", Watch)

    def _receiving_link(self, sink: SfuSink, make_watch: Callable[[Watched], Watch]) -> SfuLink:
        return self._link(sink, "receiving", make_watch)

    def _link(self, sink: SfuSink, what: str, make_watch: Callable[[Watched], Watch]) -> SfuLink:
        options = self._options
        label = f"{self._label}: {what}"
        calls = options.calls(label, self._host.token, options.sfu.ca_file)
        return SfuLink(self._engine, sink, options.sfu, calls, label, self._timings, make_watch)


class _Measuring:
    """Measure one in some of the slices of a track's sound."""

    def __init__(self, room: SfuRoomMedia, track: RoomTrack) -> None:
        self._room = room
        self._track = track
        self._count = 0

    def __call__(self, frame: Any) -> None:
        self._count += 1
        if self._count % LEVEL_INTERVAL == 0:
            self._room.note_sound(self._track, frame, LEVEL_INTERVAL)
