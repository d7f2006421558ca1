"""The published clients, installed once and kept in ``.interop``."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, missing, need
from tests.scenarios.browser.conftest import running_chromium, tabs
from tests.scenarios.interop.parties import Driver

__all__ = ["running_chromium", "tabs"]  # fixtures of another folder

HERE = Path(__file__).parent
INSTALLED = ROOT / ".interop"


def installed(name: str, recipe: list[Path], install: Callable[[Path], None]) -> Path:
    """Return a folder that ``install`` has filled; it is made anew when its recipe changes."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in recipe)).hexdigest()[:12]
    folder = INSTALLED / f"{name}-{digest}"
    if not folder.exists():
        INSTALLED.mkdir(exist_ok=True)
        making = Path(tempfile.mkdtemp(dir=INSTALLED, prefix=f"{name}-making-"))
        try:
            install(making)
            making.rename(folder)  # so that what is half made is never used
        except (OSError, subprocess.SubprocessError) as error:
            said = " ".join((getattr(error, "stderr", None) or str(error)).split())[-300:]
            if not folder.exists():  # (another run may have been quicker)
                missing(f"needs the published client for {name}, from its registry: {said}")
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return folder


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=240)


def _install_python(folder: Path) -> None:
    run(sys.executable, "-m", "venv", folder)
    options = ["--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "10"]
    run(
        folder / "bin" / "python", "-m", "pip", "install", *options, "-r", HERE / "requirements.txt"
    )


def _install_javascript(folder: Path) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, folder)
    need("npm", "npm")
    quick = ["--fetch-retries", "1", "--fetch-retry-mintimeout", "1000"]
    run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", *quick, cwd=folder)


def python_command() -> list[str]:
    """What starts the published async client's process."""
    version = ".".join(map(str, sys.version_info[:2]))
    folder = installed(f"python{version}", [HERE / "requirements.txt"], _install_python)
    return [str(folder / "bin" / "python"), str(HERE / "drive_python.py")]


def javascript_folder() -> Path:
    """Return the folder with the ``node_modules`` of the published client for JavaScript."""
    return installed("javascript", [HERE / "package-lock.json"], _install_javascript)


def _javascript() -> list[str]:
    node = need("node", "nodejs")
    return [node, str(HERE / "drive_javascript.js"), str(javascript_folder())]


@pytest.fixture(scope="session")
def python_client() -> Iterator[Driver]:
    """The published async client for Python."""
    driver = Driver("python", python_command())
    yield driver
    driver.close()


@pytest.fixture(scope="session")
def javascript_client() -> Iterator[Driver]:
    """The published client for JavaScript."""
    driver = Driver("javascript", _javascript())
    yield driver
    driver.close()


@pytest.fixture(scope="session")
def client_bundle() -> Path:
    """The published client for JavaScript, as a script for a page."""
    package = javascript_folder() / "node_modules" / "@metered-ca" / "realtime"
    return package / "dist" / "index.umd.js"


@pytest.fixture(params=["python", "javascript"])
def published(request: pytest.FixtureRequest) -> Driver:
    """Each of the published clients."""
    driver = request.getfixturevalue(f"{request.param}_client")
    assert isinstance(driver, Driver)
    return driver
