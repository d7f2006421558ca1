"""One member of a room that receives pictures, with the published async client: ``media.py``."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from _media_figures import Figures
from metered_realtime import MeteredPeer, PeerJoined, Track, iter_frames

url, token, how, seconds, settle = sys.argv[1:]
figures = Figures(how, float(seconds), float(settle))
tasks: list[Any] = []
there = asyncio.Event()


async def provide() -> str:
    return token


async def read(track: Any) -> None:
    async for frame in iter_frames(track):
        figures.take(frame)
        there.set()


async def main() -> None:
    peer = MeteredPeer(url=url, token_provider=provide)

    def on_track(event: Track) -> None:
        if how == "absent":
            tasks.append(event.track)
            there.set()
        else:
            tasks.append(asyncio.ensure_future(read(event.track)))

    peer.on(PeerJoined, lambda event: event.peer.on(Track, on_track))
    await peer.join("bench")
    await there.wait()
    for delay in figures.run():
        await asyncio.sleep(delay)
    await peer.close()


asyncio.run(main())
