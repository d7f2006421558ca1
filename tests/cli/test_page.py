"""Run the terminal sessions of the page on the command line, section by section."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from metered_sync.local import LocalCloud
from tests.conftest import ROOT, wait_until
from tests.support.sfu_commands import probe

TEXT = (ROOT / "docs" / "command-line.md").read_text()
SECTIONS = {
    title: re.findall(r"^```console\n(.*?)^```", body, re.DOTALL | re.MULTILINE)
    for title, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
}
INTERRUPTED = "^C\n"
PROGRESS = re.compile(r"^\d+:\d\d  .*\n", re.MULTILINE)
"""The lines of progress that a busy machine is slow enough for."""


class Session:
    """A command of the page, run by a shell, with what it should show."""

    def __init__(self, text: str, folder: Path) -> None:
        command, _, expected = text.partition("\n")
        self.before, interrupted, self.after = expected.partition(INTERRUPTED)
        self.lasting = bool(interrupted)
        self._path = folder / f"{len(list(folder.iterdir()))}.txt"
        with self._path.open("wb") as file:
            self._process = subprocess.Popen(
                ["bash", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=folder,
                start_new_session=True,
                env={
                    **os.environ,
                    "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
                    "PYTHONPATH": str(ROOT),
                },
            )

    def shown(self) -> str:
        return PROGRESS.sub("", self._path.read_text())

    def begun(self) -> None:
        """Wait until the command has said something."""
        wait_until(lambda: self.shown() or self._process.poll() is not None, 60, "it has begun")

    def end(self) -> None:
        """Wait for the command's end, by Ctrl-C where the page says so; compare what it showed."""
        if self.lasting:
            wait_until(lambda: shows(self.shown(), self.before), 60, f"{self.before} is shown")
            os.killpg(self._process.pid, signal.SIGINT)
        assert self._process.wait(60) in ((130,) if self.lasting else (0,)), self.shown()
        assert shows(self.shown(), self.before + self.after), self.shown()

    def kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)


def shows(shown: str, expected: str) -> bool:
    """Return whether a text is what the page says: … is anything, two spaces are any space."""
    pattern = re.escape(expected).replace("…", ".*").replace(r"\ \ ", r"\s+")
    return re.fullmatch(pattern, shown, re.DOTALL) is not None


def commands(block: str) -> list[str]:
    """Return the commands of a block, each with what it shows."""
    return [text for text in re.split(r"^\$ ", block, flags=re.MULTILINE) if text]


@pytest.mark.parametrize("title", [title for title, blocks in SECTIONS.items() if blocks])
def test_a_session_shows_what_the_page_says(title: str, dev: LocalCloud, tmp_path: Path) -> None:
    program = tmp_path / "metered-sync"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m metered_sync.cli "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    sessions: list[Session] = []
    blocks = SECTIONS[title]
    try:
        for number, block in enumerate(blocks):
            for text in commands(block):
                session = Session(text, tmp_path)
                sessions.append(session)
                if session.lasting or (number == 0 and len(blocks) > 1):
                    session.begun()  # the following ones run in another terminal meanwhile
                else:
                    session.end()
                    sessions.remove(session)
        for session in sessions:
            session.end()
    finally:
        for session in sessions:
            session.kill()
    for path in tmp_path.glob("**/*.mp4"):
        assert set(probe(path)) == {"audio", "video"}


def test_each_kind_of_command_is_shown() -> None:
    shown = " ".join(block for blocks in SECTIONS.values() for block in blocks)
    for command in ("listen", "publish", "peers", "sfu publish", "sfu record", "room", "turn"):
        assert f"metered-sync {command} " in shown
