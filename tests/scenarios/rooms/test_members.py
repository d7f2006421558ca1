"""Test who is in a room: messages that overtake presence, lists of members, ids that change."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from metered_sync import (
    ConnectionReset,
    Data,
    Direct,
    FatalError,
    MeteredPeer,
    NotConnectedError,
    PeerJoined,
    PeerLeft,
    Presence,
    PresencePeer,
    ReconcileTimeoutError,
)
from metered_sync.local import LocalCloud
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.conftest import wait_until
from tests.scenarios.rooms.test_edges import emit
from tests.support.outage import outage
from tests.support.rooms import FAST, pattern, peer
from tests.support.scripted_service import Scripted, ScriptedServer, polite


def test_what_comes_before_its_sender_is_known_is_not_lost(
    shared_cloud: LocalCloud, room: str
) -> None:
    with peer(shared_cloud, "ann") as ann, ann.events(Data) as data:
        ann.join(room)
        emit(
            ann,
            # (The first of them are too many.)
            *(Direct("bob" if number % 2 else "cis", number, None) for number in range(300)),
            Direct("bob", {"__meteredTrackMeta": {"trackId": "t", "metadata": {}}}, None),
            Presence(room, (PresencePeer("bob", None),), ()),
        )
        got = [data.get(timeout=20) for _ in range(len(data))]
        assert {one.sender_peer_id for one in got} == {"bob"}
        assert [one.data for one in got] == list(range(45, 300, 2))
        (bob,) = (there for there in ann.remote_peers if there.id == "bob")
        assert len(bob._member.announced) == 1


def test_the_list_after_a_reconnect_is_taken_over() -> None:
    """Some are still there, listed twice; some have gone; some are new."""
    lists = [["ann~", "bob~", "cis~"], ["new~", "cis~", "bob~", "cis~"]]

    def answer(connection: Scripted, frame: dict[str, Any]) -> None:
        if frame["type"] == "subscribe":
            connection.send(type="ack", requestId=frame["requestId"])
            listed = [{"peerId": name, "metadata": {}} for name in lists[connection.number]]
            connection.send(type="presence", channel="room", joined=listed, left=[])
        else:
            polite(connection, frame)

    with (
        pattern() as one,
        ScriptedServer(answer) as server,
        MeteredPeer(api_key="pk_live_x", url=server.url, ice_servers=[], reconnect=FAST) as ann,
        ann.events(PeerJoined, PeerLeft) as changes,
    ):
        ann.add_track(one.video)
        ann.join("room")
        assert {changes.get(timeout=20).peer.id for _ in range(3)} == {*lists[0]}
        cis = ann.wait_for_peer("cis~", timeout=20)
        connection = server.accept()
        wait_until(lambda: sum("rtc-description" in str(x) for x in connection.texts) >= 3, 20)
        with cis.events(ConnectionReset) as resets:
            connection.drop()
            left, joined = changes.get(timeout=20), changes.get(timeout=20)
            assert isinstance(left, PeerLeft)
            assert isinstance(joined, PeerJoined)
            assert (left.peer.id, joined.peer.id) == ("ann~", "new~")
            resets.get(timeout=20)
            assert ann.state == "joined"
            assert ann.wait_for_peer("cis~") is cis
            assert (len(resets), len(changes)) == (0, 0)


@pytest.mark.parametrize("late", [1, 3])
def test_a_list_that_does_not_come_is_asked_for_again(late: int) -> None:
    """Twice. It comes with the second request, or never."""
    asked = 0

    def answer(connection: Scripted, frame: dict[str, Any]) -> None:
        nonlocal asked
        if frame["type"] == "subscribe" and connection.number == 1:
            asked += 1
            if asked <= late:
                connection.send(type="ack", requestId=frame["requestId"])
                return
        polite(connection, frame)

    timings = dataclasses.replace(DEFAULT_TIMINGS, reconcile=0.3)
    with (
        ScriptedServer(answer) as server,
        MeteredPeer(api_key="pk_live_x", url=server.url, reconnect=FAST, _timings=timings) as ann,
        ann.events(FatalError, PeerLeft) as events,
    ):
        ann.join("room")
        connection = server.accept()
        connection.send(type="presence", channel="room", joined=[{"peerId": "bob"}], left=[])
        ann.wait_for_peer("bob", timeout=20)
        connection.drop()
        first = events.get(timeout=20)
        if late == 1:
            assert isinstance(first, PeerLeft)
            wait_until(lambda: ann.state == "joined")  # (once all of the list has been read)
            assert asked == 2
        else:
            assert isinstance(first, FatalError)
            assert isinstance(first.err, ReconcileTimeoutError)
            assert asked == 3
            wait_until(lambda: ann.state == "closed")
            with pytest.raises(ReconcileTimeoutError):
                ann.send("x")


def test_members_whose_id_changes_with_each_connection(cloud: LocalCloud, room: str) -> None:
    """As with publishable keys: to the others it is somebody else who comes back."""
    options = {**cloud.client_options(), "ice_servers": [], "reconnect": FAST}
    with pattern() as one, MeteredPeer(**options) as ann, MeteredPeer(**options) as bob:
        ann.add_track(one.video)
        ann.join(room)
        bob.join(room)
        before, back = bob.wait_for_peer(timeout=20), ann.wait_for_peer(timeout=20)
        before.track(timeout=20).read(timeout=20)
        with bob.events(PeerJoined) as joins:
            cloud.faults.drop_connections(before.id)
            after = joins.get(timeout=20).peer
        assert after is not before
        assert after.track("video", timeout=20).read(timeout=20).any()
        wait_until(lambda: ann.state == "joined")
        assert (ann.peer_id, ann.wait_for_peer(timeout=20)) == (after.id, back)


def test_messages_during_an_outage_wait_or_fail(cloud: LocalCloud, room: str) -> None:
    with peer(cloud, "ann") as ann, peer(cloud, "bob") as bob, bob.events(Data) as data:
        ann.join(room)
        bob.join(room)
        there = ann.wait_for_peer(timeout=20)
        with outage(cloud, ann, peer_id="ann"):
            for call in (ann.send, there.send):
                with pytest.raises(NotConnectedError):
                    call("now or never", during_outage="fail")
        there.send("direct", timeout=20)
        ann.send("to all", timeout=20)
        assert [data.get(timeout=20).data for _ in range(2)] == ["direct", "to all"]
