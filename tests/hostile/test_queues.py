"""Fill the queues of a program that does not read."""

from __future__ import annotations

import time

from metered_sync import Message, MeteredPeer, NegotiationError, SignallingClient
from metered_sync.bridge.reader import MAX_BYTES
from metered_sync.engine.rooms.error_throttle import ERROR_BURST
from metered_sync.local import LocalCloud
from tests.conftest import wait_until
from tests.support.raw_client import raw
from tests.support.victim import loop_cpu

LISTS = "[" + ",".join(["[]"] * 20_000) + "]"
"""Two bytes of it become a list of 56."""


def test_messages_are_bounded_by_bytes(cloud: LocalCloud) -> None:
    with (
        SignallingClient(**cloud.token_options("victim")) as victim,
        raw(cloud, "mallory") as mallory,
    ):
        default = victim.subscribe("c")
        few = victim.subscribe("c", max_bytes=1 << 20)
        events = victim.events(Message, max_bytes=1 << 20)
        for _ in range(22):
            mallory.connection.send(
                f'{{"type":"publish","channel":"c","data":{LISTS},"requestId":"r"}}'
            )
        wait_until(lambda: len(default) == 22, 60, "all arrive")
        wait_until(lambda: len(events) + events.dropped == 22, 20, "all are events, too")
        size = few.get(timeout=20).frame_size
        assert len(LISTS) < size < len(LISTS) + 100
        assert len(few) + 1 == len(events) == (1 << 20) // size
        assert few.dropped == events.dropped == 22 - len(events)
        assert default.dropped == 0
        assert MAX_BYTES == 16 << 20


def test_bad_offers_are_told_of_now_and_then(cloud: LocalCloud) -> None:
    """The first ones and the newest are, whatever comes in between."""
    with (
        MeteredPeer(**cloud.token_options("victim"), ice_servers=[]) as victim,
        raw(cloud, "mallory") as mallory,
    ):
        victim.join("room")
        mallory.ask(type="subscribe", requestId="1", channel="room")
        remote = victim.wait_for_peer("mallory", timeout=20)
        errors = remote.events(NegotiationError, maxsize=10)
        before, begin = loop_cpu(), time.monotonic()
        for number in range(150):
            offer = {"type": "offer", "sdp": f"nonsense {number}"}
            mallory.send(
                type="send", to="victim", data={"type": "rtc-description", "description": offer}
            )
        bad = {"type": "answer", "sdp": "nonsense"}
        mallory.send(type="send", to="victim", data={"type": "rtc-description", "description": bad})
        told = [errors.get(timeout=20)]
        while "offer" in str(told[-1].err):
            told.append(errors.get(timeout=20))
        assert len(told) <= ERROR_BURST + 3 + time.monotonic() - begin
        assert loop_cpu() - before < 2
