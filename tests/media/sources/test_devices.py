"""Capture cameras, microphones and screens; explain why one cannot be captured."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import pytest

from metered_sync import (
    DeviceSource,
    MediaError,
    MediaNotFoundError,
    from_camera,
    from_microphone,
    screen_share,
)
from metered_sync.media.sources import devices
from metered_sync.media.tracks.given import tracks_of
from tests.conftest import need, run_script, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="captures through X11 and ALSA")
ALSA = "alsa" in av.formats_available


class Screen:
    """An X server of its own, 160x120."""

    def __init__(self) -> None:
        self._root = need("xsetroot", "x11-xserver-utils")
        self._process = subprocess.Popen(
            [need("Xvfb", "xvfb"), "-displayfd", "1", "-noreset", "-screen", "0", "160x120x24"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        self.name = f":{int(self._process.stdout.readline())}"

    def paint(self, colour: str) -> None:
        subprocess.run([self._root, "-display", self.name, "-solid", colour], check=True)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def xvfb() -> Iterator[Screen]:
    screen = Screen()
    try:
        yield screen
    finally:
        screen.kill()


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if "screen_share" in t.name]


def take(source: DeviceSource, colour: tuple[int, int, int], timeout: float = 20) -> Any:
    """Consume until a picture of one colour (blue, green, red) comes; return it."""

    async def main() -> Any:
        last = -1
        while True:
            assert source.video is not None
            frame: Any = await source.video.recv()
            assert frame.pts > last
            last = frame.pts
            mean = frame.to_ndarray(format="bgr24").mean(axis=(0, 1))
            if all(abs(m - c) < 30 for m, c in zip(mean, colour, strict=True)):
                return frame

    return asyncio.run(asyncio.wait_for(main(), timeout))


# --- screens --------------------------------------------------------------------------


def test_a_screen_is_shown_as_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    with xvfb() as screen:
        screen.paint("#ff0000")
        with screen_share(screen.name, fps=10) as source:
            assert source.audio is None
            with pytest.raises(MediaError, match="None is no track"):
                tracks_of(source.audio)
            red = take(source, (0, 0, 255))
            assert (red.width, red.height, red.format.name) == (160, 120, "yuv420p")
            screen.paint("#0000ff")
            blue = take(source, (255, 0, 0))
            assert blue.time > red.time
            assert source.position >= blue.time - 0.1
            assert source.duration is None
            with pytest.raises(MediaError, match="is live"):
                source.seek(1)
            assert threads()
        wait_until(lambda: not threads())

        monkeypatch.setenv("DISPLAY", screen.name)
        with screen_share(width=81, height=60, fps=10, timeout=10) as part:
            assert take(part, (255, 0, 0)).width == 80
        with pytest.raises(MediaError, match="the size not larger than it"):
            screen_share(width=1600, height=1200)

        dying = screen_share(fps=10)
        take(dying, (255, 0, 0))
    with pytest.raises(MediaError, match=r"screen_share.*has broken off"):
        dying.wait(timeout=20)
    with pytest.raises(MediaError, match=r"screen_share.*cannot be opened.*is DISPLAY set"):
        screen_share()


# --- microphones ----------------------------------------------------------------------

CONFIG = """
pcm.default {{
    type file
    slave.pcm {{ type null }}
    file "/dev/null"
    infile "{fifo}"
    format "raw"
}}
"""
LISTEN = """
import asyncio, sys, threading
import numpy as np
from metered_sync import from_microphone
from metered_sync.testing import dominant_frequency

wave = np.repeat((np.sin(np.arange(48000) * (2 * np.pi * 500 / 48000)) * 8000).astype("<i2"), 2)

def speak():
    try:
        with open(sys.argv[1], "wb") as fifo:
            while True:
                fifo.write(wave.tobytes())
    except BrokenPipeError:
        pass

threading.Thread(target=speak).start()
with from_microphone() as source:
    assert source.video is None
    async def main():
        return [await source.audio.recv() for _ in range(6)]
    frames = asyncio.run(asyncio.wait_for(main(), 50))
