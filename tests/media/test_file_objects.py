"""Play open files, uploads and memory, and refuse what cannot be sought in."""

from __future__ import annotations

import io
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from metered_sync import MediaError, MeteredTimeoutError, from_file
from tests.support.django_project import set_up
from tests.support.media_files import play, write

SECONDS = 0.4


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("film") / "film.mkv", seconds=SECONDS)


def memory(film: Path) -> Any:
    return io.BytesIO(film.read_bytes())


def read_already(film: Path) -> Any:
    file = io.BytesIO(film.read_bytes())
    file.read()
    return file


def opened(film: Path) -> Any:
    return film.open("rb")


def unbuffered(film: Path) -> Any:
    return film.open("rb", buffering=0)


def temporary(film: Path) -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(film.read_bytes())
    return file


def named(film: Path) -> Any:
    file = tempfile.NamedTemporaryFile(suffix=".mkv")  # noqa: SIM115
    file.write(film.read_bytes())
    return file


def spooled(film: Path) -> Any:
    file = tempfile.SpooledTemporaryFile(max_size=1 << 24)  # noqa: SIM115
    file.write(film.read_bytes())
    return file


def django_in_memory(film: Path) -> Any:
    from django.core.files.uploadedfile import SimpleUploadedFile

    return SimpleUploadedFile("film.mkv", film.read_bytes(), "video/x-matroska")


def django_on_disk(film: Path) -> Any:
    set_up()
    from django.core.files.uploadedfile import TemporaryUploadedFile

    file = TemporaryUploadedFile("film.mkv", "video/x-matroska", film.stat().st_size, None)
    file.write(film.read_bytes())
    return file


def flask(film: Path) -> Any:
    from werkzeug.datastructures import FileStorage

    return FileStorage(io.BytesIO(film.read_bytes()), "film.mkv")


KINDS = [
    memory, read_already, opened, unbuffered, temporary, named, spooled,
    django_in_memory, django_on_disk, flask,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_can_be_sought_in_is_played(film: Path, kind: Callable[[Path], Any]) -> None:
    file = kind(film)
    with from_file(file) as source:
        frames = play(source)
        assert "from_file(<" in repr(source)
    assert SECONDS - 0.1 < frames["video"][-1].time < SECONDS  # (a busy machine drops some)
    assert SECONDS - 0.1 < frames["audio"][-1].time < SECONDS
    assert not file.closed
    file.close()


def test_it_is_wound_back_for_each_round(film: Path) -> None:
    with io.BytesIO(film.read_bytes()) as file, from_file(file, loop=True) as source:
        frames = play(source, pieces=60)
    assert max(frame.time for frame in frames["video"]) > 2 * SECONDS


def test_an_uploaded_playlist_names_no_file_of_ours(film: Path, tmp_path: Path) -> None:
    shutil.copy(film, tmp_path / "film.mkv")
    text = f"ffconcat version 1.0\nfile {tmp_path}/film.mkv\n"
    with pytest.raises(MediaError):
        from_file(io.BytesIO(text.encode()))
    with pytest.raises(MediaError):
        from_file(io.BytesIO(b"#EXTM3U\n#EXTINF:5,\nfile://" + str(film).encode() + b"\n"))


def test_one_that_is_closed_while_it_is_played(film: Path) -> None:
    file = io.BytesIO(film.read_bytes())
    with from_file(file) as source:
        file.close()
        play(source)
        with pytest.raises(MediaError, match=r"cannot be played any further.*closed"):
            source.wait(timeout=20)


class Stream(io.RawIOBase):
    def readable(self) -> bool:
        return True


def pipe() -> Any:
    reading, writing = os.pipe()
    os.close(writing)
    return os.fdopen(reading, "rb")


@pytest.fixture
def connection() -> Iterator[Any]:
    one, other = socket.socketpair()
    with one, other, one.makefile("rb") as file:
        yield file


def test_what_cannot_be_sought_in_is_refused(connection: Any) -> None:
    with pipe() as end:
        for file in (connection, end, Stream()):
            with pytest.raises(MediaError, match=r"cannot be sought in.*io.BytesIO\(data\)"):
                from_file(file)


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (b"bytes", TypeError, r"pass io.BytesIO"),
        (bytearray(5), TypeError, r"pass io.BytesIO"),
        (io.StringIO("x"), TypeError, "open as text: open it with 'rb'"),
        (3, TypeError, "takes a path, or a binary file to read, not int"),
        (None, TypeError, "not NoneType"),
        (io.BytesIO(b""), MediaError, "cannot be opened as media"),
        (io.BytesIO(b"nothing"), MediaError, "cannot be opened as media"),
    ],
)
def test_other_things_are_refused(value: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        from_file(value)


def test_a_closed_file_is_refused(film: Path) -> None:
    with film.open("rb") as file:
        pass
    with pytest.raises(MediaError, match=r"'film.mkv' is closed"):
        from_file(file)


# --- deadlines -------------------------------------------------------------------------


class Hanging(io.BytesIO):
    """A file on a disk that does not answer until it is told to."""

    def __init__(self) -> None:
        super().__init__(bytes(1 << 16))
        self.answer = threading.Event()

    def read(self, size: int | None = -1) -> bytes:
        self.answer.wait(30)
        return super().read(size)


def test_opening_keeps_its_deadline() -> None:
    file = Hanging()
    with pytest.raises(MeteredTimeoutError, match=r"not opened within 0.2 s"):
        from_file(file, timeout=0.2)
    file.answer.set()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_so_does_opening_a_trusted_list_that_names_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "list.ffconcat").write_text("ffconcat version 1.0\nfile pipe.mp4\n")
    with pytest.raises(MeteredTimeoutError):
        from_file(tmp_path / "list.ffconcat", trusted=True, timeout=0.3)
    os.close(os.open(tmp_path / "pipe.mp4", os.O_RDWR | os.O_NONBLOCK))


@pytest.mark.parametrize("timeout", [-1, True, float("nan")])
def test_a_timeout_that_is_none_is_refused(film: Path, timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout"):
        from_file(film, timeout=timeout)
