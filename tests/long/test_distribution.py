"""Wheel and source distribution: built, looked through, and installed with nothing else."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from metered_sync import __version__
from tests.conftest import ROOT
from tests.long.test_environments import pythons

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

NAME = f"metered_sync-{__version__}"
BARE = """
import sys
import metered_sync

assert metered_sync.__version__ == sys.argv[1]
assert "site-packages" in metered_sync.__file__
token = metered_sync.mint_token("sk_id_1", "sk_secret_" + 32 * "1", peer_id="ann", ttl=60)
assert token.count(".") == 2
client = metered_sync.SignallingClient(token_provider=token, url="ws://127.0.0.1:9", timeout=5)
try:
    client.connect()
except metered_sync.SignallingConnectError:
    pass
for statement, extra in (
    ("from metered_sync import MeteredPeer", "webrtc"),
    ("from metered_sync.local import LocalCloud", "local"),
):
    try:
        exec(statement)
    except ImportError as error:
        assert f"metered_sync[{extra}]" in str(error), error
    else:
        raise AssertionError(statement)
print("works")
"""
"""What works without any extra, and what says which one it wants."""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a program; return what it printed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of both distributions, built from what is committed here."""
    folder = tmp_path_factory.mktemp("distribution")
    clone = folder / "clone"
    run("git", "clone", "--quiet", "--depth", "1", f"file://{ROOT}", clone)
    run(sys.executable, "-m", "build", "--outdir", folder, clone)
    return folder


def package_files() -> set[str]:
    """Return the files of the package that are committed."""
    return set(run("git", "ls-files", "metered_sync").split())


def test_the_package_index_would_take_them(folder: Path) -> None:
    files = sorted(folder.glob("metered_sync-*"))
    assert [file.name for file in files] == [f"{NAME}-py3-none-any.whl", f"{NAME}.tar.gz"]
    assert run(sys.executable, "-m", "twine", "check", "--strict", *files).count("PASSED") == 2


def test_the_wheel_has_the_package_and_nothing_else(folder: Path) -> None:
    with zipfile.ZipFile(folder / f"{NAME}-py3-none-any.whl") as wheel:
        names = set(wheel.namelist())
        metadata = email.message_from_bytes(wheel.read(f"{NAME}.dist-info/METADATA"))
    assert {name for name in names if not name.startswith(f"{NAME}.dist-info/")} == package_files()
    assert "metered_sync/py.typed" in names
    assert f"{NAME}.dist-info/licenses/LICENSE" in names
    assert metadata["Version"] == __version__
    assert metadata["Author"] == "metered_sync developers"
    assert metadata["Requires-Python"] == ">=3.10"
    assert str(metadata.get_payload()).startswith("# metered_sync\n")


def test_the_source_distribution_has_what_the_wheel_is_built_from(folder: Path) -> None:
    with tarfile.open(folder / f"{NAME}.tar.gz") as archive:
        names = {info.name.removeprefix(f"{NAME}/") for info in archive if info.isfile()}
    made = {name for name in names if name.startswith(("metered_sync.egg-info/", "PKG-INFO"))}
    beside = {name for name in names - made if not name.startswith("metered_sync/")}
    assert names - made - beside == package_files()
    assert beside == {
        "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "README.md", "SECURITY.md",
        "pyproject.toml", "setup.cfg",
    }  # fmt: skip


def check_bare(python: str, distribution: Path, home: Path) -> None:
    """Install a distribution into an environment that has nothing else, and use it."""
    if python == sys.executable:
        venv.create(home, with_pip=True)
    else:
        run(python, "-m", "venv", home)
    # (Isolated: a PYTHONPATH of those who run the tests does not count.)
    isolated = (home / ("Scripts" if os.name == "nt" else "bin") / "python", "-I")
    run(*isolated, "-m", "pip", "install", "--quiet", distribution)
    run(*isolated, "-m", "pip", "check")
    assert run(*isolated, "-W", "error", "-c", BARE, __version__) == "works\n"


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_the_wheel_works_without_any_extra(version: str, folder: Path, tmp_path: Path) -> None:
    here = ".".join(map(str, sys.version_info[:2]))
    python = sys.executable if version == here else pythons().get(version)
    if python is None:
        pytest.skip(f"there is no Python {version} here")
    check_bare(python, folder / f"{NAME}-py3-none-any.whl", tmp_path / "bare")


def test_the_source_distribution_works_without_any_extra(folder: Path, tmp_path: Path) -> None:
    check_bare(sys.executable, folder / f"{NAME}.tar.gz", tmp_path / "bare")