assert all(a.pts < b.pts for a, b in zip(frames, frames[1:]))
frame = frames[0]
sound = [f.to_ndarray()[0, ::2] for f in frames[2:]]
print(source, frame.format.name, frame.layout.name, frame.samples, frame.sample_rate)
pitch = np.median([dominant_frequency(piece, 48000) for piece in sound])
print(round(pitch / 50), np.max(sound) > 4000)
"""


@pytest.mark.skipif(not ALSA, reason="this build of PyAV has no ALSA")
def test_a_microphone_is_heard(tmp_path: Path) -> None:
    """Through ALSA, configured so that its sound comes from a pipe."""
    fifo, config = tmp_path / "fifo", tmp_path / "asound.conf"
    os.mkfifo(fifo)
    config.write_text(CONFIG.format(fifo=fifo))
    done = run_script(LISTEN, str(fifo), ALSA_CONFIG_PATH=str(config))
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first.startswith("<DeviceSource from_microphone('default'): stopped")
    assert first.endswith("s16 stereo 960 48000")
    assert second == "10 True"


STUCK = """
import time
from metered_sync import MeteredTimeoutError, from_microphone
try:
    from_microphone(timeout=0.2)
except MeteredTimeoutError as error:
    print(error)
    print(time.monotonic())
"""


@pytest.mark.skipif(not ALSA, reason="this build of PyAV has no ALSA")
def test_a_microphone_that_does_not_open_in_time(tmp_path: Path) -> None:
    """A pipe that nobody writes to: opening it would wait for ever, and hold up the exit."""
    fifo, config = tmp_path / "fifo", tmp_path / "asound.conf"
    os.mkfifo(fifo)
    config.write_text(CONFIG.format(fifo=fifo))
    done = run_script(STUCK, ALSA_CONFIG_PATH=str(config))
    ended = time.monotonic()
    assert (done.returncode, done.stderr) == (0, "")
    error, moment = done.stdout.splitlines()
    assert error == "from_microphone('default'): did not open within 0.2 s"
    assert ended - float(moment) < 6


def test_a_microphone_that_is_not_there() -> None:
    with pytest.raises(MediaError) as info:
        from_microphone("no-such-card")
    if ALSA:
        assert "from_microphone('no-such-card') cannot be opened" in str(info.value)
        assert "arecord -L" in str(info.value)
    else:
        assert "has no 'alsa' input" in str(info.value)
        assert "pip install -U av" in str(info.value)


# --- cameras --------------------------------------------------------------------------


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(MediaNotFoundError, match=r"from_camera\('/dev/video97'\).*no such camera"):
        from_camera(97)
    with pytest.raises(MediaError, match=r"from_camera\('/dev/null'\).*this is no such device"):
        from_camera("/dev/null", width=0, height=0)


def test_what_this_build_of_pyav_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(MediaError, match=r"no 'avfoundation' input.*captures a camera here"):
        from_camera()
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(MediaError, match=r"screen_share\('desktop'\).*no 'gdigrab' input"):
        screen_share()
    with pytest.raises(ValueError, match="on Windows device must be a name"):
        from_camera(0)


@pytest.mark.parametrize(
    ("platform", "function", "device", "expected"),
    [
        ("linux", devices._camera, None, ("v4l2", "/dev/video0")),
        ("linux", devices._camera, 2, ("v4l2", "/dev/video2")),
        ("linux", devices._microphone, None, ("alsa", "default")),
        ("linux", devices._microphone, 1, ("alsa", "plughw:1")),
        ("linux", devices._screen, ":1.0+5,5", ("x11grab", ":1.0+5,5")),
        ("darwin", devices._camera, None, ("avfoundation", "default:none")),
        ("darwin", devices._microphone, 1, ("avfoundation", ":1")),
        ("darwin", devices._screen, None, ("avfoundation", "Capture screen 0:none")),
        ("win32", devices._camera, "Cam", ("dshow", "video=Cam")),
        ("win32", devices._microphone, "Mic", ("dshow", "audio=Mic")),
        ("win32", devices._screen, "title=Paint", ("gdigrab", "title=Paint")),
    ],
)
def test_what_a_device_is_called(
    monkeypatch: pytest.MonkeyPatch, platform: str, function: Any, device: Any, expected: Any
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert function(device) == expected


# --- mistakes -------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["rtsp://camera/1", "http://camera/1", "", "a\0b"])
def test_urls_are_no_devices(url: str) -> None:
    for function in (from_camera, from_microphone, screen_share):
        with pytest.raises(ValueError, match="a URL is opened by from_rtsp"):
            function(url)


def test_mistakes() -> None:
    for size in (-1, 0.5, True):
        with pytest.raises(ValueError, match="width must be"):
            from_camera(width=size)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="together"):
        screen_share(width=100)
    for fps in (0, -1, math.nan, 1000, True):
        with pytest.raises(ValueError, match="fps must be"):
            from_camera(fps=fps)
    with pytest.raises(ValueError, match="whole number from 0 up"):
        from_camera(-1)
    for device in (True, b"/dev/video0", 1.5):
        with pytest.raises(TypeError, match="device must be"):
            from_camera(device)  # type: ignore[arg-type]
