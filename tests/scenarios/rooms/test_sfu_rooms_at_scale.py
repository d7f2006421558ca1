"""Rooms over the SFU with many members, and for long: what they hold stays bounded."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from metered_sync import Disconnected, MeteredPeer, StateChange
from metered_sync.engine.sfu_rooms import room_track
from metered_sync.local import LocalCloud, meter
from metered_sync.testing import PatternSource, ToneSource, read_number
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.conftest import wait_until
from tests.support.raw_client import Raw, raw
from tests.support.rooms import pattern
from tests.support.rooms import peer as any_peer

peer = functools.partial(any_peer, through="sfu")


@pytest.fixture
def large_cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCloud]:
    """A cloud with the service's rates that many may join at once from one address."""
    monkeypatch.setattr(meter, "MAX_ATTEMPTS", 1000)
    with LocalCloud(max_connections=1000, max_messages=10**7) as cloud:
        yield cloud


def come(cloud: LocalCloud, room: str, peer_id: str, stack: ExitStack) -> Raw:
    """Have a member come that knows signalling and nothing else."""
    client = stack.enter_context(raw(cloud, peer_id, channels=[room]))
    client.send(type="subscribe", channel=room, requestId="1")
    return client


def sees(client: Raw, count: int) -> set[str]:
    """Read presence until so many others are there; return their ids."""
    there: set[str] = set()
    while len(there) < count:
        frame = client.receive()
        if frame["type"] == "presence":
            there |= {one["peerId"] for one in frame["joined"]}
            there -= {one["peerId"] for one in frame["left"]}
            there.discard(client.welcome["peerId"])
    return there


# --- many ---


@pytest.mark.parametrize("count", [48, pytest.param(256, marks=pytest.mark.slow)])
def test_every_member_sees_every_other(large_cloud: LocalCloud, room: str, count: int) -> None:
    ours = [f"ours-{number}" for number in range(6)]
    theirs = [f"raw-{number}" for number in range(count - len(ours))]
    with ExitStack() as stack, ThreadPoolExecutor(16) as pool:
        peers = [stack.enter_context(peer(large_cloud, name)) for name in ours]
        joins = [pool.submit(one.join, room, timeout=60) for one in peers]
        clients = list(pool.map(lambda name: come(large_cloud, room, name, stack), theirs))
        for join in joins:
            join.result(timeout=60)
        everybody = {*ours, *theirs}
        for name, one in zip(ours, peers, strict=True):
            wait_until(lambda one=one: len(one.remote_peers) == count - 1, 60)
            assert {there.id for there in one.remote_peers} == everybody - {name}
        for name, client in zip(theirs, clients, strict=True):
            assert sees(client, count - 1) == everybody - {name}
        assert [one.state for one in peers] == ["joined"] * len(ours)


def test_each_of_a_storm_of_newcomers_learns_what_is_sent(
    large_cloud: LocalCloud, room: str
) -> None:
    names = [f"raw-{number}" for number in range(64)]
    with (
        pattern() as source,
        peer(large_cloud, "ann") as ann,
        ExitStack() as stack,
        ThreadPoolExecutor(16) as pool,
    ):
        ann.add_track(source)
        ann.join(room)
        link: Any = ann._link
        wait_until(lambda: link.media._publisher.announced, 20)
        changes = stack.enter_context(ann.events(Disconnected, StateChange))

        def learn(name: str) -> Any:
            client = come(large_cloud, room, name, stack)
            for _ in range(3):  # more than it may send at once (200)
                client.send(type="send", to="ann", data={"$sfu": 1, "ask": True}, requestId="ask")
            states = []
            while len(states) < 4:
                frame = client.receive()
                if frame["type"] == "direct":
                    states.append(frame["data"])
            return states

        started = time.monotonic()
        told = [state for states in pool.map(learn, names) for state in states]
        assert time.monotonic() - started < 30
        assert {state["session"] for state in told} == {link.media._publisher.session_id}
        assert {tuple(one["kind"] for one in state["tracks"]) for state in told} == {("video",)}
        wait_until(lambda: len(ann.remote_peers) == len(names), 20)
        assert (ann.state, len(changes)) == ("joined", 0)  # and was never closed, by 4011 or else


# --- for long ---


def memory() -> float:
    """Return what this process holds, in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.parametrize(
    "rounds",
    [20, pytest.param(500, marks=[pytest.mark.slow, pytest.mark.timeout(900)])],
)
def test_reading_and_letting_go_again_and_again(
    shared_cloud: LocalCloud, room: str, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    monkeypatch.setattr(room_track, "LINGER", 0.05)
    timings = dataclasses.replace(DEFAULT_TIMINGS, watch=0.05, request_interval=0.01)
    with (
        PatternSource(64, 64, fps=20) as source,
        ToneSource(440) as tone,
        peer(shared_cloud, "ann") as ann,
        peer(shared_cloud, "bob", _timings=timings) as bob,
    ):
        ann.add_track(source)
        ann.add_track(tone)
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer(timeout=20)
        shown, heard = there.track("video", timeout=20), there.track("audio", timeout=20)
        sizes: list[int] = []
        held: list[float] = []
        with heard.frames() as sound:  # goes on all the while
            sound.get(timeout=20)
            session, received = receiving(bob)
            for _ in range(rounds):
                with closing(shown.frames()) as frames:
                    frames.get(timeout=20)
                wait_until(lambda: len(received()) == 1, 20)
                sizes.append(len(session.pc.localDescription.sdp))
                assert len(session.pc.getTransceivers()) <= 5
                held.append(memory())
            assert max(sizes[rounds // 2 :]) <= max(sizes[: rounds // 2]) + 50, sizes
            assert (shown.restarts, heard.restarts) == (0, 0)
            assert receiving(bob)[0] is session
            assert read_number(shown.read(timeout=20)) >= 0
        if rounds > 100:
            assert held[-1] - held[100] < 12, held[::50]


def receiving(one: MeteredPeer) -> tuple[Any, Any]:
    """Return the session in which a peer receives, and what tells which tracks."""
    link: Any = one._link
    receiver = link.media._receiver
    return receiver.session, lambda: receiver.received
