"""Test recording from the SFU: which tracks, how it ends, and that the file is complete then."""

from __future__ import annotations

import signal
import subprocess
import threading
from pathlib import Path

import pytest

from metered_sync import AudioSource, SfuClient, VideoSource
from metered_sync.local import LocalCloud
from tests.conftest import wait_until
from tests.support.command_line import COMMAND, call
from tests.support.sfu_commands import probe, published


def test_all_tracks_of_a_name_are_recorded_for_so_many_seconds(
    dev: LocalCloud, tmp_path: Path
) -> None:
    path = tmp_path / "a.mp4"
    arguments = ["--name", "rec", "-o", str(path), "--seconds", "1.5", "--local", "--json"]
    with published(dev, "rec") as old, published(dev, "rec") as new:
        done = call("sfu", "record", *arguments)
        assert done.status == 0, done.err
        assert new.stats()["publications"][0]["packets_sent"]
        (facts,) = done.json
        assert sorted(facts["streams"]) == ["audio", "video"]
        assert facts["path"] == str(path)
        assert done.err.startswith(f"recorded to {path}: 0:0")
        streams = probe(path)
        assert 0.5 < float(streams["video"]["duration"]) < 5
        assert int(streams["video"]["nb_read_frames"]) > 5
        # One track of the older session, by its id.
        assert old.session_id is not None
        sound = next(one for one in old.tracks(old.session_id) if one.kind == "audio")
        path = tmp_path / "a.opus"
        options = ["-o", str(path), "--seconds", "0.5", "--local"]
        done = call("sfu", "record", old.session_id, sound.track_id, *options)
        assert (done.status, done.out) == (0, ""), done.err
        assert set(probe(path)) == {"audio"}


def test_it_ends_with_what_is_recorded(dev: LocalCloud, tmp_path: Path) -> None:
    source = AudioSource()
    with SfuClient(**dev.sfu_options()) as sfu:
        sfu.publish(source, name="short")
        source.push(bytes(32000))  # one second

        def end() -> None:
            assert sfu.session_id is not None
            wait_until(lambda: sfu.tracks(str(sfu.session_id))[0].subscribers, 20)
            source.push(bytes(32000))
            source.end()

        ending = threading.Thread(target=end)
        ending.start()
        done = call("sfu", "record", "--name", "short", "-o", str(tmp_path / "a.wav"), "--local")
        ending.join(20)
    assert done.status == 0, done.err
    assert float(probe(tmp_path / "a.wav")["audio"]["duration"]) > 0.2


def test_ctrl_c_leaves_a_complete_file(dev: LocalCloud, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with (
        published(dev, "ctrl-c"),
        subprocess.Popen(
            [*COMMAND, "sfu", "record", "--name", "ctrl-c", "-o", str(path), "--local"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        wait_until(lambda: path.exists() and path.stat().st_size > 5000, 30, "it records")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert err.startswith(f"recorded to {path}: ")
    assert err.count("\n") == 1
    assert set(probe(path)) == {"audio", "video"}


def test_nothing_in_time_is_124_and_leaves_no_file(dev: LocalCloud, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    done = call("sfu", "record", "--name", "nobody", "-W", "0.2", "-o", str(path), "--local")
    assert (done.status, done.out) == (124, "")
    assert "no such track within 0.2 s" in done.err
    dark = VideoSource(64, 48)
    with SfuClient(**dev.sfu_options()) as sfu:
        sfu.publish(dark, name="dark")
        session = str(sfu.session_id)
        for wait in ("0.3", "3", "15"):  # (this machine may be busy)
            done = call("sfu", "record", session, "dark", "-W", wait, "-o", str(path), "--local")
            if "does their publisher send?" in done.err:
                break
    assert (done.status, done.out) == (124, ""), done.err
    assert "does their publisher send?" in done.err
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "which tracks?"),
        (["session", "--name", "x"], 2, "which tracks?"),
        (["--name", "x", "-o", "a.txt"], 2, "-o: the suffix of 'a.txt'"),
        (["--name", "x", "-o", "nowhere/a.mp4"], 1, "no directory"),
        (["nothing", "-o", "a.mp4"], 1, "session"),
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
    if "-o" not in arguments:
        arguments = [*arguments, "-o", "a.mp4"]
    done = call("sfu", "record", *arguments, "--local")
    assert (done.status, done.out) == (status, "")
    assert words in done.err
    assert not list(tmp_path.iterdir())
