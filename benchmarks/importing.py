"""Measure what importing this library takes beyond what asyncio takes by itself.

Each figure is the median over fresh interpreters; the ratio is to `import asyncio`. The pytest
plug-in is loaded after pytest.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

ROUNDS = 15
PLUGIN = "metered_sync.testing.pytest_plugin"
MODULES = (
    "asyncio",
    "requests",
    "websockets.asyncio.client",
    "metered_sync",
    "metered_sync.client",
    PLUGIN,
    "aiortc",
)


def measure(module: str) -> float:
    """Return the milliseconds that importing a module takes after asyncio (or at all)."""
    before = "" if module == "asyncio" else "import asyncio; "
    if module == PLUGIN:
        before = "import asyncio, pytest; "
    code = (
        f"import time; {before}start = time.perf_counter(); import {module}; "
        "print((time.perf_counter() - start) * 1000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Measure in turn, so that a drifting machine hurts all alike."""
    times: dict[str, list[float]] = {module: [] for module in MODULES}
    for module in MODULES:
        measure(module)  # fills the disk's cache
    for _ in range(ROUNDS):
        for module in MODULES:
            times[module].append(measure(module))
    base = statistics.median(times["asyncio"])
    print(f"{'import':<38}{'median':>10}{'ratio to asyncio':>20}")
    for module in MODULES:
        median = statistics.median(times[module])
        print(f"{module:<38}{median:>7.1f} ms{median / base:>20.2f}")
    print(
        "\ngoal: metered_sync.client below 50 ms on top of asyncio, metered_sync below 5, "
        "the pytest plug-in below 30 on top of pytest"
    )


if __name__ == "__main__":
    main()
