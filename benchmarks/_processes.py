"""Run the parts of a measurement in processes of their own, and read what those take (Linux)."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["answer", "child", "cpu", "local_cloud", "memory", "questions"]


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


@contextmanager
def local_cloud() -> Iterator[tuple[int, dict[str, Any]]]:
    """Run a local cloud without limits; yield its process id, and what it says of itself."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    command = [sys.executable, "-m", "metered_sync.cli", "serve", "--json", "--no-limits"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, json.loads(process.stdout.readline())
        finally:
            process.terminate()


def cpu(pid: int) -> float:
    """Return the CPU seconds that the threads of a process have used."""
    used = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        used += int((thread / "schedstat").read_text().split()[0])
    return used * 1e-9


def memory(pid: int) -> int:
    """Return the resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
