"""Read the tracks of a peer while descriptions change them."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator

import pytest
from aiortc import RTCPeerConnection, RTCRtpTransceiver
from aiortc.rtcrtpreceiver import RemoteStreamTrack

from metered_sync.engine.rooms.received_tracks import ReceivedTracks
from metered_sync.engine.webrtc.aiortc_private.negotiation import set_mid
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.engine.webrtc.sdp_repair import Repaired
from metered_sync.wire.sdp import Description, Section
from metered_sync.wire.timings import DEFAULT_TIMINGS

COUNT = 6
ROUNDS = 300


@pytest.fixture(autouse=True)
def _frequent_turns() -> Iterator[None]:
    """Let other threads have their turn all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def described(first: int) -> Repaired:
    """Return a description of the same tracks, the first of them in another section each time."""
    sections = tuple(
        Section("audio", str(n), msid=("s", f"track {(first + n) % COUNT}")) for n in range(COUNT)
    )
    description = Description(sections)
    return Repaired(description, description, frozenset())


def receiving(pc: RTCPeerConnection) -> list[RTCRtpTransceiver]:
    """Return transceivers in which tracks arrive, as a description makes them."""
    transceivers = [pc.addTransceiver("audio") for _ in range(COUNT)]
    for mid, transceiver in enumerate(transceivers):
        set_mid(transceiver, str(mid))
        transceiver.receiver._track = RemoteStreamTrack("audio", str(mid))
    return transceivers


def test_another_thread_sees_all_tracks_while_they_move_to_other_sections() -> None:
    """Each of them once: none is away on its way from one section to the next."""
    seen: set[tuple[str, ...]] = set()
    problems: list[BaseException] = []
    looked, over = threading.Event(), threading.Event()

    def none(*_: object) -> None:
        """Nobody is told."""

    def look(received: ReceivedTracks) -> None:
        try:
            while not over.is_set():
                seen.add(tuple(sorted(track.id for track in received.tracks)))
                looked.set()
        except RuntimeError as error:
            problems.append(error)

    async def run() -> None:
        pc = RTCPeerConnection()
        transceivers = receiving(pc)
        received = ReceivedTracks(none, none, none, DEFAULT_TIMINGS, 1)
        received.update(described(0), transceivers)
        looking = threading.Thread(target=look, args=(received,))
        looking.start()
        try:
            assert await asyncio.to_thread(looked.wait, 20)
            for round_ in range(1, ROUNDS):
                if round_ % 3 == 0:
                    received.carry()
                received.update(described(round_), transceivers)
                await asyncio.sleep(0)  # (tasks of the sections before end)
        finally:
            over.set()
            await asyncio.to_thread(looking.join)
            received.close()
            await pc.close()

    asyncio.run(run())
    assert not problems
    assert seen == {tuple(f"track {n}" for n in range(COUNT))}


def test_a_track_that_has_ended_here_is_not_among_them() -> None:
    ended: list[IncomingTrack] = []

    async def run() -> None:
        pc = RTCPeerConnection()
        transceivers = receiving(pc)
        received = ReceivedTracks(lambda *_: None, lambda _: None, ended.append, DEFAULT_TIMINGS, 1)
        received.update(described(0), transceivers)
        first, *others = received.tracks
        first.end()
        assert list(received.tracks) == others
        received.carry()  # begins a new generation, on which they are looked for
        assert list(received.tracks) == others
        received.close()
        assert received.tracks == ()
        assert ended == [first, *others]
        await pc.close()

    asyncio.run(run())
