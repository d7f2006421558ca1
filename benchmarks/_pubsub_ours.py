"""Our part of ``pubsub.py``, in a process of its own.

Usage: ``python _pubsub_ours.py URL ROUNDS``; prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

from metered_sync import SignallingClient

DATA = {"sensor": 17, "celsius": [20.5, 21.25, 22.125], "note": "x" * 150}


def timed(client: SignallingClient, seconds: float) -> list[float]:
    """Return the seconds of each publish, acknowledgement included."""
    times = []
    until = time.perf_counter() + seconds
    while (start := time.perf_counter()) < until:
        client.publish("bench", DATA)
        times.append(time.perf_counter() - start)
    return times


def main(url: str, scale: float) -> dict[str, Any]:
    """Measure."""
    with SignallingClient(api_key="pk_live_bench", url=url, rate_limit=None) as client:
        cpu = time.process_time()
        result: dict[str, Any] = {"single": timed(client, 0.5 * scale)}
        result["single_cpu"] = (time.process_time() - cpu) / len(result["single"])

        windows = int(80 * scale)
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(windows):
            for _ in range(64):
                client.publish_nowait("bench", DATA)
            client.flush()
        result["pipelined"] = windows * 64 / (time.perf_counter() - start)
        result["pipelined_cpu"] = (time.process_time() - cpu) / (windows * 64)

        wanted = int(200 * scale) * 100
        inbox = client.subscribe("flood", maxsize=wanted)
        start, cpu = time.perf_counter(), time.process_time()
        client.publish("flood", wanted)
        for count, _ in enumerate(inbox, 1):
            if count == wanted:
                break
        result["received"] = wanted / (time.perf_counter() - start)
        result["received_cpu"] = (time.process_time() - cpu) / wanted

        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                for _ in range(1000):
                    pass

        busy = threading.Thread(target=work)
        busy.start()
        result["busy"] = timed(client, 1.5 * scale)
        stop.set()
        busy.join()
        return result


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], float(sys.argv[2]))))
