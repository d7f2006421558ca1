"""Write a file whose disk may fail, in a process that may fork."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from metered_sync.media.recording.output_file import OutputFile
from tests.conftest import run_script


def test_writing_and_seeking(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    file = OutputFile(str(path))
    assert file.write(b"0123456789") == 10
    assert file.seek(2) == 2
    assert file.write(bytearray(b"ab")) == 2
    assert file.seek(-1, os.SEEK_END) == 9
    assert file.seek(-1, os.SEEK_CUR) == 8
    file.write(b"XYZ")
    assert (file.tell(), file.size, file.error) == (11, 11, None)
    file.close()
    file.close()
    assert path.read_bytes() == b"01ab4567XYZ"


def test_after_an_error_the_file_is_cut_back_to_where_it_was_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    file = OutputFile(str(path))
    file.write(b"whole")
    file.keep()
    file.write(b" and half")
    first = OSError(errno.ENOSPC, "No space left on device")
    file.fail(first)
    file.fail(OSError(errno.EIO, "another"))
    assert (file.error, file.size) == (first, 5)
    assert file.write(b"more") == 4  # (FFmpeg is not to notice)
    file.close()
    assert path.read_bytes() == b"whole"


def test_a_full_disk_is_told_once(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    file = OutputFile("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        file.write(b"x")
    assert file.error is not None
    assert file.write(b"x") == 1
    file.close()


def test_a_forked_child_writes_nothing(tmp_path: Path) -> None:
    done = run_script(
        """
import os, sys
from metered_sync.media.recording.output_file import OutputFile
file = OutputFile(sys.argv[1])
file.write(b"mine")
if not (child := os.fork()):
    file.write(b"theirs")
    file.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
file.write(b", too")
file.close()
""",
        str(tmp_path / "a.bin"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "a.bin").read_bytes() == b"mine, too"
