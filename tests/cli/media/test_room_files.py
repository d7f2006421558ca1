"""Test the files of a room's members: their names, and when one begins and ends."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from metered_sync import SfuClient
from metered_sync.cli.media.room_files import RoomFiles, file_stem
from metered_sync.local import LocalCloud
from metered_sync.media.recording import RecordingInfo
from tests.conftest import wait_until
from tests.support.sfu_commands import probe, published


@pytest.mark.parametrize("member", ["alice", "user-42", "a.b_c", "A1", "x" * 80])
def test_plain_ids_are_names_of_files(member: str) -> None:
    assert file_stem(member) == member


HOSTILE = (
    "../../etc/passwd", "/etc/passwd", "..", ".", ".hidden", "-rf", "a b", "a\x00b", "a/b", "a\\b",
    "ä", "\ud800", "CON", "con.txt", "lpt1", "a.", "x" * 300, "x" * 299 + "y", "", "???", "!!!",
    "a\nb", "\u202egnp",
)  # fmt: skip


def test_hostile_ids_stay_in_the_folder_and_apart(tmp_path: Path) -> None:
    stems = [file_stem(member) for member in HOSTILE]
    assert len({stem.lower() for stem in stems}) == len(HOSTILE)
    for stem in stems:
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", stem), stem
        assert not stem.endswith(".")
        assert (tmp_path / f"{stem}.mkv").resolve().parent == tmp_path.resolve()
        (tmp_path / f"{stem}.mkv").touch()


class Ended(list[tuple[str, RecordingInfo]]):
    def __call__(self, member: str, info: RecordingInfo) -> None:
        self.append((member, info))


def test_what_comes_late_begins_another_file_and_none_is_overwritten(
    shared_cloud: LocalCloud, tmp_path: Path
) -> None:
    (tmp_path / "alice.mkv").write_text("precious")
    ended = Ended()
    options = shared_cloud.sfu_options()
    with published(shared_cloud, "late") as sfu, SfuClient(**options) as viewer:
        tracks: list[Any] = viewer.subscribe(viewer.tracks(str(sfu.session_id)))
        video, audio = tracks
        with RoomFiles(tmp_path, ended) as files:
            files.add("alice", [audio], [audio])
            wait_until(lambda: files.bytes() > 2000, 20, "the sound's file is begun")
            files.add("alice", [video], [audio, video])
            assert [member for member, _ in ended] == ["alice"]
            wait_until(lambda: files.bytes() > 5000, 20, "the second file is begun")
    assert [info.path for _, info in ended] == [
        str(tmp_path / "alice-2.mkv"), str(tmp_path / "alice-3.mkv"),
    ]  # fmt: skip
    assert set(probe(tmp_path / "alice-2.mkv")) == {"audio"}
    assert set(probe(tmp_path / "alice-3.mkv")) == {"audio", "video"}
    assert (tmp_path / "alice.mkv").read_text() == "precious"
    assert files.errors == []


def test_a_member_of_whom_nothing_came_leaves_no_file(
    shared_cloud: LocalCloud, tmp_path: Path
) -> None:
    ended = Ended()
    options = shared_cloud.sfu_options()
    with published(shared_cloud, "gone") as sfu, SfuClient(**options) as viewer:
        tracks = viewer.subscribe(viewer.tracks(str(sfu.session_id)))
        for track in tracks:
            track.close()
        with RoomFiles(tmp_path, ended) as files:
            files.add("bob", tracks, tracks)
            assert (tmp_path / "bob.mkv").exists()
            files.end("bob")
            files.end("bob")
    assert (ended, files.errors, list(tmp_path.iterdir())) == ([], [], [])
