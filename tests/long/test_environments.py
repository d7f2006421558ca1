"""The library in other environments: the oldest and newest dependencies, other Pythons.

Each makes a virtual environment of its own, which takes a minute or two, and runs tests there.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

TESTERS = (
    "eventlet", "gevent", "hypothesis", "ipykernel", "playwright", "pytest", "pytest-timeout",
    "pytest-xdist", "requests-cache", "time-machine", "trustme",
)  # fmt: skip
"""What the tests below import besides the library's own dependencies."""
TESTS = (
    "tests/wire", "tests/bridge", "tests/engine", "tests/test_client.py", "tests/test_delivery.py",
    "tests/test_data_channel.py", "tests/test_peer.py", "tests/test_sfu.py",
    "tests/test_control.py",
    "tests/media/tracks", "tests/rules/test_deadlines.py", "tests/rules/test_secrets.py",
)  # fmt: skip
"""What depends on other packages' behaviour, and needs no other program."""
EXTRAS = "webrtc,local,cli,socks,speed"


def requirements(extra: str = "") -> list[str]:
    """Return what the library requires, or one of its extras."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    listed = parser["options.extras_require"][extra] if extra else None
    return (listed or parser["options"]["install_requires"]).strip().split("\n")


def floors() -> list[str]:
    """Return the lowest admitted version of each dependency, as pip's constraints."""
    lines = [line for extra in ("", *EXTRAS.split(",")) for line in requirements(extra)]
    matches = [re.match(r"([\w.-]+)(?:\[\w+\])?>=([\d.]+)", line) for line in lines]
    return [f"{match[1]}=={match[2]}" for match in matches if match]


def needed_to_test() -> list[str]:
    """Return what the tests import, in the versions that it is developed with."""
    return [line for line in requirements("dev") if re.split(r"[<>=~]", line)[0] in TESTERS]


def make(folder: Path, python: str, constraints: list[str]) -> Path:
    """Make a virtual environment with the library and the testers; return its interpreter."""
    if python == sys.executable:
        venv.create(folder, with_pip=True)
    else:
        subprocess.run([python, "-m", "venv", str(folder)], check=True, timeout=300)
    interpreter = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    (folder / "constraints.txt").write_text("\n".join(constraints))
    subprocess.run(
        [
            str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--constraint", str(folder / "constraints.txt"), f"{ROOT}[{EXTRAS}]", *needed_to_test(),
        ],
        check=True,
        timeout=1200,
    )  # fmt: skip
    return interpreter


def run_tests(interpreter: Path) -> None:
    """Run the tests in an environment, against the sources of this checkout."""
    done = subprocess.run(
        [
            str(interpreter), "-m", "pytest", "--quiet", "-p", "no:cacheprovider",
            "--numprocesses", "2", "--dist", "loadfile", "-m", "not browser and not slow", *TESTS,
        ],
        cwd=ROOT,
        env={**os.environ, "METERED_SYNC_REQUIRE_ALL": "0"},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:]


def pythons() -> dict[str, str]:
    """Return the other interpreters of this machine that the library admits, by version."""
    found: dict[str, str] = {}
    versions = sorted(Path.home().glob(".pyenv/versions/3.*/bin/python"))
    for minor in range(10, 15):
        name = f"3.{minor}"
        if minor != sys.version_info.minor:
            candidates = [str(path) for path in versions if f"/{name}." in str(path)]
            path = candidates[-1] if candidates else shutil.which(f"python{name}")
            if path:
                found[name] = path
    return found


def test_the_oldest_dependencies(tmp_path: Path) -> None:
    constraints = floors()
    assert any(line.startswith("aiortc==") for line in constraints)
    run_tests(make(tmp_path / "oldest", sys.executable, constraints))


def test_the_newest_dependencies(tmp_path: Path) -> None:
    run_tests(make(tmp_path / "newest", sys.executable, []))


@pytest.mark.parametrize("version", ["3.10", "3.12", "3.13", "3.14"])
def test_another_python(version: str, tmp_path: Path) -> None:
    python = pythons().get(version)
    if python is None:
        pytest.skip(f"there is no Python {version} here")
    run_tests(make(tmp_path / version, python, []))
