"""Rooms with more than two: everybody is connected to everybody."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from metered_sync import Data, DataChannel, DataChannelOpened, MeteredPeer, PeerLeft, RemoteTrack
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource, dominant_frequency, read_number
from tests.conftest import wait_until

PATIENCE = 40.0
NAMES = ("ann", "bob", "cis", "dan", "eve", "fay", "gus", "hal")


@pytest.fixture
def gather(cloud: LocalCloud) -> Iterator[Callable[[int], list[MeteredPeer]]]:
    """Makes so many peers."""
    with ExitStack() as stack:

        def make(count: int) -> list[MeteredPeer]:
            return [
                stack.enter_context(MeteredPeer(**cloud.token_options(name), ice_servers=[]))
                for name in NAMES[:count]
            ]

        yield make


def meet(peers: list[MeteredPeer], room: str) -> None:
    for peer in peers:
        peer.join(room)
    for peer in peers:
        wait_until(lambda peer=peer: len(peer.remote_peers) == len(peers) - 1, PATIENCE)


def goes_on(track: RemoteTrack) -> NDArray[Any]:
    """Check that three pictures of a pattern come, in order; return the last one.

    One may come again: who asks for a key frame gets the newest, if no other follows soon.
    """
    numbers: list[int] = []
    until = time.monotonic() + PATIENCE
    with track.frames() as frames:
        while len(set(numbers)) < 3:
            assert time.monotonic() < until, f"it does not go on after {numbers}"
            image = frames.get(timeout=PATIENCE).to_ndarray(format="bgr24")
            number = read_number(image)
            if number is not None:
                numbers.append(number)
    assert numbers == sorted(numbers)
    return image


def test_three_see_each_other(gather: Callable[[int], list[MeteredPeer]]) -> None:
    peers = gather(3)
    with ExitStack() as stack:
        widths = dict(zip(NAMES, (160, 192, 224), strict=False))
        for peer, width in zip(peers, widths.values(), strict=True):
            source = stack.enter_context(PatternSource(width, 120, fps=5))
            peer.add_track(source.video)
        meet(peers, "three")
        for peer in peers:
            for there in peer.remote_peers:
                track = there.track("video", timeout=PATIENCE)
                assert goes_on(track).shape == (120, widths[there.id], 3)
        # One leaves; the others go on seeing each other.
        one, two, third = peers
        with one.events(PeerLeft) as leaves:
            third.close()
            assert leaves.get(timeout=PATIENCE).peer.id == "cis"
        for a, b in ((one, "bob"), (two, "ann")):
            goes_on(a.wait_for_peer(b).track("video"))


@pytest.mark.parametrize("count", [pytest.param(5, marks=pytest.mark.slow), 8])
def test_many_hear_one_and_talk_to_all(
    gather: Callable[[int], list[MeteredPeer]], count: int
) -> None:
    peers = gather(count)
    speaker, listeners = peers[0], peers[1:]
    with ToneSource(440) as tone, ExitStack() as stack:
        speaker.add_track(tone.audio)
        meet(peers, "many")
        inboxes = {
            (peer.peer_id, there.id): stack.enter_context(there.events(DataChannelOpened))
            for peer in peers
            for there in peer.remote_peers
        }
        channels: dict[tuple[str | None, str], DataChannel] = {}
        for peer in peers:
            for there in peer.remote_peers:
                if str(peer.peer_id) < there.id:
                    channels[peer.peer_id, there.id] = stack.enter_context(
                        there.create_data_channel("talk", wait=False)
                    )
        until = time.monotonic() + PATIENCE
        for (here, there_id), channel in channels.items():
            channel.wait_open(timeout=until - time.monotonic())
            channel.send(f"{here} to {there_id}")
        for (here, there_id), channel in channels.items():
            other = inboxes[there_id, str(here)].get(timeout=until - time.monotonic()).channel
            assert other.get(timeout=until - time.monotonic()) == f"{here} to {there_id}"
            other.send("heard")
            assert channel.get(timeout=until - time.monotonic()) == "heard"
        for peer in listeners:
            track = peer.wait_for_peer("ann").track("audio", timeout=PATIENCE)
            with track.frames(mode="fifo", maxsize=200) as frames:
                heard = [frames.get(timeout=PATIENCE) for _ in range(30)][10:]
            samples = np.concatenate([frame.to_ndarray().reshape(-1)[::2] for frame in heard])
            assert dominant_frequency(samples, 48000) == pytest.approx(440, abs=30)
        with ExitStack() as hearing:
            everyone = [hearing.enter_context(peer.events(Data)) for peer in listeners]
            speaker.send("to all")
            assert [events.get(timeout=PATIENCE).data for events in everyone] == [
                "to all" for _ in listeners
            ]
