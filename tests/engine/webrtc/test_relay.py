"""Test how a received track is sent on: which of its frames, and when they are decoded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiortc.mediastreams import MediaStreamError

from metered_sync.engine.webrtc import relay
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.engine.webrtc.relay import RelayedTrack
from tests.support.far_end import picture
from tests.support.local_tracks import run


async def begun(track: IncomingTrack, relayed: RelayedTrack) -> asyncio.Task[Any]:
    """Ask a relay for a frame, and return once it waits for one."""
    asking = asyncio.ensure_future(relayed.recv())
    await asyncio.sleep(0)
    assert len(track.readers) == 1
    return asking


def test_frames_are_passed_on_until_the_track_ends() -> None:
    async def test() -> None:
        track = IncomingTrack("video", id="far")
        relayed = RelayedTrack(track)
        assert (relayed.kind, track.readers) == ("video", [])  # nothing is decoded for it yet
        asking = await begun(track, relayed)
        frames = [picture(number) for number in range(4)]
        track._spread(frames[0])
        assert await asking is frames[0]
        for frame in frames[1:]:
            track._spread(frame)
        track.end()
        assert relayed.readyState == "ended"
        assert [await relayed.recv(), await relayed.recv()] == frames[2:]  # the newest two
        told: list[int] = []
        relayed.on("ended", lambda: told.append(1))
        for _ in range(2):
            with pytest.raises(MediaStreamError):
                await relayed.recv()
        assert told == [1]

    run(test())


def test_the_end_wakes_who_waits() -> None:
    async def test() -> None:
        track = IncomingTrack("audio", id="far")
        asking = await begun(track, RelayedTrack(track))
        track.end(ValueError("gone"))
        with pytest.raises(MediaStreamError):
            await asking
        with pytest.raises(MediaStreamError):
            await RelayedTrack(track).recv()

    run(test())


def test_a_relay_that_nobody_reads_takes_no_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "UNREAD_RELAY", 0.05)

    async def test() -> None:
        track = IncomingTrack("video", id="far")
        relayed = RelayedTrack(track)
        asking = await begun(track, relayed)
        track._spread(picture(0))
        await asking
        track._spread(picture(1))
        assert len(track.readers) == 1
        while track.readers:
            await asyncio.sleep(0.01)
            track._spread(picture(2))
        asking = await begun(track, relayed)  # and it goes on with what is new
        newest = picture(3)
        track._spread(newest)
        assert await asking is newest

    run(test())


def test_a_relay_that_is_forgotten_takes_no_frames() -> None:
    async def test() -> None:
        track = IncomingTrack("video", id="far")
        relayed = RelayedTrack(track)
        asking = await begun(track, relayed)
        asking.cancel()
        await asyncio.wait([asking])
        del relayed, asking
        assert not track.readers

    run(test())
