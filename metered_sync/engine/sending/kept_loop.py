"""Keep the event loop for tracks of other makers that are read on it.

A track of aiortc's may begin something of its own where it is read first - a queue, a task, a
thread that feeds them (``MediaPlayer`` does) - and is of no use on another loop.
"""

from __future__ import annotations

import functools
from typing import Any

from aiortc.mediastreams import MediaStreamTrack

from metered_sync.bridge.loop import engine_here
from metered_sync.engine.sending.fed_track import FedTrack

__all__ = ["keep_loop", "receive"]


def keep_loop(track: MediaStreamTrack) -> None:
    """Keep the loop that runs here until a track has ended or is collected.

    Tracks of our own sources can be read on any loop.
    """
    engine = engine_here()
    if engine is None or track.readyState == "ended" or isinstance(track, FedTrack):
        return
    if engine.hold(track):
        track.once("ended", functools.partial(engine.release, id(track)))


async def receive(track: MediaStreamTrack) -> Any:
    """Return a track's next frame; keep the loop for the frames after it."""
    keep_loop(track)
    return await track.recv()
