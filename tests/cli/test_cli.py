from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from metered_sync import ControlPlane, SignallingClient, TurnApi, __version__
from metered_sync.local import LocalCloud
from tests.conftest import ROOT, wait_until

COMMAND = [sys.executable, "-m", "metered_sync.cli"]


def run(*args: str, timeout: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *args], capture_output=True, text=True, timeout=timeout, check=False, **options
    )


def test_version_and_help() -> None:
    assert run("--version").stdout == f"metered_sync {__version__}\n"
    assert "serve" in run("--help").stdout
    assert run().returncode == 2


def test_serve_prints_what_clients_need(served_cloud: dict[str, str]) -> None:
    assert set(served_cloud) == {
        "url", "http_url", "publishable_key", "key_id", "key_secret", "sfu_app_id", "sfu_secret",
        "turn_app", "turn_api_key", "turn_secret_key", "turn_secret",
    }  # fmt: skip
    with SignallingClient(
        api_key=served_cloud["publishable_key"], url=served_cloud["url"]
    ) as client:
        client.publish("x", 1)
    keys = {"api_key": served_cloud["turn_api_key"], "secret_key": served_cloud["turn_secret_key"]}
    turn = TurnApi(served_cloud["turn_app"], **keys, url=served_cloud["http_url"])
    assert turn.ice_servers()
    assert turn.create_credential(label="x").label == "x"
    plane = ControlPlane(
        served_cloud["key_id"], served_cloud["key_secret"], url=served_cloud["http_url"]
    )
    assert plane.usage().messages_used


def test_serve_speaks_shell_and_ends_with_ctrl_c() -> None:
    with subprocess.Popen(
        [*COMMAND, "serve"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        environment = {}
        for line in process.stdout:
            if line.startswith("#"):
                break
            name, value = line.removeprefix("export ").strip().split("=")
            environment[name] = value
        done = subprocess.run(
            [sys.executable, "-c", "from metered_sync import *\nSignallingClient().connect()"],
            env={**os.environ, **environment},
            cwd=ROOT,
            check=False,
            timeout=30,
        )
        assert done.returncode == 0
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (130, "")


def test_serve_ends_with_its_standard_input_and_with_sigterm() -> None:
    for end, status in (
        (lambda p: p.stdin.close(), 0),
        (lambda p: p.terminate(), 128 + signal.SIGTERM),
    ):
        with subprocess.Popen(
            [*COMMAND, "serve", "--json", "--exit-with-stdin"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            json.loads(process.stdout.readline())
            end(process)
            assert process.wait(20) == status


def test_a_port_that_is_taken_is_one_clear_line(shared_cloud: LocalCloud) -> None:
    done = run("serve", "--port", str(shared_cloud.port))
    assert done.returncode == 1
    assert re.fullmatch(r"metered-sync: LocalCloud cannot listen on .* choose .*\n", done.stderr)
    done = run("serve", "--host", "0.0.0.0")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "loopback" in done.stderr


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
    assert received > sent / 2
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
    wait_until(lambda: not _alive(process.pid), 10, "its processes ended")


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
