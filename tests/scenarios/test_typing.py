"""Have mypy check scripts of users who annotate everything: right ones, and ones with mistakes."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT
from tests.support.type_checkers import SCRIPTS, differences, marked_lines, mypy_report


def test_mypy_reports_the_mistakes_and_nothing_else() -> None:
    assert len(marked_lines()) > 30
    # (With the project's settings, which are strict, and so with its cache.)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", *map(str, SCRIPTS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert not differences(mypy_report(done.stdout)), "\n".join(
        differences(mypy_report(done.stdout))
    )
