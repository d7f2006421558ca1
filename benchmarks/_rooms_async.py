"""One member of a room that receives video, with the published async client; see ``rooms.py``."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from typing import Any

from _rooms_pause import Watch, seconds, times, token, url
from aiortc.mediastreams import MediaStreamError
from metered_realtime import MeteredPeer, PeerJoined, Track

tasks: set[Any] = set()


async def provide() -> str:
    return token


async def read(track: Any) -> None:
    with suppress(MediaStreamError):  # a drop ends it; another one follows
        while True:
            await track.recv()
            times.append(time.monotonic())


async def main() -> None:
    peer = MeteredPeer(url=url, token_provider=provide)

    def on_track(event: Track) -> None:
        tasks.add(asyncio.ensure_future(read(event.track)))

    peer.on(PeerJoined, lambda event: event.peer.on(Track, on_track))
    started = time.monotonic()
    await peer.join("bench")
    while not times:
        await asyncio.sleep(0.002)
    await asyncio.sleep(1)
    cpu, count = time.process_time(), len(times)
    await asyncio.sleep(seconds)
    cpu, count = time.process_time() - cpu, len(times) - count
    cpu, rate = 1000 * cpu / max(count, 1), count / seconds
    print("ready", flush=True)
    watch = await asyncio.get_running_loop().run_in_executor(None, Watch)
    while not watch.over():
        await asyncio.sleep(0.05)
    ended = time.monotonic()
    figures = {"first": times[0] - started, "cpu": cpu, "rate": rate, "times": times}
    print(json.dumps({**figures, "ended": ended}), flush=True)
    await peer.close()


asyncio.run(main())
