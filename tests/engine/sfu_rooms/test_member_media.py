"""Take the states that a member announces, and show its tracks to other threads meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from metered_sync.engine.rooms.media import MediaFactory
from metered_sync.engine.sfu_rooms.member_media import SfuMember
from metered_sync.engine.sfu_rooms.messages import AnnouncedTrack, RoomState, build_room_message
from metered_sync.engine.sfu_rooms.room_track import RoomTrack
from metered_sync.events import PresencePeer
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.support.room_parts import Journal


class _LookedAt(RoomTrack):
    """A track at whose change somebody looks at its member's tracks, as another thread may."""

    look: Callable[[], None]

    def announce(self, announced: AnnouncedTrack, session_id: str) -> None:
        super().announce(announced, session_id)
        self.look()


class Room:
    """A room that has one member, whose sessions are all its own."""

    def __init__(self) -> None:
        self.our_state: Any = None
        self.seen: list[set[str | None]] = []
        """The names of the member's tracks, each time that one of them changed."""
        owner = Journal().make_member(PresencePeer("a"))
        self.member = SfuMember(
            self,
            owner,
            cast(MediaFactory, None),
            local_id="b",
            remote_id="a",
            label="member",
            timings=DEFAULT_TIMINGS,
        )
        owner.media = self.member

    def look(self) -> None:
        self.seen.append({track.name for track in self.member.tracks})

    def new_track(self, member: SfuMember, announced: AnnouncedTrack, session_id: str) -> RoomTrack:
        track = _LookedAt(
            announced, session_id, member.id, max_pixels=1, policy="none", on_demand=lambda: None
        )
        track.look = self.look
        return track

    def claim(self, session_id: str, member: SfuMember) -> bool:
        return True

    def changed(self, member: SfuMember) -> None: ...

    def speaks(self, member: SfuMember, speaking: bool) -> None: ...

    async def outgoing(self) -> list[dict[str, Any]]:
        return []

    def paths(self) -> list[dict[str, str]]:
        return []

    def gone(self, member: SfuMember) -> None: ...


def test_no_track_is_away_while_a_state_gives_it_another_id() -> None:
    """Who waits for a track, and looks just then, would not be told of it again."""
    room = Room()

    async def run() -> None:
        for revision, session, ids in (1, "first", "xyz"), (2, "second", "pqr"):
            names = zip(ids, ("camera", "screen", "mic"), strict=True)
            tracks = tuple(AnnouncedTrack(id_, "video", "s", name) for id_, name in names)
            state = RoomState("boot", revision, session, tracks)
            assert room.member.take_message(build_room_message(state), direct=True)
        assert [track.id for track in room.member.tracks] == ["p", "q", "r"]
        await room.member.aclose()

    asyncio.run(run())
    assert room.seen == [{"camera", "screen", "mic"}] * 3
