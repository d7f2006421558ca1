"""Test publishing from the command line: what arrives, what is shown, how it ends."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from metered_sync import SfuClient
from metered_sync.cli.commands.sfu.publish import SentCounts
from metered_sync.local import LocalCloud
from metered_sync.testing import read_number
from tests.conftest import wait_until
from tests.support import encoded
from tests.support.command_line import COMMAND, call
from tests.support.media_files import write
from tests.support.sfu_commands import published


def test_a_file_is_published_to_its_end(dev: LocalCloud, tmp_path: Path) -> None:
    clip = write(tmp_path / "clip.mkv", seconds=0.5, video=None)
    done = call("sfu", "publish", str(clip), "--local", "--json")
    assert done.status == 0
    (track,) = done.json
    assert (track["kind"], track["name"]) == ("audio", None)


def test_a_film_is_published_as_it_is_encoded(dev: LocalCloud, tmp_path: Path) -> None:
    film = encoded.write(tmp_path / "film.mp4", audio="aac", count=10)
    done = call("sfu", "publish", str(film), "--encoded", "--local", "--json")
    assert done.status == 0
    assert [track["kind"] for track in done.json] == ["video"]
    assert "left out: from_file('film.mp4'): its sound is AAC" in done.err


def test_watchers_are_counted_where_they_are_known(dev: LocalCloud) -> None:
    with published(dev, "counted") as sfu, SfuClient(**dev.sfu_options()) as viewer:
        assert sfu.session_id is not None
        counts = SentCounts(sfu)
        counts.update()
        assert counts.text.endswith("0 watching")
        video = next(one for one in viewer.tracks(sfu.session_id) if one.kind == "video")
        viewer.subscribe(video).read(timeout=20)
        counts = SentCounts(sfu)
        counts.update()
        assert counts.text.endswith("1 watching")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["pattern", "--bitrate", "fast"], 2, "--bitrate: a bit rate is like 800k or 1.5M"),
        (["pattern", "--loop"], 1, "--loop is for files"),
        (["pattern", "--encoded"], 1, "--encoded is for files and cameras"),
        (["pattern", "--codec", "mp3"], 1, "codec"),
        (["pattern", "--seconds", "0"], 2, "--seconds"),
        (["nothing.mp4"], 1, "nothing.mp4"),
        (["rtsp://user:hunter2@127.0.0.1:1/x"], 1, "nothing listens there"),
        ([], 2, "Missing argument"),
    ],
)
def test_what_is_wrong_is_told(
    arguments: list[str], status: int, words: str, dev: LocalCloud
) -> None:
    done = call("sfu", "publish", *arguments, "--local")
    assert (done.status, done.out) == (status, "")
    assert words in done.err
    assert "hunter2" not in done.err
    assert "Traceback" not in done.err


def test_the_pattern_arrives_numbered_and_with_sound_until_ctrl_c(dev: LocalCloud) -> None:
    with (
        SfuClient(**dev.sfu_options()) as viewer,
        subprocess.Popen(
            [*COMMAND, "sfu", "publish", "pattern", "--name", "until ctrl-c", "--local"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        info = viewer.wait_for_track(name="until ctrl-c", timeout=30)
        video, audio = viewer.subscribe(viewer.tracks(info.session_id))
        assert read_number(video.read(timeout=20)) is not None
        audio.frames().get(timeout=20)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 130
        rows = [line.split("\t") for line in out.splitlines()]
        assert [row[0] for row in rows] == [info.session_id] * 2
        assert [row[2:] for row in rows] == [["video", "until ctrl-c"], ["audio", "until ctrl-c"]]
        assert err.startswith("published  ")
        assert err.count("\n") == 1
        wait_until(
            lambda: info.session_id not in [one.session_id for one in viewer.sessions()],
            20,
            "its session has ended",
        )
