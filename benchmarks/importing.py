"""Measure what importing this library takes beyond what asyncio takes by itself.

Each figure is the CPU time of an import in a fresh interpreter that finds compiled modules
(``.pyc``), as those of an installed package: the least and the median of runs in turn; the ratio
is to `import asyncio`. The pytest plug-in is loaded after pytest. The last two lines are of whole
processes, the interpreter's own start included.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile

ROUNDS = 20
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
PROCESSES = {
    "python -c pass": ("-c", "pass"),
    "metered-sync --help": ("-m", "metered_sync", "--help"),
}


def measure_import(module: str, env: dict[str, str]) -> float:
    """Return the milliseconds of CPU that importing a module takes after asyncio (or at all)."""
    before = "" if module == "asyncio" else "import asyncio; "
    if module == PLUGIN:
        before = "import asyncio, pytest; "
    code = (
        f"import time; {before}start = time.process_time(); import {module}; "
        "print((time.process_time() - start) * 1000)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return float(done.stdout)


def measure_process(arguments: tuple[str, ...], env: dict[str, str]) -> float:
    """Return the milliseconds of CPU that a process of Python takes, from its start to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


def main() -> None:
    """Measure in turn, so that a drifting machine hurts all alike."""
    times: dict[str, list[float]] = {name: [] for name in (*MODULES, *PROCESSES)}
    with tempfile.TemporaryDirectory() as compiled:
        env = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        for number in range(ROUNDS + 1):
            for name in times:
                if name in PROCESSES:
                    took = measure_process(PROCESSES[name], env)
                else:
                    took = measure_import(name, env)
                if number:  # the first round compiles
                    times[name].append(took)
    base = statistics.median(times["asyncio"])
    print(f"load: {os.getloadavg()[0]:.1f}")
    print(f"{'import':<38}{'least':>10}{'median':>13}{'ratio to asyncio':>20}")
    for name, took in times.items():
        median = statistics.median(took)
        print(f"{name:<38}{min(took):>7.1f} ms{median:>10.1f} ms{median / base:>20.2f}")
    print(
        "\ngoal: metered_sync.client below 50 ms on top of asyncio, metered_sync below 5, "
        "the pytest plug-in below 30 on top of pytest"
    )


if __name__ == "__main__":
    main()
