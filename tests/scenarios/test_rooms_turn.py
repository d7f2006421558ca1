"""Rooms through a TURN server, a real coturn on loopback, and through a lossy path to it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import pytest

from metered_sync import ConnectionReset, DataChannelOpened, MeteredPeer, PeerLeft, TurnApi
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, read_number
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.conftest import wait_until
from tests.support.coturn import SECRET, bad_path, coturn, free_port

PATIENCE = 40.0


@pytest.fixture(scope="module")
def turn_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a coturn, over UDP and TCP, that takes the cloud's credentials."""
    with coturn(tmp_path_factory.mktemp("coturn")) as port:
        yield port


def two(cloud: LocalCloud, **options: Any) -> tuple[MeteredPeer, MeteredPeer]:
    ann, bob = (
        MeteredPeer(**cloud.token_options(name), relay_only=True, **options)
        for name in ("ann", "bob")
    )
    return ann, bob


def see(ann: MeteredPeer, bob: MeteredPeer) -> None:
    """Check that pictures of one reach the other, through relays at both ends."""
    with PatternSource(160, 120, fps=10) as source:
        ann.add_track(source.video)
        ann.join("room")
        bob.join("room")
        there = bob.wait_for_peer("ann", timeout=PATIENCE)
        track = there.track("video", timeout=PATIENCE)
        with track.frames() as frames:
            numbers = [
                read_number(frames.get(timeout=PATIENCE).to_ndarray(format="bgr24"))
                for _ in range(8)
            ]
        seen = [number for number in numbers if number is not None]
        assert len(seen) >= 4
        assert seen == sorted(set(seen))
        for remote in (there, ann.wait_for_peer("bob")):
            assert remote.stats()["paths"] == [{"local": "relay", "remote": "relay"}]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_all_through_relays(turn_port: int, transport: str) -> None:
    url = f"turn:127.0.0.1:{turn_port}?transport={transport}"
    with LocalCloud(ice_servers=[url], turn_secret=SECRET) as cloud:
        ann, bob = two(cloud)
        with ann, bob:
            see(ann, bob)


def test_all_through_a_relay_to_the_sfu(turn_port: int) -> None:
    url = f"turn:127.0.0.1:{turn_port}?transport=udp"
    with LocalCloud(ice_servers=[url], turn_secret=SECRET) as cloud:
        with TurnApi(**cloud.turn_options()) as turn:
            servers = turn.ice_servers()
        with (
            MeteredPeer(**cloud.room_options("ann"), relay_only=True, ice_servers=servers) as ann,
            MeteredPeer(**cloud.room_options("bob"), ice_servers=[]) as bob,
            PatternSource(160, 120, fps=10) as source,
        ):
            ann.add_track(source.video)
            ann.join("room")
            bob.join("room")
            there = bob.wait_for_peer("ann", timeout=PATIENCE)
            assert there.track("video", timeout=PATIENCE).read(timeout=PATIENCE).any()
            paths = ann.wait_for_peer("bob", timeout=PATIENCE).stats()["paths"]
            assert {path["local"] for path in paths} == {"relay"}


def test_the_one_server_that_works_is_found(turn_port: int) -> None:
    dead = [f"turn:127.0.0.1:{free_port()}?transport=udp" for _ in range(2)]
    url = f"turn:127.0.0.1:{turn_port}?transport=udp"
    timings = dataclasses.replace(
        DEFAULT_TIMINGS, media_connect=6.0, ladder=(0.0, 0.2, 0.5, 1.0, 1.0, 1.0)
    )
    with LocalCloud(ice_servers=[*dead, url], turn_secret=SECRET) as cloud:
        ann, bob = two(cloud, gather_timeout=1.0, _timings=timings)
        with ann, bob:
            see(ann, bob)
            assert ann.wait_for_peer("bob").stats()["generations"] > 1


def test_a_lossy_and_slow_path(turn_port: int) -> None:
    """What one sends passes the path twice: 5 % are lost, the rest takes 100 ms more."""
    with (
        bad_path(turn_port, loss=0.025, delay=0.05) as path,
        LocalCloud(
            ice_servers=[f"turn:127.0.0.1:{path.port}?transport=udp"], turn_secret=SECRET
        ) as cloud,
    ):
        ann, bob = two(cloud)
        with ann, bob, PatternSource(160, 120, fps=15) as source:
            ann.add_track(source.video)
            ann.join("room")
            bob.join("room")
            there = bob.wait_for_peer("ann", timeout=PATIENCE)
            track = there.track("video", timeout=PATIENCE)
            with (
                track.frames(mode="fifo", maxsize=1000) as frames,
                ann.wait_for_peer("bob").events(DataChannelOpened) as opened,
                there.create_data_channel("lossy", timeout=PATIENCE) as channel,
            ):
                frames.get(timeout=PATIENCE)
                until = time.monotonic() + 10
                for number in range(200):
                    channel.send(f"{number} {'x' * 2000}")
                theirs = opened.get(timeout=PATIENCE).channel
                got = [theirs.get(timeout=PATIENCE).split()[0] for _ in range(200)]
                assert got == [f"{number}" for number in range(200)]
                numbers = []
                while time.monotonic() < until or len(frames):  # what came meanwhile, too
                    image = frames.get(timeout=PATIENCE).to_ndarray(format="bgr24")
                    if (number := read_number(image)) is not None:
                        numbers.append(number)
                assert numbers == sorted(set(numbers))
                assert len(numbers) >= 0.3 * (numbers[-1] - numbers[0])
                assert len(numbers) >= 0.3 * 15 * 10
            assert there.stats()["generations"] == 1


@pytest.mark.parametrize("signalling", ["lives", "dies with it"])
def test_a_path_that_dies(turn_port: int, signalling: str) -> None:
    """As behind a firewall that forgets; or where the machine's network is another one."""
    quick: dict[str, Any] = {
        "_timings": dataclasses.replace(DEFAULT_TIMINGS, path_silence=0.4, path_probe=0.4)
    }
    with (
        bad_path(turn_port) as path,
        LocalCloud(
            ice_servers=[f"turn:127.0.0.1:{path.port}?transport=udp"], turn_secret=SECRET
        ) as cloud,
        PatternSource(160, 120, fps=10) as source,
        MeteredPeer(**cloud.token_options("ann"), relay_only=True, **quick) as ann,
        MeteredPeer(**cloud.token_options("bob"), ice_servers=[], **quick) as bob,
    ):
        ann.add_track(source.video)
        ann.join("room")
        bob.join("room")
        there = bob.wait_for_peer("ann", timeout=PATIENCE)
        track = there.track("video", timeout=PATIENCE)
        with track.frames() as frames, bob.events(PeerLeft) as left:
            frames.get(timeout=PATIENCE)
            with there.events(ConnectionReset) as resets:
                path.cut("forth", "back")
                if signalling != "lives":
                    cloud.faults.drop_connections("ann")
                resets.get(timeout=PATIENCE)
            wait_until(lambda: track.restarts >= 1, PATIENCE)
            frames.get(timeout=PATIENCE)  # (perhaps from before)
            frames.get(timeout=PATIENCE)
            assert there.track("video") is track
            assert (bob.state, len(left)) == ("joined", signalling != "lives")
