"""Record into open files and memory; keep deadlines where a file does not answer."""

from __future__ import annotations

import io
import os
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from metered_sync import AudioSource, MediaError, MeteredTimeoutError, Recorder, from_file
from metered_sync.media.recording import recorder as recorder_module


def record(target: Any, **options: Any) -> Any:
    """Record a fifth of a second of sound."""
    source = AudioSource(input_rate=48000)
    recorder = Recorder(target, source, **options)
    recorder.start()
    source.push(np.full(9600, 5000, np.int16))
    source.end()
    source.wait_drained(timeout=20)
    return recorder.stop(timeout=20)


def memory(folder: Path) -> Any:
    return io.BytesIO(b"what was there before" * 10_000)


def opened(folder: Path) -> Any:
    return (folder / "out.bin").open("w+b")


def unbuffered(folder: Path) -> Any:
    return (folder / "out.bin").open("w+b", buffering=0)


def temporary(folder: Path) -> Any:
    return tempfile.TemporaryFile()


def spooled(folder: Path) -> Any:
    return tempfile.SpooledTemporaryFile(max_size=1 << 10)


@pytest.mark.parametrize(
    "kind", [memory, opened, unbuffered, temporary, spooled], ids=lambda kind: kind.__name__
)
@pytest.mark.parametrize("format", ["m4a", ".WAV"])
def test_what_can_be_sought_in_is_written(
    tmp_path: Path, kind: Callable[[Path], Any], format: str
) -> None:
    with kind(tmp_path) as file:
        info = record(file, format=format)
        assert 0.1 < info.duration < 10
        assert not file.closed
        file.seek(0)
        data = file.read()
        assert len(data) == info.bytes
        with av.open(io.BytesIO(data)) as container:
            assert container.streams.audio[0].codec_context.sample_rate == 48000
            frames = list(container.decode(audio=0))
        assert sum(frame.samples for frame in frames) > 6000
        with from_file(file) as source:
            assert source.audio is not None


def test_the_name_of_a_temporary_file_says_what_it_is() -> None:
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        info = record(file)
        assert info.path == os.path.basename(file.name)
        with av.open(file.name) as container:
            assert container.format.name == "wav"


def test_a_path_may_be_of_another_format_than_its_suffix(tmp_path: Path) -> None:
    record(tmp_path / "sound.part", format="wav")
    with av.open(str(tmp_path / "sound.part")) as container:
        assert container.format.name == "wav"


@pytest.mark.parametrize(
    ("target", "options", "kind", "words"),
    [
        (io.BytesIO(), {}, ValueError, r'suffix of .BytesIO. stands for no .*format="mp4"'),
        (io.BytesIO(), {"format": "avi"}, ValueError, "format must be one of"),
        (io.BytesIO(), {"format": 3}, ValueError, "format must be one of"),
        (io.StringIO(), {"format": "wav"}, TypeError, "open as text: open it with 'wb'"),
        (b"a.wav", {"format": "wav"}, TypeError, "io.BytesIO"),
        (None, {"format": "wav"}, TypeError, "not NoneType"),
    ],
)
def test_other_things_are_refused(
    target: Any, options: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        Recorder(target, **options)


def test_what_cannot_be_sought_in_is_refused(tmp_path: Path) -> None:
    one, other = socket.socketpair()
    words = r"cannot be sought in.*record to a path"
    with one, other, one.makefile("wb") as file, pytest.raises(MediaError, match=words):
        Recorder(file, format="wav")
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as end, pytest.raises(MediaError, match=words):
        Recorder(end, format="wav")


def test_one_that_is_closed_meanwhile_fails_with_words() -> None:
    file, source = io.BytesIO(), AudioSource(input_rate=48000)
    recorder = Recorder(file, source, format="wav")
    recorder.start()
    file.close()
    source.push(np.zeros(9600, np.int16))
    source.end()
    source.wait_drained(timeout=20)
    with pytest.raises(MediaError, match=r"writing failed.*cannot be written any more"):
        recorder.stop(timeout=20)


# --- what does not answer ----------------------------------------------------------------


needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")


@needs_pipes
def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(MediaError, match="it is a pipe"):
        Recorder(tmp_path / "pipe.mp4")


def test_a_disk_that_does_not_answer_holds_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    isdir = os.path.isdir

    def hang(path: str) -> bool:  # as a network's disk does whose server is gone
        if str(path) == str(tmp_path):
            answers.wait(30)
        return isdir(path)

    monkeypatch.setattr(os.path, "isdir", hang)
    monkeypatch.setattr(recorder_module, "CALL_TIMEOUT", 0.2)
    with pytest.raises(MeteredTimeoutError, match=r"asking the file system of .* within 0.2 s"):
        Recorder(tmp_path / "a.mp4")
    answers.set()
    monkeypatch.setattr(recorder_module, "CALL_TIMEOUT", 15.0)
    assert Recorder(tmp_path / "a.mp4").state == "ready"


@needs_pipes
def test_opening_keeps_its_deadline(tmp_path: Path) -> None:
    path = tmp_path / "pipe.wav"
    recorder = Recorder(path, AudioSource())
    os.mkfifo(path)  # in the meantime: to open it waits for a reader, as a dead disk's file waits
    with pytest.raises(MeteredTimeoutError, match=r"could not be opened within 0.2 s"):
        recorder.start(timeout=0.2)
    recorder.stop(timeout=5)
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))


class Hanging(io.BytesIO):
    """A file on a disk that stops to answer."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = threading.Event()
        self.hangs = threading.Event()

    def write(self, data: Any) -> int:
        self.hangs.set()
        self.answer.wait(30)
        return super().write(data)


def test_stopping_keeps_its_deadline() -> None:
    file, source = Hanging(), AudioSource(input_rate=48000)
    recorder = Recorder(file, source, format="wav")
    recorder.start()
    source.push(np.zeros(48000, np.int16))
    source.end()
    assert file.hangs.wait(20)
    with pytest.raises(MeteredTimeoutError, match=r"not finished within 0.2 s"):
        recorder.stop(timeout=0.2)
    file.answer.set()
    assert recorder.stop(timeout=20).duration > 0
