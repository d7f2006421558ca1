"""Test which connections get a message or presence: channels, patterns, several of one peer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from metered_sync.local.broker import Broker
from metered_sync.local.connections import SendScheduler
from metered_sync.wire.limits import ACTIONS
from tests.support.recorded_connection import Connection, turn


class House:
    """A broker with its connections."""

    def __init__(self) -> None:
        self.scheduler = SendScheduler()
        self.broker = Broker(self.scheduler)

    def add(
        self,
        peer_id: str,
        *channels: str,
        actions: tuple[str, ...] = ACTIONS,
        metadata: dict[str, Any] | None = None,
        wants_metadata: bool = False,
    ) -> Connection:
        connection = Connection(self.scheduler, peer_id, actions, metadata)
        self.broker.add(connection)
        for name in channels:
            self.broker.join(connection, name, metadata=wants_metadata)
        return connection


def tell(story: Callable[[House], Awaitable[None]]) -> None:
    async def run() -> None:
        house = House()
        await story(house)
        house.scheduler.close()

    asyncio.run(run())


def test_a_message_goes_to_all_but_the_connection_it_came_from() -> None:
    async def story(house: House) -> None:
        ann, twin, bob = house.add("ann", "x"), house.add("ann", "x"), house.add("bob", "y")
        house.broker.publish("x", "ann", 1, None, ann)
        house.broker.publish("z", "ann", 2, None)
        await turn()
        assert ann.frames() == bob.frames() == []
        assert twin.frames() == [{"type": "message", "channel": "x", "from": "ann", "data": 1}]

    tell(story)


def test_metadata_goes_to_those_who_asked_for_it() -> None:
    async def story(house: House) -> None:
        plain, full = house.add("a", "x"), house.add("b", "x", wants_metadata=True)
        house.broker.publish("x", "ann", 1, {"name": "Ann"})
        await turn()
        assert "fromMetadata" not in plain.frames()[0]
        assert full.frames()[0]["fromMetadata"] == {"name": "Ann"}
        house.broker.join(full, "x", metadata=False)  # anew: the last word counts
        house.broker.publish("x", "ann", 1, {"name": "Ann"})
        await turn()
        assert "fromMetadata" not in full.frames()[0]

    tell(story)


def test_a_pattern_and_its_channel_are_one_message() -> None:
    async def story(house: House) -> None:
        both = house.add("a", "room/1")
        house.broker.join(both, "room/*", metadata=True)
        pattern = house.add("b", "room/*")
        house.broker.publish("room/1", "ann", 1, {"n": 1})
        house.broker.publish("room/1/2", "ann", 2, None)
        await turn()
        (frame,) = both.frames()
        assert frame["fromMetadata"] == {"n": 1}  # as one of the two asks for it
        assert len(pattern.frames()) == 1

    tell(story)


def test_data_that_json_cannot_carry_reaches_nobody() -> None:
    async def story(house: House) -> None:
        ann = house.add("ann", "x")
        with pytest.raises(ValueError, match="surrogate"):
            house.broker.publish("x", "bob", "\ud800", None)
        with pytest.raises(ValueError, match="surrogate"):
            house.broker.direct("ann", "bob", "\ud800", None)
        await turn()
        assert ann.frames() == []

    tell(story)


def test_a_direct_message_reaches_each_connection_of_its_peer() -> None:
    async def story(house: House) -> None:
        ann, twin = house.add("ann"), house.add("ann")
        assert house.broker.direct("ann", "bob", 1, None)
        assert not house.broker.direct("cy", "bob", 1, None)
        await turn()
        assert ann.frames() == twin.frames() == [{"type": "direct", "from": "bob", "data": 1}]

    tell(story)


def test_a_peer_with_two_connections_comes_and_goes_once() -> None:
    async def story(house: House) -> None:
        broker = house.broker
        bob = house.add("bob", "x")
        ann, twin = house.add("ann"), house.add("ann", metadata={"n": 2})
        assert broker.join(ann, "x", metadata=False)
        broker.announce(ann, "x", joined=True)
        assert not broker.join(twin, "x", metadata=False)
        assert broker.roster("x") == {"bob": None, "ann": None}
        await turn()
        (frame,) = bob.frames()
        assert (frame["joined"], frame["left"]) == ([{"peerId": "ann"}], [])
        broker.leave(ann, "x")
        await turn()
        assert bob.frames() == []
        assert broker.roster("x") == {"bob": None, "ann": {"n": 2}}
        assert broker.remove(twin)
        assert not broker.remove(twin)
        await turn()
        (frame,) = bob.frames()
        assert frame["left"] == [{"peerId": "ann", "metadata": {"n": 2}}]
        assert broker.roster("x") == {"bob": None}
        assert broker.sockets("ann") == (ann,)
        assert broker.sockets() == (bob, ann)

    tell(story)


def test_the_snapshot_shows_the_others_to_those_who_may_see_them() -> None:
    async def story(house: House) -> None:
        ann, bob = house.add("ann", "x", "x/*"), house.add("bob", "x")
        blind = house.add("cy", "x", actions=("subscribe",))
        for connection in (ann, blind):
            house.broker.show(connection, "x")
            house.broker.show(connection, "x/*")
        house.broker.announce(bob, "x", joined=True)
        house.broker.announce(ann, "x/*", joined=True)
        await turn()
        snapshot, joined = ann.frames()
        assert [peer["peerId"] for peer in snapshot["joined"]] == ["bob", "cy"]
        assert [peer["peerId"] for peer in joined["joined"]] == ["bob"]
        assert blind.frames() == bob.frames() == []

    tell(story)


def test_nothing_is_kept_of_who_has_left() -> None:
    async def story(house: House) -> None:
        broker = house.broker
        for round_ in range(3):
            ann = house.add("ann", "x", "x/*", f"y{round_}")
            broker.leave(ann, "x")
            broker.leave(ann, "never")
            broker.remove(ann)
            assert ann.channels == set()
        assert broker.roster("x") == {}
        assert not broker._peers
        assert not broker._channels
        assert not broker._patterns

    tell(story)
