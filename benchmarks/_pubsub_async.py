"""The published async client's part of ``pubsub.py``; runs in that client's own environment.

Usage: ``python _pubsub_async.py URL ROUNDS``; prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from typing import Any

from metered_realtime import Message, SignallingClient

DATA = {"sensor": 17, "celsius": [20.5, 21.25, 22.125], "note": "x" * 150}


async def main(url: str, scale: float) -> dict[str, Any]:
    """Measure."""
    client = SignallingClient(api_key="pk_live_bench", url=url)
    await client.connect()
    times = []
    until, cpu = time.perf_counter() + 0.5 * scale, time.process_time()
    while (start := time.perf_counter()) < until:
        await client.publish("bench", DATA)
        times.append(time.perf_counter() - start)
    result: dict[str, Any] = {"single": times}
    result["single_cpu"] = (time.process_time() - cpu) / len(times)

    windows = int(80 * scale)
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(windows):
        await asyncio.gather(*(client.publish("bench", DATA) for _ in range(64)))
    result["pipelined"] = windows * 64 / (time.perf_counter() - start)
    result["pipelined_cpu"] = (time.process_time() - cpu) / (windows * 64)

    count, wanted, done = 0, int(200 * scale) * 100, asyncio.Event()

    def received(_: Message) -> None:
        nonlocal count
        count += 1
        if count == wanted:
            done.set()

    client.on(Message, received)
    await client.subscribe("flood")
    start, cpu = time.perf_counter(), time.process_time()
    await client.publish("flood", wanted)
    await done.wait()
    result["received"] = wanted / (time.perf_counter() - start)
    result["received_cpu"] = (time.process_time() - cpu) / wanted

    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            for _ in range(1000):
                pass

    busy = threading.Thread(target=work)
    busy.start()
    times = []
    until = time.perf_counter() + 1.5 * scale
    while (start := time.perf_counter()) < until:
        await client.publish("bench", DATA)
        times.append(time.perf_counter() - start)
    stop.set()
    busy.join()
    result["busy"] = times
    await client.close()
    return result


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], float(sys.argv[2])))))
