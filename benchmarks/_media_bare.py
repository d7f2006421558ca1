"""A bare peer connection of aiortc's that receives pictures; see ``media.py``.

Descriptions are lines of JSON: the offer comes by standard input, the answer goes out.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from _media_figures import Figures
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

how, seconds, settle = sys.argv[1:]
figures = Figures(how, float(seconds), float(settle))


async def read(track: Any, there: asyncio.Event) -> None:
    while True:
        figures.take(await track.recv())
        there.set()


async def main() -> None:
    pc = RTCPeerConnection(RTCConfiguration([]))
    there = asyncio.Event()
    await pc.setRemoteDescription(RTCSessionDescription(**json.loads(sys.stdin.readline())))
    await pc.setLocalDescription(await pc.createAnswer())
    print(json.dumps({"sdp": pc.localDescription.sdp, "type": "answer"}), flush=True)
    track = pc.getReceivers()[0].track
    task = None if how == "absent" else asyncio.ensure_future(read(track, there))
    if task is not None:
        await there.wait()
    for delay in figures.run():
        await asyncio.sleep(delay)
    if task is not None:
        task.cancel()
    await pc.close()


asyncio.run(main())
