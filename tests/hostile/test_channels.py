"""Open far more data channels than anybody needs."""

from __future__ import annotations

import pytest

from metered_sync import DataChannelOpened, MeteredPeer, _member_objects
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.engines import current
from metered_sync.engine.rooms.member import MAX_CHANNELS
from metered_sync.local import LocalCloud
from tests.conftest import wait_until
from tests.support.victim import loop_cpu

MANY = 600


def test_a_member_opens_data_channels_without_end(
    cloud: LocalCloud, caplog: pytest.LogCaptureFixture
) -> None:
    """The first ones work, the rest is closed, at a cost that rises with their number only."""
    with (
        MeteredPeer(**cloud.token_options("victim"), ice_servers=[]) as victim,
        MeteredPeer(**cloud.token_options("mallory"), ice_servers=[]) as mallory,
    ):
        victim.join("room")
        mallory.join("room")
        near = mallory.wait_for_peer("victim", timeout=20)
        first = near.create_data_channel("first")
        assert mallory._link is not None
        (member,) = mallory._link.roster.members.values()
        before = loop_cpu()

        async def flood() -> list[object]:
            return [await member.media.open_channel(str(n), {}) for n in range(MANY)]

        channels = current().call(flood, deadline=Deadline(10), what="a flood")

        def settled() -> bool:
            return all(one.readyState in ("open", "closed") for one in channels)

        wait_until(settled, 20, "each channel is open or closed")
        wait_until(lambda: sum(one.readyState == "open" for one in channels) < MAX_CHANNELS, 20)
        # Both sides of it, SCTP and all, run on this thread.
        assert loop_cpu() - before < 4
        assert len(victim.remote_peers[0].channels) == MAX_CHANNELS
        first.send("still there")
        assert victim.remote_peers[0].channels[0].get(timeout=20) == "still there"
    assert caplog.text.count("data channels open") == 1


def test_a_member_closes_channels_whose_messages_nobody_has_read(
    cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are kept up to a size; beyond it those of the oldest channels go."""
    size = 20_000
    monkeypatch.setattr(_member_objects, "MAX_CLOSED_BYTES", 3 * size)
    with (
        MeteredPeer(**cloud.token_options("victim"), ice_servers=[]) as victim,
        MeteredPeer(**cloud.token_options("mallory"), ice_servers=[]) as mallory,
    ):
        victim.join("room")
        mallory.join("room")
        near = mallory.wait_for_peer("victim", timeout=20)
        opened = victim.wait_for_peer("mallory", timeout=20).events(DataChannelOpened)
        for number in range(7):
            with near.create_data_channel(str(number)) as channel:
                channel.send(b"x" * size, timeout=20)
                wait_until(lambda number=number: len(opened) == number + 1, 20)
        last = near.create_data_channel("last")
        wait_until(lambda: len(opened) == 8, 20)
        channels = [event.channel for event in (opened.get() for _ in range(7))]
        assert [one.label for one in channels] == [str(number) for number in range(7)]
        assert [(len(one), one.dropped) for one in channels] == [(0, 1)] * 4 + [(1, 0)] * 3
        assert channels[-1].get() == b"x" * size
        last.close()
