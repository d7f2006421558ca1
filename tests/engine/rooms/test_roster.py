"""Test the roster of a room: lists of members, changes, limbo, and messages that come early."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import pytest

from metered_sync.engine.messaging.roster_limits import MAX_MEMBER_METADATA, MAX_ROSTER
from metered_sync.engine.rooms.roster import MAX_EARLY, MAX_MEMBERS, MORE_REQUESTS
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.events import Direct, Presence, PresencePeer, StateChange
from metered_sync.wire.states import PeerConnectionState
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.support.connections import until
from tests.support.room_parts import Journal

SOON = dataclasses.replace(DEFAULT_TIMINGS, reconcile=0.01, limbo=0.01, limbo_closed=0.01)


def presence(*joined: str, left: tuple[str, ...] = (), metadata: Any = None) -> Presence:
    """Return a presence frame; ``joined`` may be a list of all members."""
    here = tuple(PresencePeer(name, metadata) for name in joined)
    return Presence("room", here, tuple(PresencePeer(name, None) for name in left))


def listed(*names: str) -> Journal:
    """Return a room that has just been joined, with these members."""
    room = Journal()
    room.roster.expect_list(back=False)
    room.roster.take(presence(*names))
    room.take_happened()
    return room


def on_loop(test: Callable[..., Any]) -> Callable[..., None]:
    """Run a test on an event loop."""

    @functools.wraps(test)
    def run(**options: Any) -> None:
        asyncio.run(asyncio.wait_for(test(**options), 20))

    return run


def test_members_come_and_go() -> None:
    room = listed("ann", "bob")
    roster = room.roster
    assert [member.id for member in roster.present] == ["ann", "bob"]
    roster.take(presence("cis", left=("ann",), metadata={"n": 1}))
    ann, cis = "ann", roster.members["cis"]
    assert cis.metadata == {"n": 1}
    assert room.take_happened() == [
        f"left {ann}",
        (ann, StateChange("idle", "closed")),
        f"ended {ann}",
        f"disconnect {ann}",
        "joined cis",
        "connect cis",
        "arrived cis",
    ]
    assert set(roster.members) == {"bob", "cis"}
    roster.take(presence(left=("nobody",)))
    roster.take(presence("bob", "cis", metadata={"n": 2}))  # they are there already
    assert room.take_happened() == []
    assert cis.metadata == {"n": 1}


def test_our_own_ids_are_no_members() -> None:
    room = Journal()
    for number in range(3):
        room.roster.note_own_id(f"me{number}")
    room.roster.expect_list(back=False)
    room.roster.take(presence("me0", "ann", "me2"))
    room.roster.take(presence("me1"))
    assert set(room.roster.members) == {"ann"}


def test_there_is_a_limit_to_members() -> None:
    room = listed(*(f"p{number}" for number in range(MAX_MEMBERS + 44)))
    assert len(room.roster.members) == MAX_MEMBERS
    room.roster.take(presence("late", left=("p0",)))
    assert "late" in room.roster.members


def test_there_is_a_limit_to_metadata() -> None:
    too_much = {"x": "y" * MAX_MEMBER_METADATA}
    room = Journal()
    room.roster.expect_list(back=False)
    room.roster.take(presence("ann", metadata=too_much))
    room.roster.take(presence("bob", metadata={"n": 1}))
    ann, bob = room.roster.members.values()
    assert (ann.metadata, bob.metadata) == (None, {"n": 1})
    room.roster.expect_list(back=True)
    room.roster.take(presence("bob", metadata=too_much))
    assert bob.metadata is None
    room.roster.take(presence("x" * MAX_ROSTER, "cis"))
    assert set(room.roster.members) == {"bob", "cis"}


def test_the_list_after_an_outage_is_taken_over() -> None:
    """Members that have gone go first, then the room is joined, then new members come."""
    room = listed("ann", "bob")
    room.roster.expect_list(back=True)
    room.roster.take(presence("cis", "bob", metadata={"n": 2}))
    assert room.roster.members["bob"].metadata == {"n": 2}
    assert [what for what in room.take_happened() if isinstance(what, str)] == [
        "left ann",
        "ended ann",
        "disconnect ann",
        "listed",
        "joined cis",
        "connect cis",
        "arrived cis",
        "reconnect bob",
    ]
    room.roster.take(presence("bob"))  # no list any more
    assert room.take_happened() == []


def test_a_list_that_was_asked_for_again_connects_to_nobody_anew() -> None:
    room = listed("ann")
    room.roster.expect_list(back=False)
    room.roster.take(presence("ann"))
    assert room.take_happened() == ["listed"]


@on_loop
async def test_a_list_that_does_not_come_is_asked_for_again() -> None:
    room = Journal(SOON)
    room.roster.expect_list(back=False)
    room.roster.await_list()
    await until(lambda: "no list" in room.happened)
    assert room.happened == ["ask for list"] * MORE_REQUESTS + ["no list"]


@on_loop
async def test_a_list_that_comes_is_not_asked_for() -> None:
    room, other = Journal(SOON), Journal(SOON)
    for one in (room, other):
        one.roster.expect_list(back=False)
        one.roster.await_list()
    room.roster.take(presence("ann"))
    await until(lambda: "no list" in other.happened)
    assert not {"ask for list", "no list"}.intersection(map(str, room.happened))


@pytest.mark.parametrize("state", ["connected", "reconnecting"])
@on_loop
async def test_a_member_whose_media_flow_may_come_back(state: PeerConnectionState) -> None:
    """Also where they flowed before, and are being connected anew."""
    room = listed("ann")
    ann: Any = room.roster.members["ann"]
    ann.media.become("connected")
    ann.media.become(state)
    room.take_happened()
    room.roster.take(presence(left=("ann",)))
    changes = [("ann", StateChange("connected", "reconnecting"))] if state == "connected" else []
    assert room.take_happened() == ["left ann", *changes]
    assert room.roster.present == ()
    room.roster.take(presence("ann", metadata={"n": 2}))
    assert room.take_happened() == ["joined ann", "reconnect ann", "arrived ann"]
    assert (room.roster.members["ann"], ann.metadata) == (ann, {"n": 2})
    assert ann.limbo is None


@pytest.mark.parametrize("state", ["connected", "reconnecting"])
@on_loop
async def test_a_member_that_does_not_come_back_is_forgotten(state: PeerConnectionState) -> None:
    room = Journal(SOON)
    room.roster.take(presence("ann"))
    ann: Any = room.roster.members["ann"]
    ann.media.become(state)
    room.roster.take(presence(left=("ann",)))
    await until(lambda: not room.roster.members)
    assert (ann.state, room.happened[-1]) == ("closed", "disconnect ann")
    assert room.happened.count("left ann") == 1


@on_loop
async def test_a_member_that_has_left_is_forgotten_once_its_media_end() -> None:
    room = Journal(dataclasses.replace(SOON, limbo=60.0))
    room.roster.take(presence("ann", "bob"))
    ann: Any = room.roster.members["ann"]
    bob: Any = room.roster.members["bob"]
    track = IncomingTrack("video", id="t")
    track.on_end = ann.on_track_ended
    ann.media.tracks = (track,)
    for member in (ann, bob):
        member.media.become("connected")
    room.roster.take(presence(left=("ann",)))
    room.take_happened()
    ann.media.become("connecting")  # that is no end
    assert set(room.roster.members) == {"ann", "bob"}
    ann.media.become("reconnecting")
    bob.media.become("reconnecting")  # nor is that: it is present
    await until(lambda: set(room.roster.members) == {"bob"})
    assert (ann.state, ann.limbo, track.ended) == ("closed", None, True)
    ann.media.become("reconnecting")
    happened = [what for what in room.take_happened() if "ann" in what]
    assert happened[-5:] == [
        ("ann", StateChange("connecting", "reconnecting")),
        ("ann", StateChange("reconnecting", "closed")),
        ("ann", track, "ended"),
        "ended ann",
        "disconnect ann",
    ]


@on_loop
async def test_a_member_whose_media_end_as_it_comes_back_is_the_same() -> None:
    """A browser that reconnects closes its connection, perhaps before presence lists it again."""
    room = Journal(dataclasses.replace(DEFAULT_TIMINGS, limbo=0.01, limbo_closed=60.0))
    room.roster.take(presence("ann"))
    ann: Any = room.roster.members["ann"]
    track = IncomingTrack("video", id="t")
    ann.media.tracks = (track,)
    ann.media.become("connected")
    room.roster.take(presence(left=("ann",)))
    ann.media.become("reconnecting")
    room.take_happened()
    room.roster.take(presence("ann"))
    assert room.take_happened() == ["joined ann", "reconnect ann", "arrived ann"]
    assert (room.roster.members["ann"], ann.limbo, track.ended) == (ann, None, False)


@on_loop
async def test_the_end_of_a_room_is_the_end_of_all_members() -> None:
    room = listed("ann", "bob")
    bob: Any = room.roster.members["bob"]
    bob.media.become("connected")
    room.roster.take(presence(left=("bob",)))
    room.take_happened()
    room.roster.clear(None)
    happened = [what for what in room.take_happened() if isinstance(what, str)]
    assert happened == ["left ann", "ended ann", "disconnect ann", "ended bob", "disconnect bob"]
    assert room.roster.members == {}
    assert bob.limbo is None


def test_a_room_ends_though_the_loop_is_gone() -> None:
    room = listed("ann")

    async def leave() -> None:
        ann: Any = room.roster.members["ann"]
        ann.media.become("connected")
        room.roster.take(presence(left=("ann",)))

    asyncio.run(leave())
    room.roster.clear(None)
    assert room.roster.members == {}


# --- early messages -------------------------------------------------------------------


def test_messages_that_overtake_presence_are_kept_in_order() -> None:
    room = listed()
    for number in range(MAX_EARLY + 44):  # the first of them are too many
        room.roster.keep_early(Direct("bob" if number % 2 else "cis", number, None))
    room.roster.take(presence("bob"))
    assert [event.data for event in room.direct] == list(range(45, MAX_EARLY + 44, 2))
    room.roster.take(presence("cis"))
    assert {event.sender_peer_id for event in room.direct[-100:]} == {"cis"}
    count = len(room.direct)
    room.roster.take(presence(left=("bob",)))
    room.roster.take(presence("bob"))
    assert len(room.direct) == count


@pytest.mark.parametrize("early", [-1.0, 60.0])
def test_messages_are_kept_for_a_moment(early: float) -> None:
    room = Journal(dataclasses.replace(DEFAULT_TIMINGS, early=early))
    room.roster.keep_early(Direct("bob", "hello", None))
    room.roster.take(presence("bob"))
    assert len(room.direct) == (early > 0)
