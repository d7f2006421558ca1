"""Hold the sources of a program that pushes to the rules."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from metered_sync import AudioSource, MeteredError, SfuClient, VideoSource, WrongThreadError
from metered_sync.local import LocalCloud
from tests.conftest import run_script
from tests.rules.test_fork import START as FORK
from tests.rules.test_fork import pytestmark as needs_fork
from tests.rules.test_interrupt import interrupt
from tests.rules.test_leaks import check
from tests.support.listening import Listener

START = """
import sys, threading, time
import numpy as np
from metered_sync import *
from metered_sync import AudioSource, VideoSource
second = np.ones(16000, np.int16)
image = np.zeros((48, 64, 3), np.uint8)
def full():
    source = AudioSource(max_buffered_seconds=0.5)
    try:
        source.push(second, timeout=0)
    except MeteredTimeoutError:
        return source
"""


# --- 1: deadlines -----------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [-1, float("nan"), True])
def test_deadlines_are_checked(timeout: Any) -> None:
    sound, pictures = AudioSource(), VideoSource(64, 48)
    image = np.zeros((48, 64, 3), np.uint8)
    for call in (
        lambda: sound.push(b"", timeout=timeout),
        lambda: sound.wait_drained(timeout=timeout),
        lambda: sound.wait(timeout=timeout),
        lambda: pictures.write(image, timeout=timeout),
        lambda: pictures.wait(timeout=timeout),
    ):
        with pytest.raises(ValueError, match="timeout must"):
            call()
    assert sound.buffered_seconds == 0


# --- 2: Ctrl-C --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wait",
    [
        "full().push(second)",
        "full().wait_drained()",
        "VideoSource(64, 48, fps=0.01).write(image)",
    ],
)
def test_ctrl_c_ends_every_wait(wait: str) -> None:
    source = f"""{START}
print("ready", flush=True)
try:
    {wait}
except KeyboardInterrupt:
    print("interrupted")
    sys.exit(7)
"""
    status, lines, err, seconds = interrupt(source)
    assert (status, lines, err) == (7, ["interrupted"], "")
    assert seconds < 20  # (a machine may be busy; a hang takes longer)


def test_a_source_goes_on_after_ctrl_c() -> None:
    source = f"""{START}
source = full()
print("ready", flush=True)
try:
    source.push(second)
except KeyboardInterrupt:
    source.clear()
    source.push(second[:1600], timeout=1)
    print(round(source.buffered_seconds, 1))
"""
    assert interrupt(source)[:3] == (0, ["0.1"], "")


# --- 3: any thread ----------------------------------------------------------------------


def test_many_threads_at_once() -> None:
    sound = AudioSource(max_buffered_seconds=0.2)
    pictures = VideoSource(64, 48, fps=200)
    image = np.zeros((48, 64, 3), np.uint8)
    wave = np.full(800, 9000, np.int16)
    over = threading.Event()
    errors: list[BaseException] = []

    def repeat(call: Any) -> None:
        try:
            while not over.is_set():
                call()
        except MeteredError as error:
            if not over.is_set():
                errors.append(error)

    calls: list[Any] = [
        *[lambda: sound.push(wave)] * 3,
        lambda: sound.push(b"x"),
        *[lambda: pictures.write(image)] * 3,
        lambda: (sound.level, sound.buffered_seconds, repr(sound), time.sleep(0.001)),
        lambda: (pictures.dropped, pictures.position, repr(pictures), time.sleep(0.001)),
        lambda: (time.sleep(0.03), sound.clear()),
    ]
    with Listener(sound.audio) as ear, Listener(pictures.video) as eye:
        threads = [threading.Thread(target=repeat, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        ear.wait_for(50)
        eye.wait_for(50)
        over.set()
        sound.stop()
        pictures.end()
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads)
        ear.wait_for_end()
        eye.wait_for_end()
        assert errors == []
        assert np.diff(ear.pts()).min() >= 960
        assert np.diff(eye.pts()).min() > 0


# --- 5: the loop thread -----------------------------------------------------------------


def test_blocking_calls_on_the_loop_thread_are_refused(shared_cloud: LocalCloud) -> None:
    sound, pictures = AudioSource(), VideoSource(64, 48)
    image = np.zeros((48, 64, 3), np.uint8)
    with SfuClient(**shared_cloud.sfu_options()) as client:
        errors: list[type[BaseException]] = []
        done = threading.Event()

        def on_the_loop() -> None:
            for call in (
                lambda: sound.push(b"xx"),
                sound.wait_drained,
                sound.wait,
                lambda: pictures.write(image),
            ):
                try:
                    call()
                except BaseException as error:
                    errors.append(type(error))
            done.set()

        engine: Any = client._engine
        engine.post(on_the_loop)
        assert done.wait(20)
        assert errors == [WrongThreadError] * 4


# --- 7: fork ----------------------------------------------------------------------------


@needs_fork
def test_fork(served_cloud: dict[str, str]) -> None:
    source = """
