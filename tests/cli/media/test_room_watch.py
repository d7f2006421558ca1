"""Test what is told of a room, and the files of its members, for both ways of its media."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metered_sync import MediaStream, MeteredPeer
from metered_sync.cli.media.room_files import RoomFiles
from metered_sync.cli.media.room_watch import RoomWatch
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource
from tests.support.sfu_commands import probe


class EnoughError(Exception):
    """All that was waited for has been told."""


class Told(list[tuple[str, str, str, dict[str, Any]]]):
    """Collect what is told; react to it, and end when it is enough."""

    def __init__(self, react: Callable[[list[str]], bool]) -> None:
        super().__init__()
        self._react = react

    def __call__(self, kind: str, member: str, text: str, facts: dict[str, Any]) -> None:
        self.append((kind, member, text, facts))
        if self._react(self.kinds()):
            raise EnoughError

    def kinds(self) -> list[str]:
        return [kind for kind, *_ in self]

    def facts(self, kind: str) -> list[dict[str, Any]]:
        return [facts for told, _, _, facts in self if told == kind]


def watch(watching: RoomWatch, channel: str, peer: MeteredPeer) -> list[str]:
    """Join and watch until it is enough; return the lines of progress."""
    lines: list[str] = []
    peer.join(channel)
    with pytest.raises(EnoughError):
        watching.run(lines.append, 30)
    return lines


def sources() -> MediaStream:
    return MediaStream([PatternSource(160, 120, 15), ToneSource()], id="camera")


def test_members_tracks_and_messages_are_told(
    cloud: LocalCloud, peer: functools.partial[MeteredPeer]
) -> None:
    with (
        peer(cloud, "alice", claims={"peer_metadata": {"name": "Alice"}}) as alice,
        peer(cloud, "watcher") as watcher,
    ):
        stream = sources()
        alice.add_stream(stream, metadata={"role": "cam"})
        alice.join("room")
        through = peer.keywords["through"]
        done: set[str] = set()

        def react(kinds: list[str]) -> bool:
            if kinds.count("track") == 2 and "talked" not in done:
                done.add("talked")
                alice.send({"text": "\x1b[2J"})
                alice.send_to("watcher", "you")
            if kinds.count("data") == 2 and "removed" not in done:
                done.add("removed")
                alice.remove_track(stream.tracks[0])
            if "ended" in kinds and through == "sfu":
                return True  # that somebody has left is told ten seconds later
            if "ended" in kinds and "left" not in done:
                done.add("left")
                alice.close()
            return "left" in kinds

        told = Told(react)
        lines = watch(RoomWatch(watcher, told), "room", watcher)
    assert {member for _, member, _, _ in told} == {"alice"}
    assert told[0] == (
        "joined",
        "alice",
        'joined {"name": "Alice"}',
        {"metadata": {"name": "Alice"}},
    )
    video = {"kind": "video", "stream": "camera", "metadata": {"role": "cam"}}
    assert video in told.facts("track")
    assert {facts["kind"] for facts in told.facts("track")} == {"audio", "video"}
    assert told.facts("data") == [
        {"data": {"text": "\x1b[2J"}, "direct": False},
        {"data": "you", "direct": True},
    ]
    texts = [text for _, _, text, _ in told]
    assert 'sends video of camera {"role": "cam"}' in texts
    assert 'says {"text": "\\u001b[2J"}' in texts
    assert 'says to this member "you"' in texts
    assert told.facts("ended") == [{"kind": "video", "stream": "camera"}]
    assert re.fullmatch(r"0:00  (nobody else|1 other)  0 kbit/s received", lines[0])
    assert any("  1 other  " in line for line in lines)


def test_each_member_is_recorded_into_a_file_of_its_own(
    cloud: LocalCloud, peer: functools.partial[MeteredPeer], tmp_path: Path
) -> None:
    with (
        peer(cloud, "alice") as alice,
        peer(cloud, "bob") as bob,
        peer(cloud, "watcher") as watcher,
    ):
        for one in (alice, bob):
            one.add_stream(sources())
            one.join("room")
        folder = tmp_path / "new" / "folder"
        told = Told(lambda kinds: kinds.count("recorded") == 1)
        watching = RoomWatch(watcher, told)

        def leave(line: str) -> None:
            lines.append(line)
            sizes = [path.stat().st_size for path in folder.glob("*.mkv")]
            if len(sizes) == 2 and min(sizes) > 5000 and alice.state == "joined":
                alice.close()

        lines: list[str] = []
        with RoomFiles(folder, watching.recorded) as files:
            watching.files = files
            watcher.join("room")
            with pytest.raises(EnoughError):
                watching.run(leave, 30)
            assert [path.name for path in sorted(folder.iterdir())] == ["alice.mkv", "bob.mkv"]
        assert files.errors == []
    assert [member for kind, member, _, _ in told if kind == "recorded"] == ["alice", "bob"]
    for facts in told.facts("recorded"):
        assert set(probe(Path(facts["path"]))) == {"audio", "video"}
    assert " MB recorded" in lines[-1] or " kB recorded" in lines[-1]
