"""Test what is opened to be published, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from metered_sync import MediaError
from metered_sync.cli.media.publishing import opened
from tests.support.media_files import write


def test_a_file_and_the_pattern_are_opened_and_stopped(tmp_path: Path) -> None:
    for given, kinds in (
        ("pattern", {"video", "audio"}),
        (str(write(tmp_path / "sound.mkv", video=None)), {"audio"}),
    ):
        with opened(given) as sources:
            tracks = [track for source in sources for track in source.tracks]
            assert {track.kind for track in tracks} == kinds
        assert all(source._feed.stopped for source in sources)


def test_only_files_are_played_again_and_again(tmp_path: Path) -> None:
    with opened(str(write(tmp_path / "clip.mkv")), loop=True) as sources:
        assert len(sources) == 1
    for given in ("pattern", "rtsp://camera.example/stream", "rtsps://camera.example/stream"):
        with pytest.raises(ValueError, match="--loop is for files"), opened(given, loop=True):
            pass


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"nothing\.mp4"), opened(str(tmp_path / "nothing.mp4")):
        pass
