"""Run the command line: in a process of its own, on a terminal, or, quickly, in this one."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from metered_sync.cli import main

COMMAND = [sys.executable, "-m", "metered_sync.cli"]
CONTROLLED = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Runs a command with its standard input as the terminal that Ctrl-C comes from."""


def run(*args: str, timeout: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    return subprocess.run(
        [*COMMAND, *args], capture_output=True, text=True, timeout=timeout, check=False, **options
    )


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def rows(self) -> list[list[str]]:
        """The cells of each line."""
        return [line.split("\t") for line in self.lines]

    @property
    def json(self) -> list[Any]:
        """What is printed, a value for each line."""
        return [json.loads(line) for line in self.lines]


def call(*args: str, stdin: bytes = b"", encoding: str = "utf-8") -> Outcome:
    """Run a command in this process, with streams that are no terminal."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(args)
    finally:
        sys.stdin = before
    texts = []
    for stream in (out, err):
        stream.flush()
        assert isinstance(stream.buffer, io.BytesIO)
        texts.append(stream.buffer.getvalue().decode(encoding))
    return Outcome(status, *texts)


class Terminal:
    """A command in a process of its own whose streams are a terminal."""

    def __init__(self, *args: str, columns: int = 80, **environment: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = {"TERM": "xterm-256color", **environment}
        kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CONTROLLED, *COMMAND, *args],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=kept | environment,
            start_new_session=True,
        )
        os.close(theirs)
        self.text = ""

    def read_until(self, words: str | None, timeout: float = 60.0) -> str:
        """Read until some words have come, or (``None``) to the end; return all that came."""
        end = time.monotonic() + timeout
        while words is None or words not in self.text:
            left = end - time.monotonic()
            ready, _, _ = select.select([self._ours], [], [], max(0.0, left))
            assert ready, f"{words!r} did not come; there is {self.text!r}"
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # the other end is closed
                data = b""
            if not data:
                assert words is None, f"{words!r} did not come; there is {self.text!r}"
                break
            self.text += data.decode(errors="replace").replace("\r\n", "\n")
        return self.text

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._ours, keys)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        os.close(self._ours)


@contextlib.contextmanager
def on_terminal(*args: str, columns: int = 80, **environment: str) -> Iterator[Terminal]:
    """Run a command on a terminal for the length of a block."""
    terminal = Terminal(*args, columns=columns, **environment)
    try:
        yield terminal
    finally:
        terminal.close()


@contextlib.contextmanager
def running(*args: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a command in a process of its own, with pipes, for the length of a block."""
    streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([*COMMAND, *args], text=True, **(streams | options)) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
