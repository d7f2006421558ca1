"""How late the error of a passed deadline comes, and what crossing the threads costs.

The peer is the usual bridge: ``asyncio.run_coroutine_threadsafe(...).result(timeout)``, which
leaves the coroutine running when it gives up. Ours cancels it, and waits a moment for that.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Callable

from metered_sync import SignallingClient
from metered_sync.bridge import engines
from metered_sync.bridge.deadline import Deadline
from metered_sync.local import LocalCloud

ROUNDS = 60
TIMEOUT = 0.05


def lateness(call: Callable[[], object]) -> list[float]:
    """Return by how many milliseconds each expiry was late."""
    late = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        try:
            call()
        except TimeoutError:
            pass
        late.append((time.perf_counter() - start - TIMEOUT) * 1000)
    return late


def round_trips(call: Callable[[], object]) -> list[float]:
    """Return the microseconds of each call."""
    times = []
    for _ in range(3000):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e6)
    return times


def show(name: str, values: list[float], peer: list[float], unit: str) -> None:
    """Print a row."""
    median, worst = statistics.median(values), max(values)
    ratio = median / statistics.median(peer)
    print(f"{name:<44}{median:>9.2f} {unit}{worst:>11.2f} {unit}{ratio:>9.2f}")


def main() -> None:
    """Measure."""
    bare = asyncio.new_event_loop()
    threading.Thread(target=bare.run_forever, daemon=True).start()
    engine = engines.current()

    async def forever() -> None:
        await asyncio.sleep(60)

    async def nothing() -> None:
        pass

    def naive_wait() -> None:
        future = asyncio.run_coroutine_threadsafe(forever(), bare)
        try:
            future.result(TIMEOUT)
        except BaseException as error:
            future.cancel()
            raise TimeoutError from error

    print(f"{'':<44}{'median':>12}{'worst':>14}{'ratio':>9}")
    peer = lateness(naive_wait)
    show("late by, bare Future", peer, peer, "ms")
    ours = lateness(lambda: engine.call(forever, deadline=Deadline(TIMEOUT), what="it"))
    show("late by, structured call", ours, peer, "ms")
    with LocalCloud() as cloud, SignallingClient(**cloud.client_options()) as client:
        inbox = client.subscribe("x")
        show("late by, reader.get()", lateness(lambda: inbox.get(timeout=TIMEOUT)), peer, "ms")
    print("goal: below 50 ms\n")
    peer = round_trips(lambda: asyncio.run_coroutine_threadsafe(nothing(), bare).result(5))
    show("a call and back, bare Future", peer, peer, "µs")
    ours = round_trips(lambda: engine.call(nothing, deadline=Deadline(5), what="it"))
    show("a call and back, structured call", ours, peer, "µs")
    bare.call_soon_threadsafe(bare.stop)


if __name__ == "__main__":
    main()
