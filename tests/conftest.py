"""What all tests share: local clouds, waiting with a deadline, programs that may be missing."""

from __future__ import annotations

import functools
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import settings

from metered_sync.engine import http
from metered_sync.local import LocalCloud
from tests.support import rooms
from tests.support.scripted_http import ScriptedHttp, serving

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has put the tests into the background. Processes of theirs must get Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has started the tests
ROOT = Path(__file__).parent.parent

# Property tests draw the same in each run, whatever the machine's pace;
# --hypothesis-profile=explore looks further.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile("repeatable")

NOT_QUICK = (
    "cli", "engine/rooms/test_connection.py", "engine/rooms/test_paths.py",
    "engine/sending/test_local_track.py", "engine/sending/test_outlet.py",
    "engine/sending/test_shared_encoder.py", "hostile", "local/console/test_page.py",
    "local/sfu/test_session.py", "local/test_capacity.py", "local/test_fuzz.py", "long",
    "media/notebook", "media/recording/test_received.py", "media/recording/test_recorder.py",
    "media/sources/test_devices.py", "media/sources/test_files.py", "media/sources/test_rtsp.py",
    "rules", "scenarios", "test_client_pitfalls.py", "test_data_channel.py", "test_peer.py",
    "test_sfu.py", "testing/test_pytest_plugin.py", "testing/test_sources.py",
    "wire/test_properties.py",
)  # fmt: skip
"""What takes long for its few cases, or needs another program: not for ``make quick``."""
SLOW_LIMIT = 600
"""Seconds that a slow test may take which does not say otherwise: the usual ones are too few."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what ``make quick`` runs; give slow tests time."""
    tests = ROOT / "tests"
    left_out = [tests / name for name in NOT_QUICK]
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_LIMIT))
        long = any(item.get_closest_marker(name) for name in ("browser", "slow"))
        if not long and not any(item.path.is_relative_to(path) for path in left_out):
            item.add_marker("quick")


@pytest.fixture(scope="session")
def shared_cloud() -> Iterator[LocalCloud]:
    """One local cloud for all tests that leave no trace in it."""
    with LocalCloud(limits=False) as cloud:
        yield cloud


@pytest.fixture
def cloud() -> Iterator[LocalCloud]:
    """A local cloud for one test."""
    with LocalCloud() as cloud:
        yield cloud


@pytest.fixture(scope="session")
def served_cloud() -> Iterator[dict[str, str]]:
    """A local cloud in a process of its own, as ``metered-sync serve --json`` describes it."""
    command = [sys.executable, "-m", "metered_sync.cli", "serve", "--json", "--no-limits"]
    with subprocess.Popen(
        [*command, "--exit-with-stdin"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield json.loads(process.stdout.readline())
        process.stdin.close()
        assert process.wait(20) == 0


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedHttp]:
    """A scripted HTTP server; requests are tried again sooner than they would be."""
    monkeypatch.setattr(http, "FIRST_RETRY_DELAY", 0.01)
    with serving() as server:
        yield server


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything that anybody logs, at DEBUG, third parties included."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def wait_until(
    condition: Callable[[], object], timeout: float = 20.0, what: str | Callable[[], object] = ""
) -> None:
    """Wait until a condition holds; fail if it does not by the deadline."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            told = what() if callable(what) else what or condition
            pytest.fail(f"did not happen within {timeout:g} s: {told}")
        time.sleep(0.005)


def need(program: str, package: str) -> str:
    """Return the path of a program; skip where it is missing, or fail where it must be there."""
    path = shutil.which(program)
    if path is None:
        missing(f"needs the program {program} (Debian package {package})")
    return path


def missing(message: str) -> NoReturn:
    """Skip a test for want of something, or fail where it must be there."""
    if os.environ.get("METERED_SYNC_REQUIRE_ALL") == "1":
        pytest.fail(message)
    pytest.skip(message)


def run_script(
    source: str, *args: str, timeout: float = 60.0, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run Python source in a process of its own and return what it printed."""
    return subprocess.run(
        [sys.executable, "-c", source, *args],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env={**os.environ, **env},
        check=False,
    )


@pytest.fixture(params=["mesh", "sfu"])
def peer(request: pytest.FixtureRequest) -> rooms.PeerFactory:
    """A function that makes peers; a test that takes it runs for both ways of a room's media."""
    return functools.partial(rooms.peer, through=request.param)
