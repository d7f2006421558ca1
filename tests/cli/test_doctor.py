"""Test ``metered-sync doctor``: lines, JSON, the report's file, exit statuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from metered_sync import doctor, mint_token
from metered_sync.cli import main
from metered_sync.local import LocalCloud
from tests.support.command_line import run
from tests.support.coturn import free_port

KEY = "pk_live_0123456789abcdef"
Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tuple(os.environ):
        if name.startswith("METERED_") and not name.startswith("METERED_SYNC_"):
            monkeypatch.delenv(name)


def test_as_a_process() -> None:
    done = run("doctor", "--offline", env={**os.environ, "METERED_KEY": KEY})
    environment, keys, verdict = done.stdout.splitlines()
    assert environment[0] in "✔⚠"
    assert " ms  environment: metered_sync " in environment
    assert keys.endswith("keys: METERED_KEY (a publishable key)")
    assert verdict in ("verdict: ok", "verdict: warning")
    assert done.returncode in (0, 3)
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["report.json", "report.txt"])
def test_a_report_without_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: Output, tmp_path: Path, name: str
) -> None:
    monkeypatch.setenv("METERED_KEY_ID", "sk_secret_mine_mine")
    monkeypatch.setenv("METERED_KEY_SECRET", "sk_id_mine_mine")
    path = tmp_path / name
    assert main(["doctor", "--only", "keys", "--json", "--report", str(path)]) == 1
    shown, text = capsys.readouterr(), path.read_text()
    found = json.loads(shown.out)
    assert found["verdict"] == "failed"
    assert found["stages"][0]["remedy"] == "exchange the two values"
    assert "exchange the two values" in text
    assert "mine" not in text + shown.out + shown.err
    if name.endswith("json"):
        assert json.loads(text) == found


@pytest.mark.parametrize("only", ["keys,nonsense", "", "keys,"])
def test_an_unknown_stage_is_a_misuse(capsys: Output, only: str) -> None:
    assert main(["doctor", "--only", only]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert all(stage in shown.err for stage in doctor.STAGES)


@pytest.mark.parametrize(
    "arguments", [("--app-id", "app"), ("--key-id", "sk_id_1"), ("--key", KEY, "--token", "x.y.z")]
)
def test_options_that_do_not_go_together_are_a_misuse(arguments: tuple[str, ...]) -> None:
    assert main(["doctor", "--only", "keys", *arguments]) == 2


def test_options_are_examined(capsys: Output, shared_cloud: LocalCloud) -> None:
    """A token for other channels: a warning alone."""
    token = mint_token(
        shared_cloud.key_id, shared_cloud.key_secret, peer_id="ann", channels=["rooms/*"]
    )
    options = ["--url", shared_cloud.url, "--token", token]
    assert main(["doctor", "--only", "permissions", *options]) == 3
    line, verdict = capsys.readouterr().out.splitlines()
    assert line.startswith("⚠")
    assert "name one that it covers" in line
    assert verdict == "verdict: warning"
    with_channel = ["--only", "permissions,verdict", "--channel", "rooms/1"]
    assert main(["doctor", *with_channel, *options]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("everything that was tried works")


def test_a_local_cloud(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setenv("METERED_LOCAL_PORT", str(free_port()))
    monkeypatch.setenv("METERED_TURN_APP", "mine")  # of the service, which is not asked
    monkeypatch.setenv("METERED_TURN_API_KEY", "a" * 20)
    stages = "keys,tcp,welcome,permissions,roundtrip,ice,sfu"
    assert main(["doctor", "--local", "--only", stages]) == 0
    shown = capsys.readouterr()
    assert [line[0] for line in shown.out.splitlines()] == [*"✔✔✔✔✔\N{EN DASH}✔v"]
    assert "no `metered-sync serve --dev` runs" in shown.err
