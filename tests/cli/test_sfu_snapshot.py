"""Test that a picture of a track becomes a file, and what is said where none comes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metered_sync import AudioSource, SfuClient
from metered_sync.local import LocalCloud
from metered_sync.testing import read_number
from tests.support.command_line import call
from tests.support.sfu_commands import published


def test_a_picture_is_taken_by_name_and_by_ids(dev: LocalCloud, tmp_path: Path) -> None:
    with published(dev, "look") as sfu:
        for which, name in ((["--name", "look"], "a.jpg"), ([str(sfu.session_id)], "a.png")):
            done = call("sfu", "snapshot", *which, "-o", str(tmp_path / name), "--local")
            assert (done.status, done.out) == (0, ""), done.err
            assert done.err == f"{tmp_path / name}: 160x120\n"
            with Image.open(tmp_path / name) as picture:
                assert read_number(np.asarray(picture.convert("RGB"))) is not None


def test_no_picture_in_time_is_124(dev: LocalCloud, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    done = call("sfu", "snapshot", "--name", "nobody", "-W", "0.2", "-o", str(path), "--local")
    assert (done.status, done.out) == (124, "")
    with SfuClient(**dev.sfu_options()) as sfu:
        sfu.publish(AudioSource(), name="heard")
        done = call("sfu", "snapshot", "--name", "heard", "-o", str(path), "--local")
        assert done.status == 1
        assert "a snapshot is of pictures" in done.err
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "a.jpg"], "which tracks?"),
        (["--name", "x", "-o", "a.gif"], r".jpg, .jpeg or .png"),
        (["--name", "x", "-o", "nowhere/a.jpg"], "no directory nowhere"),
        (["--name", "x"], "--output"),
    ],
)
def test_misuse_is_told(arguments: list[str], words: str, dev: LocalCloud) -> None:
    done = call("sfu", "snapshot", *arguments, "--local")
    assert (done.status, done.out) == (2, "")
    assert words in done.err
