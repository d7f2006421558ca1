"""Metadata of a browser's tracks, which Chromium often announces under other ids than their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from metered_sync import Data, MediaStream, RemotePeer
from metered_sync.testing import PatternSource, ToneSource
from tests.conftest import wait_until
from tests.scenarios.interop.test_rooms_javascript import (
    IMPOLITE,
    PATIENCE,
    POLITE,
    THEM,
    Room,
    enter,
    pytestmark,
)

__all__ = ["enter", "pytestmark"]


def known(there: RemotePeer, stream: str) -> list[Any]:
    """Return the metadata of a stream's two tracks, once both are there."""
    tracks = [track for track in there.tracks if track.stream_id == stream]
    return [track.metadata for track in tracks] if len(tracks) == 2 else []


@pytest.mark.parametrize("us", [POLITE, IMPOLITE])
def test_it_is_found_whatever_the_ids(enter: Callable[[str], Room], us: str) -> None:
    room = enter(us)
    with PatternSource(160, 120, fps=10) as one, ToneSource(300) as tone:
        room.us.add_stream(MediaStream([one.video, tone.audio], id="ours"))
        there = room.join()
        room.watches("ours")
        camera, drawing = room.make("camera"), room.make("drawing", 200, 150, 880)
        room.make("other", 240, 150, 500)

        def is_(**metadata: int) -> None:
            streams = {"camera": camera, "drawing": drawing}
            for name, number in metadata.items():
                expected = [{"n": number}] * 2
                wait_until(lambda: known(there, streams[name]) == expected, PATIENCE, name)  # noqa: B023

        room.add("camera", {"n": 1})  # takes the sections that we have made
        is_(camera=1)
        ids = room.tab.run("return sent.get('camera').getTracks().map(track => track.id)")
        assert {track.id for track in there.tracks}.isdisjoint(ids)
        room.add("drawing", {"n": 2})
        is_(camera=1, drawing=2)
        room.tab.run("peer.removeStream(sent.get('drawing'))")
        wait_until(lambda: len(there.tracks) == 2, PATIENCE)
        room.add("drawing", {"n": 3})  # under ids of Chromium's again
        is_(camera=1, drawing=3)
        with room.us.events(Data) as said:
            room.tab.run(
                "for (const kind of ['video', 'audio'])"
                " await peer.replaceTrack(track('camera', kind), track('other', kind));"
                "await peer.send('replaced')"
            )
            said.get(timeout=PATIENCE)
        is_(camera=1, drawing=3)
        track = there.track("video", stream_id=camera)
        track.read(timeout=PATIENCE)
        restarts = track.restarts
        room.cloud.faults.drop_connections(THEM)
        wait_until(lambda: track.restarts > restarts, PATIENCE)
        there.wait_connected(timeout=PATIENCE)
        is_(camera=1, drawing=3)
