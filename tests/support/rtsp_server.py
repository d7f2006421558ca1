"""A real RTSP server: GStreamer's, run by the system's Python (see rtsp_server_gst.py)."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.conftest import missing

PYTHON = "/usr/bin/python3"
PROGRAM = Path(__file__).with_name("rtsp_server_gst.py")
PACKAGES = (
    "gir1.2-gst-rtsp-server-1.0, python3-gi, gstreamer1.0-plugins-base, "
    "gstreamer1.0-plugins-good, gstreamer1.0-plugins-ugly"
)


class RtspServer:
    """A camera on loopback. Its picture is red, 160x120 at 10 fps; its sound is 500 Hz."""

    def __init__(self, *login: str) -> None:
        """Start it; with ``login``, a user and a password are asked for."""
        _need_gstreamer()
        self._login = login
        # Not one that the system may give to a client while the server is down.
        self.port = next(filter(_is_free, random.sample(range(20000, 30000), 100)))
        self.start()

    def url(self, path: str = "both", login: str = "") -> str:
        """Return the URL of ``both``, ``video`` or ``audio``, for ``user:password@``."""
        return f"rtsp://{login}127.0.0.1:{self.port}/{path}"

    @property
    def pid(self) -> int:
        """The process that serves."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def start(self, size: str = "160x120") -> None:
        """Start, at the same port as before."""
        command = [PYTHON, str(PROGRAM), str(self.port), *self._login]
        environment = {**os.environ, "CAMERA_SIZE": size}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"listening\n"

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it stand still: connections are open, and nothing comes."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


@contextmanager
def rtsp_server(*login: str) -> Iterator[RtspServer]:
    """Run a server; with ``login``, a user and a password are asked for."""
    server = RtspServer(*login)
    try:
        yield server
    finally:
        server.kill()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@cache
def _works() -> bool:
    check = (
        "import gi; gi.require_version('GstRtspServer', '1.0')\n"
        "from gi.repository import Gst, GstRtspServer\nGst.init(None)\n"
        "assert all(map(Gst.ElementFactory.find, ['x264enc', 'rtph264pay', 'mulawenc', 'opusenc']))"
    )
    try:
        done = subprocess.run([PYTHON, "-c", check], capture_output=True, timeout=60, check=False)
    except OSError:
        return False
    return done.returncode == 0


def _need_gstreamer() -> None:
    if not _works():
        missing(f"needs GStreamer's RTSP server (Debian packages {PACKAGES})")
