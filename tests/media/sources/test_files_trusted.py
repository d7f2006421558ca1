"""Play files that name other files: only where they are trusted, whatever they are called."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from av import VideoFrame

from metered_sync import MediaError, from_file

BUNNY = Path(__file__).parents[3] / "metered_sync" / "demo" / "bunny.mp4"

CONCAT = "ffconcat version 1.0\nfile secret.mp4\n"
PLAYLIST = (
    "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:5,\nsecret.ts\n#EXT-X-ENDLIST\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(BUNNY, tmp_path / "secret.mp4")
    return tmp_path


@pytest.mark.parametrize("name", ["list.ffconcat", "holiday.mp4", "list"])
@pytest.mark.parametrize("text", [CONCAT, PLAYLIST])
def test_a_list_of_files_is_refused(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(MediaError, match="cannot be opened"):
        from_file(folder / name)


def test_the_error_says_what_to_do(folder: Path) -> None:
    (folder / "holiday.mp4").write_text(CONCAT)
    with pytest.raises(MediaError, match="trusted=True"):
        from_file(folder / "holiday.mp4")


def test_a_trusted_list_is_played(folder: Path) -> None:
    (folder / "list.ffconcat").write_text(CONCAT)
    with from_file(folder / "list.ffconcat", trusted=True) as source:
        assert source.video is not None


def test_a_row_of_pictures(tmp_path: Path) -> None:
    image = VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24").to_image()
    for name in ("p0.png", "p1.png", "p%d.png", "one.png", "one.tga"):
        image.save(tmp_path / name)
    with pytest.raises(MediaError, match="trusted=True"):
        from_file(tmp_path / "p%d.png")
    for name in ("one.png", "one.tga"):
        from_file(tmp_path / name).stop()
    from_file(tmp_path / "p%d.png", trusted=True).stop()
