"""Capture cameras, microphones and screens of this machine, with FFmpeg's input devices."""

from __future__ import annotations

import errno
import glob
import os
import sys
from typing import Any, Literal, NamedTuple

import av
from aiortc.mediastreams import MediaStreamTrack

from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.sending.feed import Feed
from metered_sync.errors import MediaError, MediaNotFoundError, MeteredTimeoutError
from metered_sync.media.opening import open_in_time
from metered_sync.media.pyav import OPEN_ERRORS, READ_ERRORS, media_error
from metered_sync.media.sources.base import A_co, V_co
from metered_sync.media.sources.live import LiveSource
from metered_sync.media.sources.playout import Playout, StreamLostError, read
from metered_sync.wire.arguments import check_number, check_whole, plain_number, shown
from metered_sync.wire.secrets import hides_arguments

__all__ = ["DeviceSource", "from_camera", "from_microphone", "screen_share"]

OPEN_TIMEOUT = 15.0
"""Seconds that opening a device may take unless told otherwise."""
ALSA_CONFIG = "/usr/share/alsa/alsa.conf"
"""The system's configuration of ALSA."""

DeviceKind = Literal["camera", "microphone", "screen"]
"""The kinds of devices that can be captured."""


class _InputDevice(NamedTuple):
    """Name an input device as FFmpeg does."""

    format: str
    name: str


@hides_arguments
def from_camera(
    device: str | int | None = None,
    *,
    width: int = 640,
    height: int = 480,
    fps: float = 30,
    timeout: float | None = None,
) -> DeviceSource[None, MediaStreamTrack]:
    """Open a camera of this machine; return a live source of its pictures.

    Args:
        device: Its number, or its name: Linux a path (``"/dev/video0"``), macOS a name,
            Windows a name (needed there). ``None``: the first.
        width: In pixels, one that the camera offers; 0 with a height of 0: its own choice.
        height: Likewise.
        fps: Pictures per second.
        timeout: Seconds in which to open it; ``None``: 15.

    Raises:
        MediaNotFoundError: There is no such camera.
        MediaError: It cannot be opened, and why.
        MeteredTimeoutError: It did not open in time.
    """
    return DeviceSource("camera", device, _options(width, height, fps), timeout)


@hides_arguments
def from_microphone(
    device: str | int | None = None, *, timeout: float | None = None
) -> DeviceSource[MediaStreamTrack, None]:
    """Open a microphone of this machine; return a live source of its sound.

    Args:
        device: Linux a name in ALSA's configuration, or a card's number (an ALSA name may
            hold commands and files: take none from a stranger); macOS a name or number;
            Windows a name (needed there). ``None``: the default one.
        timeout: Seconds in which to open it; ``None``: 15.

    Raises:
        MediaError: It cannot be opened, and why.
        MeteredTimeoutError: It did not open in time.
    """
    return DeviceSource("microphone", device, {}, timeout)


@hides_arguments
def screen_share(
    device: str | int | None = None,
    *,
    width: int = 0,
    height: int = 0,
    fps: float = 30,
    timeout: float | None = None,
) -> DeviceSource[None, MediaStreamTrack]:
    """Capture this machine's screen; return a live source of it.

    Args:
        device: Linux an X11 display, with an offset in pixels if wanted (``":0.0+10,20"``);
            macOS a screen's name or number; Windows ``"desktop"`` or ``"title=…"`` of a
            window. ``None``: the screen of ``DISPLAY``, or the first.
        width: In pixels; 0 with a height of 0: all of it.
        height: Likewise.
        fps: Pictures per second.
        timeout: Seconds in which to open it; ``None``: 15.

    Raises:
        MediaError: It cannot be captured, and why.
        MeteredTimeoutError: It did not open in time.
    """
    return DeviceSource("screen", device, _options(width, height, fps), timeout)


class DeviceSource(LiveSource[A_co, V_co]):
    """Capture a camera, a microphone or a screen. Made by the functions above."""

    def __init__(
        self,
        kind: DeviceKind,
        device: str | int | None,
        options: dict[str, str],
        timeout: float | None,
    ) -> None:
        """Open the device; see the functions above."""
        deadline = Deadline.of(timeout, OPEN_TIMEOUT)
        where = _NAMING[kind](_checked(kind, device))
        label = f"{_FUNCTIONS[kind]}({where.name!r})"
        try:
            container = open_in_time(lambda: _open(kind, label, where, options), deadline, label)
        except TimeoutError:
            raise MeteredTimeoutError(f"{label}: did not open within {deadline}") from None
        # Taken out again by the thread: in a forked child nobody is to hold it.
        box = [container]
        del container

        def produce(feed: Feed) -> None:
            problem: Exception = StreamLostError("nothing comes any more")
            with box.pop() as container:
                try:
                    if not read(container, feed, Playout(feed)):
                        return
                except (StreamLostError, *READ_ERRORS) as error:
                    problem = error
            if not feed.stopped:
                raise media_error(f"{label} has broken off", problem, remedy="is it still there?")

        super().__init__(label, ["audio" if kind == "microphone" else "video"], produce)


