"""Send a film with the published async client, decoded and encoded: for ``camera.py``."""

from __future__ import annotations

import asyncio
import json
import sys
import time

from aiortc.contrib.media import MediaPlayer
from metered_realtime import MeteredPeer

url, token, film, seconds = sys.argv[1:]


async def provide() -> str:
    return token


async def main() -> None:
    peer = MeteredPeer(url=url, token_provider=provide)
    await peer.join("camera")
    player = MediaPlayer(film, loop=True)
    peer.add_track(player.video)
    print(flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    cpu, began = time.process_time(), time.monotonic()
    await asyncio.sleep(float(seconds))
    print(json.dumps((time.process_time() - cpu) / (time.monotonic() - began)), flush=True)
    player.video.stop()
    player.audio.stop()
    await peer.close()


asyncio.run(main())
