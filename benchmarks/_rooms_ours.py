"""One member of a room that receives video, with this library; see ``rooms.py``."""

from __future__ import annotations

import json
import threading
import time

from _rooms_pause import Watch, seconds, times, token, url

from metered_sync import MeteredPeer

with MeteredPeer(url=url, token_provider=lambda: token, ice_servers=[]) as peer:
    started = time.monotonic()
    peer.join("bench")
    frames = peer.wait_for_peer(timeout=30).track("video", timeout=30).frames()
    frames.get(timeout=30)
    times.append(time.monotonic())

    def read() -> None:
        for _ in frames:
            times.append(time.monotonic())

    threading.Thread(target=read, daemon=True).start()
    time.sleep(1)
    cpu, count = time.process_time(), len(times)
    time.sleep(seconds)
    cpu, count = time.process_time() - cpu, len(times) - count
    cpu, rate = 1000 * cpu / max(count, 1), count / seconds
    print("ready", flush=True)
    watch = Watch()
    while not watch.over():
        time.sleep(0.05)
    ended = time.monotonic()
figures = {"first": times[0] - started, "cpu": cpu, "rate": rate, "times": times, "ended": ended}
print(json.dumps(figures))
