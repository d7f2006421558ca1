"""Test that serve prints what clients need, and ends in every way it may be ended."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from metered_sync import ControlPlane, SignallingClient, TurnApi
from metered_sync.cli.dev_cloud import DEV_KEYS
from metered_sync.local import LocalCloud
from tests.conftest import ROOT, wait_until
from tests.support.command_line import COMMAND, call, run, running


def test_serve_prints_what_clients_need(served_cloud: dict[str, str]) -> None:
    assert set(served_cloud) == {
        "url", "http_url", "publishable_key", "key_id", "key_secret", "sfu_app_id", "sfu_secret",
        "turn_app", "turn_api_key", "turn_secret_key", "turn_secret",
        "console_url",
    }  # fmt: skip
    assert (
        "<title>Local cloud</title>" in requests.get(served_cloud["console_url"], timeout=20).text
    )
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
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (130, "")


def test_serve_ends_with_its_standard_input_and_with_sigterm() -> None:
    for end, status, options in (
        (lambda p: p.stdin.close(), 0, ()),
        (lambda p: p.terminate(), 128 + signal.SIGTERM, ("--no-console",)),
    ):
        with subprocess.Popen(
            [*COMMAND, "serve", "--json", "--exit-with-stdin", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            facts = json.loads(process.stdout.readline())
            assert ("console_url" in facts) == (not options)
            page = requests.get(f"{facts['http_url']}/console/", timeout=20)
            assert page.status_code == (404 if options else 401)
            end(process)
            assert process.wait(60) == status


@pytest.mark.skipif(os.name != "posix", reason="the browser is a shell script")
def test_serve_opens_the_console_in_the_browser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}.new && mv {seen}.new {seen}\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    with running("serve", "--open") as process:
        assert process.stdout is not None
        printed = {}
        for line in process.stdout:
            name, _, value = line.strip().partition(": ")
            printed[name] = value
            if "Ctrl-C" in line:
                break
        wait_until(seen.exists, 60, "the browser is started")
        assert seen.read_text().strip() == printed["# console"]
        assert printed["# console"].startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


def test_serve_opens_no_console_that_it_does_not_serve() -> None:
    misused = call("serve", "--no-console", "--open")
    assert (misused.status, "--no-console" in misused.err) == (2, True)


def test_a_port_that_is_taken_is_one_clear_line(shared_cloud: LocalCloud) -> None:
    done = run("serve", "--port", str(shared_cloud.port))
    assert done.returncode == 1
    assert re.fullmatch(r"metered-sync: LocalCloud cannot listen on .* choose .*\n", done.stderr)
    done = run("serve", "--host", "0.0.0.0")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "loopback" in done.stderr


def test_serve_dev_is_found_by_the_other_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    monkeypatch.setenv("METERED_LOCAL_PORT", port)
    with running("serve", "--dev") as process:
        assert process.stdout is not None
        printed = []
        for line in process.stdout:
            printed.append(line)
            if "Ctrl-C" in line:
                break
        text = "".join(printed)
        assert f"export METERED_URL=ws://127.0.0.1:{port}\n" in text
        assert f"export METERED_KEY={DEV_KEYS['publishable_key']}\n" in text
        commands = re.findall("^#   metered-sync (.*)$", text, re.MULTILINE)
        assert [command.split()[0] for command in commands] == ["listen", "publish"]
        with running(*shlex.split(commands[0])) as listener:
            assert listener.stdout is not None
            assert listener.stderr is not None
            assert "listening" in listener.stderr.readline()
            done = call(*shlex.split(commands[1]))
            assert (done.status, done.err) == (0, "")
            assert listener.stdout.readline().endswith('\t"hello"\n')
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
