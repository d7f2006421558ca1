"""Run Python source in processes that have imported the library already.

Importing takes most of the time of a short script. Here one process imports, and is forked for each
script: what a prefork server does with an application, and what the library promises to bear.
Beyond that a script has all that a process of its own has: its ``__main__``, its environment, its
threads, and the interpreter's whole end with ``atexit``.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.conftest import ROOT

PRELOADED = (
    "metered_sync.local", "metered_sync.testing.sources", "cv2", "uvloop",
)  # fmt: skip
"""What scripts use beside the public names; each is loaded where it is installed."""

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]


@contextlib.contextmanager
def forked_scripts(folder: Path) -> Iterator[RunScript]:
    """Yield a function like ``run_script``, which forks one process that has imported."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.forked_scripts"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # to fork, it must have one thread
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        stdin, stdout = server.stdin, server.stdout

        def run(source: str, *, timeout: int = 60, **env: str) -> subprocess.CompletedProcess[str]:
            paths = [folder / "stdout", folder / "stderr"]
            request = [source, env, timeout, *map(str, paths)]
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            status = json.loads(stdout.readline())
            return subprocess.CompletedProcess([], status, *(path.read_text() for path in paths))

        yield run
        stdin.close()
        assert server.wait(20) == 0


def preload() -> None:
    """Import what scripts import. No thread of Python's may come of it."""
    library = importlib.import_module("metered_sync")
    for name in library.__all__:
        getattr(library, name)
    for module in PRELOADED:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(module)
    assert threading.active_count() == 1, threading.enumerate()


def redirect(number: int, path: str, flags: int) -> None:
    """Let a file descriptor of this process be that of a file."""
    opened = os.open(path, flags)
    os.dup2(opened, number)
    os.close(opened)


def serve() -> str:
    """Fork for each request, and answer with exit statuses.

    Return twice: in each fork the source to run, and in this process nothing, when there are no
    more requests.
    """
    for line in sys.stdin:
        source, env, timeout, stdout, stderr = json.loads(line)
        child = os.fork()
        if child == 0:
            os.environ.update(env)
            redirect(0, os.devnull, os.O_RDONLY)
            redirect(1, stdout, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            redirect(2, stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            return str(source)
        signal.signal(signal.SIGALRM, lambda *_, pid=child: os.kill(pid, signal.SIGKILL))
        signal.alarm(timeout)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        print(json.dumps(status), flush=True)
    return ""


if __name__ == "__main__":
    preload()
    script = serve()
    server = sys.modules["__main__"]
    sys.argv[:] = ["-c"]
    sys.modules["__main__"] = main = types.ModuleType("__main__")
    exec(compile(script, "<string>", "exec"), main.__dict__)
