"""Test the command line itself: version, help, no command."""

from __future__ import annotations

from metered_sync import __version__
from tests.support.command_line import run


def test_version_and_help() -> None:
    assert run("--version").stdout == f"metered_sync {__version__}\n"
    assert "serve" in run("--help").stdout
    assert run().returncode == 2
