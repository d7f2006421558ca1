"""An application in trouble for a while: afterwards it works, and holds no more than before."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize(
    "minutes", [0.15, pytest.param(2, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
def test_an_application_in_trouble(minutes: float) -> None:
    soak = subprocess.run(
        [sys.executable, "benchmarks/soak.py", "--minutes", str(minutes)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        timeout=minutes * 60 + 240,
        check=False,
    )
    assert soak.returncode == 0, soak.stdout
