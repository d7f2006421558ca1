"""Test the demo: what it shows, how it ends, what it says when a package is missing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, wait_until
from tests.support.command_line import COMMAND, run


def test_the_demo_shows_what_arrived(tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / "sheet.png"
    done = run("demo", "--seconds", "3", "-o", str(picture))
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("pictures ", "pieces of sound", "pictures per second", "age of", "dBFS mean"):
        assert words in done.stdout
    counted = re.search(r"pictures +(\d+) sent, (\d+) received", done.stdout)
    assert counted is not None
    sent, received = map(int, counted.groups())
    assert sent > 30
    assert received > 10  # (a machine that is busy loses some)
    assert str(picture) in done.stdout
    with Image.open(picture) as sheet:
        assert sheet.width > 1000
        colours = sheet.convert("RGB").getcolors(1 << 24)
        assert colours is not None
        assert len(colours) > 1000  # a film, not a blank


def test_ctrl_c_ends_the_demo_and_all_its_processes(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "demo", "--seconds", "60", "-o", str(tmp_path / "x.png")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # a process group of its own, as a terminal gives it
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "publisher" in line:
                break
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=20)
        assert process.returncode == 130
        assert "Traceback" not in out
    wait_until(lambda: not _alive(process.pid), 20, "its processes ended")


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_demo_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
import sys
sys.modules["rich"] = sys.modules["rich.console"] = None
from metered_sync.cli import main
sys.exit(main(["demo"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 1
    assert "pip install 'metered_sync[webrtc,local,cli]'" in done.stderr
    assert done.stderr.count("\n") == 1