def _checked(kind: DeviceKind, device: str | int | None) -> str | int | None:
    if device is None:
        return None
    number = plain_number(device)
    if number is not None and number % 1 == 0:
        return check_whole("device", device)
    if not isinstance(device, str):
        raise TypeError(f"device must be a str or an int, not {type(device).__name__}")
    if not device or "\0" in device or "://" in device:
        raise ValueError(
            f"{shown(device)} is no {kind} of this machine; a URL is opened by from_rtsp(), "
            "a file by from_file()"
        )
    return device


def _options(width: int, height: int, fps: float) -> dict[str, str]:
    width = check_whole("width", width, unit="pixels")
    height = check_whole("height", height, unit="pixels")
    if (width == 0) != (height == 0):
        raise ValueError("width and height must be given together, or both be 0")
    fps = check_number("fps", fps, 0, 240, above=True)
    return {"framerate": f"{fps:g}"} | ({"video_size": f"{width}x{height}"} if width else {})


def _camera(device: str | int | None) -> _InputDevice:
    if sys.platform == "darwin":
        return _InputDevice("avfoundation", f"{'default' if device is None else device}:none")
    if sys.platform == "win32":
        return _InputDevice("dshow", f"video={_named(device)}")
    path = device if isinstance(device, str) else f"/dev/video{device or 0}"
    return _InputDevice("v4l2", path)


def _microphone(device: str | int | None) -> _InputDevice:
    if sys.platform == "darwin":
        return _InputDevice("avfoundation", f":{'default' if device is None else device}")
    if sys.platform == "win32":
        return _InputDevice("dshow", f"audio={_named(device)}")
    return _InputDevice(
        "alsa", f"plughw:{device}" if isinstance(device, int) else device or "default"
    )


def _screen(device: str | int | None) -> _InputDevice:
    if sys.platform == "darwin":
        name = device if isinstance(device, str) else f"Capture screen {device or 0}"
        return _InputDevice("avfoundation", f"{name}:none")
    if sys.platform == "win32":
        return _InputDevice("gdigrab", device if isinstance(device, str) else "desktop")
    name = f":{device}" if isinstance(device, int) else device
    return _InputDevice("x11grab", name or os.environ.get("DISPLAY") or ":0.0")


def _named(device: str | int | None) -> str:
    if not isinstance(device, str):
        raise ValueError(
            "on Windows device must be a name: 'ffmpeg -list_devices true -f dshow -i dummy' "
            "lists them"
        )
    return device


_NAMING = {"camera": _camera, "microphone": _microphone, "screen": _screen}
_FUNCTIONS = {"camera": "from_camera", "microphone": "from_microphone", "screen": "screen_share"}


def _open(kind: DeviceKind, label: str, where: _InputDevice, options: dict[str, str]) -> Any:
    """Open a device, on any thread; say why it cannot be opened."""
    try:
        av.ContainerFormat(where.format, "r")
    except ValueError as error:
        raise MediaError(
            f"{label}: this build of PyAV ({av.__version__}) has no {where.format!r} input, which "
            f"captures a {kind} here: take a newer one (pip install -U av), or build it against "
            "the system's FFmpeg (pip install --no-binary av av)"
        ) from error
    if where.format == "alsa" and os.path.exists(ALSA_CONFIG):
        # PyAV's wheels look for it where they were built: in /tmp, where anybody may put one.
        os.environ.setdefault("ALSA_CONFIG_PATH", ALSA_CONFIG)
    try:
        # What is captured is known; FFmpeg need not watch it for seconds to find out.
        options = {**options, "fpsprobesize": "0"}
        return av.open(where.name, format=where.format, options=options)
    except OPEN_ERRORS as error:
        number = getattr(error, "errno", None)
        if number == errno.ENOENT and where.format == "v4l2":
            there = ", ".join(sorted(glob.glob("/dev/video*"))) or "none"
            raise media_error(
                label,
                error,
                reason=f"there is no such camera (found: {there})",
                remedy="is it plugged in? A container must be given it (docker run --device)",
                kind=MediaNotFoundError,
            ) from error
        remedy = _DEVICE_REMEDIES.get(number, _KIND_REMEDIES[kind])
        raise media_error(f"{label} cannot be opened", error, remedy=remedy) from error


_DEVICE_REMEDIES: dict[Any, str] = {
    errno.EACCES: "this user may not: sudo usermod -aG video,audio $USER, and log in anew",
    errno.EPERM: "allow it in the system's privacy settings",
    errno.EBUSY: "another program is using it",
    errno.ENOTTY: "this is no such device",
}
_KIND_REMEDIES = {
    "camera": "does it offer that size and rate? (v4l2-ctl --list-formats-ext tells; "
    "width=0, height=0 leave it the choice)",
    "microphone": "name one that 'arecord -L' lists, for instance 'plughw:0,0' (what needs "
    "plug-ins of ALSA, as PulseAudio's, PyAV's wheels cannot open)",
    "screen": "is DISPLAY set to a display that may be seen, and the size not larger than it? "
    "Wayland's screens cannot be captured so",
}
