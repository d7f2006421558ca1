"""Test the command line itself: help, misuse, missing packages, completion, outputs that fail."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from metered_sync import SignallingClient, __version__
from metered_sync.cli.app import COMMANDS
from metered_sync.local import LocalCloud
from tests.conftest import ROOT, run_script
from tests.support.command_line import COMMAND, Outcome, call, run


def test_version_and_help() -> None:
    assert call("--version").out == f"metered_sync {__version__}\n"
    listed = call("--help")
    assert listed.status == 0
    for name in COMMANDS:
        assert f"  {name} " in listed.out
        each = call(name, "--help")
        assert (each.status, each.err) == (0, "")
        assert each.out.startswith(f"Usage: metered-sync {name} ")
    assert call().status == 2
    assert run("--version").stdout == f"metered_sync {__version__}\n"


@pytest.mark.parametrize(
    "args", [("nonsense",), ("serve", "--nonsense"), ("-x",), ("kick",), ("peers", "a", "b")]
)
def test_misuse_is_2_and_names_the_help(args: tuple[str, ...]) -> None:
    done = call(*args)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("Usage: metered-sync ")
    assert "--help" in done.err


def test_the_package_is_the_command() -> None:
    def module(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "metered_sync", *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)

    assert module("--help").stdout == call("--help").out
    misused = module("serve", "--nonsense")
    assert misused.returncode == 2
    assert misused.stderr.startswith("Usage: metered-sync ")


def test_help_loads_nothing_that_takes_long() -> None:
    source = """
import sys
from metered_sync.cli import main
assert main(["--help"]) == 0
slow = {"aiohttp", "aiortc", "anyio", "asyncio", "av", "msgspec", "numpy", "requests", "rich",
        "webbrowser", "websockets"} & set(sys.modules)
assert not slow, slow
"""
    done = run_script(source)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("missing", "args", "extra"),
    [
        ("click", ["--version"], "metered_sync[cli]"),
        ("aiohttp", ["peers", "x", "--local"], "local"),
    ],
)
def test_what_is_missing_is_named(missing: str, args: list[str], extra: str) -> None:
    source = f"""
import sys
sys.modules[{missing!r}] = None
from metered_sync.cli import main
sys.exit(main({args!r}))
"""
    done = run_script(source, METERED_LOCAL_PORT="1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install" in done.stderr
    assert extra in done.stderr
    assert "Traceback" not in done.stderr


def test_a_shell_completes_commands_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_METERED_SYNC_COMPLETE", "bash_complete")
    for words, number, expected in (
        ("metered-sync pu", "1", "plain,publish\n"),
        ("metered-sync listen --pres", "2", "plain,--presence\n"),
    ):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", number)
        assert call() == Outcome(0, expected, "")


def test_a_command_without_keys_says_what_to_set(dev: LocalCloud) -> None:
    for args, words in (
        (["publish", "c", "1"], "METERED_KEY"),
        (["listen", "c"], "--key, --token or --local"),
        (["peers", "c"], "METERED_KEY_ID"),
        (["kick", "c"], "--key-id"),
        (["usage", "--key-id", "sk_id_x"], "METERED_KEY_SECRET"),
    ):
        done = call(*args)
        assert (done.status, done.out) == (2, "")
        assert words in done.err


def test_keys_come_from_the_environment_and_options_win(
    dev: LocalCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in (
        ("URL", dev.url), ("KEY", dev.publishable_key), ("KEY_ID", dev.key_id),
        ("KEY_SECRET", dev.key_secret),
    ):  # fmt: skip
        monkeypatch.setenv(f"METERED_{name}", value)
    assert call("publish", "c", "1").status == 0
    assert call("peers", "c").status == 0
    assert call("publish", "c", "1", "--key", "pk_live_unknown").status == 1
    assert call("publish", "c", "1", "--url", dev.http_url).status == 0  # another scheme, the same
    assert call("publish", "c", "1", "--url", "ws://127.0.0.1:1").status == 1
    secret = tmp_path / "secret"
    for content, status in ((dev.key_secret + "\n", 0), ("", 2), ("a\nb", 2), ("x" * 5000, 2)):
        secret.write_text(content)
        done = call("peers", "c", "--key-secret-file", str(secret))
        assert done.status == status, done
    assert call("peers", "c", "--key-secret-file", str(tmp_path / "none")).status == 2
    assert call("peers", "c", "--key-secret-file", str(tmp_path)).status == 2


@pytest.mark.parametrize("key", ["sk_secret_abcdefgh", "sk_live_abcdefgh", "pk_live_a b", "nokey"])
def test_a_key_of_another_kind_is_one_line_without_it(dev: LocalCloud, key: str) -> None:
    done = call("publish", "--local", "c", "1", "--key", key)
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert "abcdefgh" not in done.err


@pytest.mark.parametrize(
    "url", ["nonsense", "ws://example.com", "wss://x/path", "ws://127.0.0.1:x"]
)
def test_a_bad_address_is_one_line(dev: LocalCloud, url: str) -> None:
    done = call("publish", "c", "1", "--key", dev.publishable_key, "--url", url)
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)


def test_local_without_a_server_is_a_cloud_for_this_command(
    dev: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METERED_LOCAL_PORT", "1")
    done = call("peers", "--local", "c")
    assert (done.status, done.out) == (0, "")
    assert "using a local cloud of its own" in done.err
    monkeypatch.setenv("METERED_LOCAL_PORT", "0x1")
    assert call("peers", "--local", "c").status == 2


def test_another_program_on_the_port_is_no_local_cloud(
    dev: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Quiet(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("METERED_LOCAL_PORT", str(server.server_port))
        done = call("usage", "--local", "--json")
        server.shutdown()
        thread.join()
    assert done.status == 0
    assert "a local cloud of its own" in done.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_full_disk_is_one_line(dev: LocalCloud) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "token", "--local", "--peer-id", "a"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "No space left" in done.stderr


def test_a_closed_pipe_is_quiet(dev: LocalCloud) -> None:
    for args in (["--help"], ["token", "--local", "--peer-id", "a"]):
        ours, theirs = os.pipe()
        os.close(ours)
        try:
            done = subprocess.run(
                [*COMMAND, *args], stdout=theirs, stderr=subprocess.PIPE, timeout=60, check=False
            )
        finally:
            os.close(theirs)
        assert (done.returncode, done.stderr) == (0, b"")


def test_the_commands_of_the_readme_are_there() -> None:
    text = (ROOT / "README.md").read_text()
    named = {
        line.split()[1]
        for line in text.splitlines()
        if line.startswith("metered-sync ") and not line.startswith("metered-sync --")
    }
    assert {"demo", "doctor", "listen", "publish"} <= named <= set(COMMANDS)


def test_a_program_may_call_it_from_any_thread(dev: LocalCloud) -> None:
    outcomes: list[Outcome] = []
    with SignallingClient(**dev.client_options()) as client:
        inbox = client.subscribe("main/thread")
        thread = threading.Thread(
            target=lambda: outcomes.append(call("publish", "--local", "main/thread", "1"))
        )
        thread.start()
        thread.join(30)
        assert outcomes == [Outcome(0, "", "")]
        assert inbox.get(timeout=30).data == 1
