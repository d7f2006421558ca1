"""Run the parts of a measurement in processes of their own, and read what those take (Linux)."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Taken", "answer", "child", "cpu", "local_cloud", "memory", "questions", "ready"]


@contextmanager
def child(script: str, role: str, *args: Any) -> Iterator[tuple[int, Any]]:
    """Run a part of a script; yield its process id, and a function that asks it a question."""
    command = [sys.executable, script, role, json.dumps(args)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def ask(question: object) -> Any:
            print(json.dumps(question), file=stdin, flush=True)
            line = stdout.readline()
            if not line:
                raise SystemExit(f"{role} has ended")
            return json.loads(line)

        try:
            yield process.pid, ask
        finally:
            stdin.close()


def questions() -> Iterator[Any]:
    """Yield the questions that a part is asked; :func:`answer` each of them."""
    for line in sys.stdin:
        yield json.loads(line)


def answer(value: object) -> None:
    """Answer a question."""
    print(json.dumps(value), flush=True)


def ready(value: object = "ready") -> None:
    """Answer the first question, with which somebody waits for this part."""
    next(questions())
    answer(value)


@contextmanager
def local_cloud(*options: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Run a local cloud without limits; yield its process id, and what it says of itself."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    command = [sys.executable, "-m", "metered_sync.cli", "serve", "--json", "--no-limits"]
    command += options
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, json.loads(process.stdout.readline())
        finally:
            process.terminate()


def cpu(pid: int) -> float:
    """Return the CPU seconds that a process has used, with threads that have ended."""
    return time.clock_gettime(~pid << 3 | 2)  # what clock_getcpuclockid(3) makes of an id


def memory(pid: int) -> int:
    """Return the resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Taken:
    """CPU and memory that our process and the local cloud have taken from now on."""

    def __init__(self, ours: int, cloud: int) -> None:
        self._pids = {"": ours, "cloud ": cloud}
        self._cpu = {name: cpu(pid) for name, pid in self._pids.items()}
        self._memory = {name: memory(pid) for name, pid in self._pids.items()}

    def cpu(self, what: str, count: int, unit: float = 1e-6) -> dict[str, float]:
        """Return the CPU for each of so many, by side; in µs, unless the unit is another one."""
        return {
            f"{name}{what}": (cpu(pid) - self._cpu[name]) / count / unit
            for name, pid in self._pids.items()
        }

    def memory(self, count: int) -> dict[str, float]:
        """Return KB of memory for each of so many, by side."""
        return {
            f"{name}memory": (memory(pid) - self._memory[name]) / count / 1024
            for name, pid in self._pids.items()
        }
