"""Have mypy and pyright check scripts of users against the built wheel, as users have it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.conftest import ROOT, missing
from tests.support.type_checkers import SCRIPTS, differences, mypy_report, pyright_report

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment with the wheel, and of the scripts in it."""
    folder = tmp_path_factory.mktemp("typing")
    built = run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", folder / "wheel", ROOT)
    assert built.returncode == 0, built.stderr
    (wheel,) = (folder / "wheel").glob("metered_sync-*.whl")
    venv.create(folder / "venv", with_pip=True)
    install(folder, f"{wheel}[webrtc,local]", "mypy>=1.11", "flask")
    (folder / "scripts").mkdir()
    for script in SCRIPTS:
        shutil.copy(script, folder / "scripts")
    return folder


def install(folder: Path, *packages: str) -> None:
    done = run(python(folder), "-m", "pip", "install", "--quiet", *packages)
    assert done.returncode == 0, done.stderr


def python(folder: Path) -> Path:
    return folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"


def test_mypy(environment: Path) -> None:
    scripts = environment / "scripts"
    names = [script.name for script in SCRIPTS]
    done = run(python(environment), "-m", "mypy", "--strict", *names, cwd=scripts)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = differences(mypy_report(done.stdout))
    assert not found, "\n".join(found)


def test_pyright(environment: Path) -> None:
    try:
        install(environment, "pyright[nodejs]")
    except AssertionError as error:
        missing(f"needs the package pyright[nodejs], which cannot be had: {error}")
    scripts = environment / "scripts"
    settings = {"typeCheckingMode": "strict", "include": ["."]}
    (scripts / "pyrightconfig.json").write_text(json.dumps(settings))
    interpreter = python(environment)
    done = run(
        interpreter, "-m", "pyright", "--outputjson", "--pythonpath", interpreter, cwd=scripts
    )
    if not done.stdout.startswith("{"):
        missing(f"needs the package pyright[nodejs], which does not start: {done.stderr}")
    found = differences(pyright_report(done.stdout))
    assert not found, "\n".join(found)