import numpy as np
from metered_sync import AudioSource, SfuClient, VideoSource
sfu = dict(url=sys.argv[3], app_id=sys.argv[4], secret=sys.argv[5])
second = np.ones(16000, np.int16)
image = np.zeros((48, 64, 3), np.uint8)
client = SfuClient(**sfu)
client.connect()
sound, pictures = AudioSource(max_buffered_seconds=0.2), VideoSource(64, 48)
client.publish(sound.audio); client.publish(pictures.video)
over = threading.Event()
def push():
    try:
        while True:
            sound.push(second)
    except ClosedError:
        over.set()
threading.Thread(target=push).start()
pictures.write(image)
def refused_all():
    for call in (
        lambda: sound.push(second), sound.clear, sound.end, sound.wait_drained, sound.stop,
        sound.wait, lambda: sound.level, lambda: sound.buffered_seconds, lambda: sound.audio,
        lambda: pictures.write(image), pictures.end, pictures.stop, pictures.wait,
    ):
        refused(call)
    repr(sound), repr(pictures), pictures.dropped, sound.position
def child():
    refused_all()
    mine = AudioSource(max_buffered_seconds=0.2)
    with SfuClient(**sfu) as client:
        client.publish(mine.audio)
        mine.push(second, timeout=10)
        mine.end()
        mine.wait(timeout=20)
assert in_child(child) == 0
for _ in range(20):  # the feed's lock may be held at any moment
    assert in_child(refused_all) == 0
sound.stop()
assert over.wait(20)
client.close()
pictures.stop()
"""
    done = run_script(
        FORK + source,
        served_cloud["url"],
        served_cloud["publishable_key"],
        served_cloud["http_url"],
        served_cloud["sfu_app_id"],
        served_cloud["sfu_secret"],
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


# --- 8: exit ----------------------------------------------------------------------------

LEAVE = {
    "threads are blocked": """
source, pictures = full(), VideoSource(64, 48, fps=0.01)
for call in (
    lambda: source.push(second),
    lambda: source.push(second, timeout=1e9),
    source.wait_drained,
    source.wait,
    lambda: pictures.write(image),
):
    threading.Thread(target=blocked, args=(call,)).start()
time.sleep(0.2)
""",
    "nothing was closed": "sources = full(), VideoSource(64, 48)\nsources[1].write(image)",
}


@pytest.mark.parametrize("source", LEAVE.values(), ids=LEAVE.keys())
def test_exit(source: str) -> None:
    done = run_script(
        f"""{START}
def blocked(call):
    try:
        call()
    except ClosedError:
        pass
{source}
print(time.monotonic(), flush=True)
"""
    )
    ended = time.monotonic()
    assert (done.returncode, done.stderr) == (0, "")
    assert ended - float(done.stdout) < 20  # (an interpreter may take long to end)


# --- 9: leaks ---------------------------------------------------------------------------


def test_sources_leave_nothing() -> None:
    wave = np.ones(320, np.int16)
    image = np.zeros((48, 64, 3), np.uint8)

    def round_() -> None:
        with (
            AudioSource() as sound,
            VideoSource(64, 48, fps=100) as pictures,
            Listener(sound.audio) as ear,
            Listener(pictures.video) as eye,
        ):
            sound.push(wave)
            pictures.write(image)
            sound.wait_drained(timeout=20)
            ear.wait_for(1)
            eye.wait_for(1)
        AudioSource().push(wave)
        VideoSource(64, 48, fps=100).write(image)

    check(round_, rounds=40)
