"""Test joining a room from the command line: what is shown, recorded and sent, how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from metered_sync import MediaStream
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource, read_number
from tests.conftest import wait_until
from tests.support import rooms
from tests.support.command_line import COMMAND, call
from tests.support.sfu_commands import probe


def test_a_room_is_shown_recorded_and_sent_to_until_ctrl_c(dev: LocalCloud, tmp_path: Path) -> None:
    with (
        rooms.peer(dev, "alice", through="sfu") as alice,
        subprocess.Popen(
            [
                *COMMAND, "room", "studio", "--publish", "pattern", "--record", str(tmp_path),
                "--media", "sfu", "--json", "--local",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):  # fmt: skip
        alice.add_stream(MediaStream([PatternSource(160, 120, 15), ToneSource()], id="camera"))
        alice.join("studio")
        command = alice.wait_for_peer(timeout=30)
        assert read_number(command.track("video", timeout=20).read(timeout=20)) is not None
        path = tmp_path / "alice.mkv"
        wait_until(lambda: path.exists() and path.stat().st_size > 5000, 30, "it records")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    told = [json.loads(line) for line in out.splitlines()]
    assert {one["peer"] for one in told} == {"alice"}
    assert [one["type"] for one in told] == ["joined", "track", "track", "recorded"]
    assert told[-1]["path"] == str(path)
    assert all(one["at"].endswith("+00:00") for one in told)
    codecs = {kind: stream["codec_name"] for kind, stream in probe(path).items()}
    assert codecs == {"audio": "opus", "video": "vp8"}  # as they came
    assert err == f"in the room 'studio' as {command.id}\n"


def test_it_ends_after_so_many_seconds_and_shows_lines(dev: LocalCloud) -> None:
    claims = {"peer_metadata": {"name": "\x1b[2J"}}
    with rooms.peer(dev, "bob", claims=claims) as bob:
        bob.join("hall")
        done = call("room", "hall", "--local", "--seconds", "1.5")
    assert done.status == 0
    assert done.out == 'bob joined {"name": "\\u001b[2J"}\n'


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["hall", "--media", "pigeon"], 2, "--media"),
        (["hall", "--publish", "nothing.mp4"], 1, "nothing.mp4"),
        (["hall", "--publish", "pattern", "--loop"], 1, "--loop is for files"),
        (["hall", "--loop"], 2, "--loop"),
        (["hall", "--record", "file"], 2, "--record"),
        (["bad/../\x00"], 2, "CHANNEL"),
        ([], 2, "Missing argument"),
    ],
)
def test_what_is_wrong_is_told(
    arguments: list[str],
    status: int,
    words: str,
    dev: LocalCloud,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    done = call("room", *arguments, "--local", "--seconds", "0.1")
    assert (done.status, done.out) == (status, ""), done.err
    assert words in done.err


def test_keys_are_needed_for_the_service_and_for_its_sfu(
    dev: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = call("room", "hall")
    assert done.status == 2
    assert "METERED_KEY" in done.err
    monkeypatch.setenv("METERED_KEY", dev.publishable_key)
    monkeypatch.setenv("METERED_URL", dev.url)
    assert call("room", "hall", "--seconds", "0.1").status == 0
    done = call("room", "hall", "--media", "sfu")
    assert done.status == 2
    assert "METERED_SFU_APP_ID" in done.err
