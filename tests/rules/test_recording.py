"""Hold recordings to the rules."""

from __future__ import annotations

import gc
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import av
import pytest

from metered_sync import Recorder, WrongThreadError
from metered_sync.bridge import engines
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource
from tests.conftest import run_script, wait_until
from tests.rules.test_fork import START as FORK
from tests.rules.test_interrupt import interrupt
from tests.rules.test_leaks import check

START = """
import os, signal, sys, threading, time
from metered_sync import ForkedError, MeteredTimeoutError, Recorder
from metered_sync.testing import PatternSource, ToneSource
path = sys.argv[1]
pattern, tone = PatternSource(160, 120, 15), ToneSource(frequency=440)
recorder = Recorder(path, pattern, tone)
def recorded(seconds):
    deadline = time.monotonic() + 30
    while recorder.info.duration < seconds and time.monotonic() < deadline:
        time.sleep(0.01)
    assert recorder.info.duration >= seconds
"""


def check_finished(path: Path, seconds: float) -> None:
    """The file has its end: what only a finished one has in its header."""
    with av.open(str(path)) as file:
        assert file.duration is not None
        assert file.duration > seconds * 1e6
        assert file.streams.video[0].frames > seconds * 10  # 0 in a fragmented one


# --- 2: Ctrl-C ------------------------------------------------------------------------


def test_ctrl_c_in_a_block_finishes_the_file(tmp_path: Path) -> None:
    source = f"""{START}
try:
    with recorder:
        recorded(0.5)
        print("ready", flush=True)
        threading.Event().wait(60)
except KeyboardInterrupt:
    print(recorder.state, recorder.info.frames > 5)
    sys.exit(7)
"""
    status, lines, err, seconds = interrupt(source, str(tmp_path / "a.mp4"))
    assert (status, lines, err) == (7, ["stopped True"], "")
    assert seconds < 20  # (a machine may be busy; a hang takes longer)
    check_finished(tmp_path / "a.mp4", 0.5)


SLOW = """
import asyncio
from fractions import Fraction
import av, numpy as np
from aiortc.mediastreams import MediaStreamTrack
class Noise(MediaStreamTrack):
    kind = "video"
    number = 0
    noise = np.random.default_rng(1).integers(0, 255, (2, 1080, 1280), np.uint8)
    frames = [av.VideoFrame.from_ndarray(one, "yuv420p") for one in noise]
    async def recv(self):
        await asyncio.sleep(0.005)
        self.number += 1
        frame = self.frames[self.number % 2]
        frame.pts, frame.time_base = self.number, Fraction(1, 200)
        return frame
recorder = Recorder(path, Noise())
recorder.start()
deadline = time.monotonic() + 30
while (not recorder.info.dropped or recorder.info.duration < 1) and time.monotonic() < deadline:
    time.sleep(0.01)
"""


def test_ctrl_c_in_stop_and_exit_while_much_is_to_be_written(tmp_path: Path) -> None:
    source = f"""{START}{SLOW}
try:
    recorder.stop(timeout=0)
except MeteredTimeoutError as error:
    message = str(error)
print("ready", flush=True)
try:
    recorder.stop(timeout=60)
except KeyboardInterrupt:
    print("interrupted", recorder.state, message)
"""
    status, lines, err, seconds = interrupt(source, str(tmp_path / "a.mp4"))
    assert (status, err) == (0, "")
    assert lines == [
        "interrupted recording Recorder('a.mp4'): the file was not finished within 0 s; it still "
        "is being"
    ]
    assert seconds < 20  # (a machine may be busy; a hang takes longer)
    with av.open(str(tmp_path / "a.mp4")) as file:  # it may lack its end, no more
        assert next(file.decode(video=0)).width == 1280


# --- 5: the loop thread ---------------------------------------------------------------


