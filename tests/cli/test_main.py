"""Test the command line itself: version, help, no command."""

from __future__ import annotations

import subprocess
import sys

from metered_sync import __version__
from tests.conftest import ROOT
from tests.support.command_line import run


def test_version_and_help() -> None:
    assert run("--version").stdout == f"metered_sync {__version__}\n"
    assert "serve" in run("--help").stdout
    assert run().returncode == 2


def test_the_package_is_the_command() -> None:
    def module(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "metered_sync", *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)

    assert module("--version").stdout == f"metered_sync {__version__}\n"
    assert module("--help").stdout == run("--help").stdout
    misused = module("serve", "--nonsense")
    assert misused.returncode == 2
    assert misused.stderr.startswith("Usage: metered-sync ")
