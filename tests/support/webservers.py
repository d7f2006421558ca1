"""Web applications under a real gunicorn."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.conftest import ROOT, wait_until


@contextmanager
def gunicorn(
    directory: Path,
    app: str,
    environment: dict[str, str],
    log: Path,
    *options: str,
    expected: str = "",
) -> Iterator[str]:
    """Serve ``app``, found in ``directory``; yield its address.

    At the end the server gets SIGTERM, must end by itself, and quickly, with status 0 and
    nothing in its log but lines in which the pattern ``expected`` is found.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", *options]
    command += ["--log-level", "warning", "--chdir", str(directory), app]
    with (
        open(log, "w") as output,
        subprocess.Popen(
            command,
            env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:

            def answers() -> bool:
                try:
                    return requests.get(f"http://127.0.0.1:{port}/", timeout=5).status_code < 500
                except requests.RequestException:  # not listening, or still importing
                    return False

            wait_until(answers, 60)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            started = time.monotonic()
            try:
                process.wait(28)
            except subprocess.TimeoutExpired:
                process.kill()
    lines = [line for line in log.read_text().splitlines() if not re.search(expected or "$^", line)]
    assert (process.returncode, lines) == (0, []), f"status {process.returncode}: {lines}"
    assert time.monotonic() - started < 25  # gunicorn would wait 30 s for a worker that hangs
