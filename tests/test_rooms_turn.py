"""Rooms through a TURN server: a real coturn, on loopback."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from metered_sync import MeteredPeer
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, read_number
from metered_sync.wire.timings import DEFAULT
from tests.conftest import need, wait_until

PATIENCE = 40.0
SECRET = "shared"


def free_port() -> int:
    """Return a port that is free for UDP and TCP."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port: int = tcp.getsockname()[1]
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def turn_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a coturn, over UDP and TCP, that takes the cloud's credentials."""
    program = need("turnserver", "coturn")
    folder = tmp_path_factory.mktemp("coturn")
    port = free_port()
    options = [
        *("--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", f"--listening-port={port}"),
        *("--use-auth-secret", f"--static-auth-secret={SECRET}", "--realm=local", "--no-cli"),
        *("--no-tls", "--no-dtls", "--allow-loopback-peers", "--log-file=stdout"),
        *(f"--pidfile={folder / 'pid'}", f"--userdb={folder / 'db'}"),
    ]
    with subprocess.Popen([program, *options], stdout=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: listens(port), 20, "coturn listens")
            yield port
        finally:
            server.terminate()


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


def test_the_one_server_that_works_is_found(turn_port: int) -> None:
    dead = [f"turn:127.0.0.1:{free_port()}?transport=udp" for _ in range(2)]
    url = f"turn:127.0.0.1:{turn_port}?transport=udp"
    timings = dataclasses.replace(DEFAULT, media_connect=6.0, ladder=(0.0, 0.2, 0.5, 1.0, 1.0, 1.0))
    with LocalCloud(ice_servers=[*dead, url], turn_secret=SECRET) as cloud:
        ann, bob = two(cloud, gather_timeout=1.0, _timings=timings)
        with ann, bob:
            see(ann, bob)
            assert ann.wait_for_peer("bob").stats()["generations"] > 1
