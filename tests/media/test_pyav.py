"""Use PyAV of any version: files that open, conversions on one thread, errors without secrets."""

from __future__ import annotations

import math
import pickle
import traceback
import wave
from pathlib import Path

import av
import av.error
import numpy as np
import pytest
from av import VideoFrame
from av.video.reformatter import VideoReformatter

from metered_sync import MediaError, MediaNotFoundError
from metered_sync.media.pyav import (
    ONE_THREAD,
    OPEN_ERRORS,
    media_error,
    media_errors,
    open_file,
    reason_of,
)
from tests.support.media_files import write

SECRET = "rtsp://ann:s3cret@127.0.0.1:1/video?token=t0ken"


def refused() -> Exception:
    """Return what PyAV raises where nothing listens."""
    with pytest.raises(av.error.ConnectionRefusedError) as told:
        av.open(SECRET, timeout=5)
    return told.value


def test_an_error_becomes_ours_and_loses_the_address() -> None:
    error = refused()
    assert "s3cret" in str(error)
    made = media_error("from_rtsp('…')", error, remedy="check host and port")
    assert str(made) == "from_rtsp('…'): Connection refused; check host and port"
    assert made.__cause__ is error
    assert isinstance(error, ConnectionRefusedError)
    for text in (str(error), repr(error), repr(vars(error)), repr(pickle.dumps(error))):
        assert "s3cret" not in text
        assert "t0ken" not in text


def test_the_whole_chain_is_free_of_secrets() -> None:
    with (
        pytest.raises(MediaError) as told,
        media_errors("x cannot be opened", errors=OPEN_ERRORS),
    ):
        av.open(SECRET, timeout=5)
    assert isinstance(told.value.__cause__, ConnectionRefusedError)
    chain = list(traceback.TracebackException.from_exception(told.value).format_exception_only())
    assert "s3cret" not in "".join(chain)
    assert told.value.__context__ is told.value.__cause__


def test_reasons() -> None:
    assert reason_of(OSError(2, "No such file or directory", "/a/b")) == "No such file or directory"
    assert reason_of(ValueError("embedded null byte")) == "embedded null byte"
    assert reason_of(ValueError(f"cannot open {SECRET}")) == (
        "cannot open rtsp://…@127.0.0.1:1/video?token=…"
    )
    assert reason_of(KeyError()) == "KeyError"


def test_what_is_said_can_be_chosen() -> None:
    def remedy(error: BaseException) -> str:
        return f"it was {type(error).__name__}"

    with (
        pytest.raises(MediaError, match=r"^x failed: disk full; it was OSError$"),
        media_errors("x failed", remedy),
    ):
        raise OSError(28, "disk full")
    made = media_error("camera", OSError(2, "none"), reason="not here", kind=MediaNotFoundError)
    assert isinstance(made, FileNotFoundError)
    assert str(made) == "camera: not here"


def test_other_errors_pass() -> None:
    mine = MediaError("said already")
    for error in (mine, ValueError("a mistake"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as told, media_errors("x failed"):
            raise error
        assert told.value is error


def test_conversions_run_on_one_thread_where_pyav_can() -> None:
    frame = VideoFrame.from_ndarray(np.full((48, 64, 3), 99, np.uint8), "rgb24")
    grey = VideoReformatter().reformat(frame, format="gray", **ONE_THREAD)
    assert grey.to_ndarray().shape == (48, 64)


def test_a_name_is_never_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.mkv", seconds=0.2).rename(tmp_path / "http:a.mkv")
    monkeypatch.chdir(tmp_path)
    with open_file("http:a.mkv") as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
    with pytest.raises(FileNotFoundError):
        open_file("https://127.0.0.1/a.mkv")


def test_text_that_is_not_utf8_does_not_keep_a_file_from_opening(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Baeume"
        stream = container.add_stream("pcm_s16le", rate=48000)
        for packet in (*stream.encode(silence()), *stream.encode(None)):
            container.mux(packet)
    path.write_bytes(path.read_bytes().replace(b"Baeume", b"B\xe4ume\xff"))
    with open_file(str(path)) as container:
        assert len(container.streams) == 1


def silence() -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1920), np.int16), "s16", "stereo")
    frame.sample_rate = 48000
    return frame


def test_a_tone_of_1000_hz_in_a_wav_file_is_sound(tmp_path: Path) -> None:
    # FFmpeg 8.1 (PyAV 19), which looks at the samples, takes this one for another format.
    path = tmp_path / "tone.wav"
    tone = np.sin(2 * math.pi * 1000 * np.arange(48000) / 48000) * 12000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(48000)
        file.writeframes(np.repeat(tone.astype(np.int16), 2).tobytes())
    with open_file(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["audio"]
        assert container.duration == pytest.approx(1e6)
