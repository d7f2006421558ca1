"""One member of a room that receives pictures, with this library; see ``media.py``."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from _media_figures import Figures

from metered_sync import MeteredPeer

url, token, how, seconds, settle = sys.argv[1:]
figures = Figures(how, float(seconds), float(settle))


def read(frames: Any) -> None:
    for frame in frames:
        figures.take(frame)


with MeteredPeer(url=url, token_provider=lambda: token, ice_servers=[]) as peer:
    peer.join("bench")
    track = peer.wait_for_peer(timeout=30).track("video", timeout=30)
    if how != "absent":
        frames = track.frames(mode="fifo" if how == "every" else "latest")
        frames.get(timeout=30)
        threading.Thread(target=read, args=(frames,), daemon=True).start()
    for delay in figures.run():
        time.sleep(delay)