def test_blocking_calls_on_the_loop_thread_are_refused(tmp_path: Path) -> None:
    with ToneSource(frequency=440) as tone:
        recorder = Recorder(tmp_path / "a.wav", tone)
        errors: list[BaseException] = []
        done = threading.Event()

        def on_the_loop() -> None:
            for call in (recorder.start, recorder.stop):
                try:
                    call()
                except BaseException as error:
                    errors.append(error)
            done.set()

        engines.current().post(on_the_loop)
        assert done.wait(20)
        assert [type(error) for error in errors] == [WrongThreadError] * 2


# --- 7: fork --------------------------------------------------------------------------


def test_fork(shared_cloud: LocalCloud, tmp_path: Path) -> None:
    source = f"""
from metered_sync import Recorder
from metered_sync.testing import ToneSource
tone = ToneSource(frequency=440)
recorder = Recorder({str(tmp_path / "parent.ogg")!r}, tone)
waiting = Recorder({str(tmp_path / "other.ogg")!r}, tone)
def more(recorder):
    least = recorder.info.duration + 0.5
    while recorder.info.duration < least:
        time.sleep(0.01)
recorder.start()
more(recorder)
def child():
    global recorder
    for call in (
        recorder.start, recorder.stop, waiting.start, lambda: recorder.add(tone),
    ):
        refused(call)
    recorder = None
    with ToneSource(frequency=880) as mine:
        with Recorder({str(tmp_path / "child.ogg")!r}, mine) as own:
            more(own)
assert in_child(child) == 0
more(recorder)
assert recorder.stop().duration > 1
"""
    done = run_script(FORK + source, shared_cloud.url, shared_cloud.publishable_key)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


# --- 8: exit and collection -----------------------------------------------------------

LEAVE = {
    "forgotten": ("", 0),
    "after sys.exit": ("sys.exit(5)", 5),
}


@pytest.mark.parametrize(("source", "status"), LEAVE.values(), ids=LEAVE.keys())
def test_exit_finishes_the_file(source: str, status: int, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    body = "recorder.start()\nrecorded(0.5)\nprint(time.monotonic(), flush=True)\n"
    done = run_script(START + body + source, str(path))
    ended = time.monotonic()
    assert (done.returncode, done.stderr) == (status, "")
    assert ended - float(done.stdout) < 15  # (3 are the limit)
    check_finished(path, 0.5)


def test_a_forgotten_recorder_is_finished_and_says_so(tmp_path: Path) -> None:
    with PatternSource(160, 120, 15) as pattern:
        recorder = Recorder(tmp_path / "a.mp4", pattern)
        recorder.start()
        recording = recorder._recording
        wait_until(lambda: recording.info.duration > 0.5)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del recorder
            gc.collect()
        assert [str(w.message) for w in caught if w.category is ResourceWarning] == [
            "Recorder('a.mp4') was not stopped; use `with`, or call stop()"
        ]
        wait_until(lambda: recording.done.is_set)
        check_finished(tmp_path / "a.mp4", 0.5)


def test_a_recorder_with_a_callback_lives_on(tmp_path: Path) -> None:
    told: list[Any] = []
    with PatternSource(160, 120, 15) as pattern:
        Recorder(tmp_path / "a.mp4", pattern, on_progress=told.append).start()
        gc.collect()
        wait_until(lambda: told and told[-1].frames >= 8)
        recorders = (one for one in gc.get_objects() if issubclass(type(one), Recorder))
        (found,) = (one for one in recorders if one.info.path == str(tmp_path / "a.mp4"))
        assert found.state == "recording"
        found.stop()


# --- 9: leaks -------------------------------------------------------------------------


def test_recordings_leave_nothing(tmp_path: Path) -> None:
    with PatternSource(64, 48, 50) as pattern, ToneSource(frequency=440) as tone:

        def round_() -> None:
            with Recorder(tmp_path / "a.mkv", pattern.video, tone, on_progress=id) as recorder:
                wait_until(lambda: recorder._recording._first is not None)

        check(round_, rounds=20, per_round=5000)


def test_recordings_that_cannot_start_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")

    def round_() -> None:
        recorder = Recorder(tmp_path / "loop.mp4", on_progress=id)
        with pytest.raises(Exception, match="cannot be written"):
            recorder.start()
        recorder.stop()

    check(round_, rounds=50)
