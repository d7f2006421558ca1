"""Hold live sources to the rules: an RTSP server's, a microphone, a screen."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest

from metered_sync import MeteredTimeoutError, from_rtsp
from tests.conftest import run_script
from tests.rules.test_fork import START as FORK
from tests.rules.test_interrupt import interrupt
from tests.rules.test_leaks import check
from tests.support.rtsp_server import RtspServer, rtsp_server

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the RTSP server needs POSIX")

CONSUME = """
import asyncio, sys, threading, time
from metered_sync import from_rtsp
async def take(*tracks):
    for track in tracks:
        await asyncio.wait_for(track.recv(), 20)
"""


@pytest.fixture(scope="module")
def camera() -> Iterator[RtspServer]:
    with rtsp_server() as server:
        yield server


# --- 2: Ctrl-C ------------------------------------------------------------------------


@pytest.mark.parametrize("wait", ["connecting", "waiting"])
def test_ctrl_c(camera: RtspServer, wait: str) -> None:
    source = f"""{CONSUME}
try:
    with from_rtsp(sys.argv[1]) as source:
        if {wait == "connecting"}:
            import os, socket
            silent = socket.create_server(("127.0.0.1", 0))
            print("ready", flush=True)
            from_rtsp(f"rtsp://127.0.0.1:{{silent.getsockname()[1]}}/", timeout=60)
        asyncio.run(take(*source.tracks))
        print("ready", flush=True)
        source.wait()
except KeyboardInterrupt:
    print(source.state)
    sys.exit(7)
"""
    status, lines, err, seconds = interrupt(source, camera.url())
    assert (status, lines, err) == (7, ["stopped"], "")
    assert seconds < 20  # (a machine may be busy; a hang takes longer)


# --- 7: fork --------------------------------------------------------------------------


def test_fork(camera: RtspServer) -> None:
    """The child is refused, may open its own, and its end does not touch the parent's."""
    source = f"""{CONSUME}
source = from_rtsp(sys.argv[1])
asyncio.run(take(*source.tracks))
def child():
    for call in (source.wait, source.stop, lambda: source.video, lambda: source.tracks):
        refused(call)
    with from_rtsp(sys.argv[1]) as own:
        asyncio.run(take(*own.tracks))
    del globals()["source"]
    import gc
    gc.collect()
assert in_child(child) == 0
began = source.position
while source.position < began + 1:
    asyncio.run(take(*source.tracks))
assert (source.state, source.restarts) == ("connected", 0)
source.stop()
"""
    done = run_script(FORK + source, camera.url(), "")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


# --- 8: exit --------------------------------------------------------------------------

LEAVE = {
    "while it plays": "asyncio.run(take(*source.tracks))",
    "while the server stands still": "asyncio.run(take(*source.tracks)); stand_still()",
    "while it connects again": "end(); wait(lambda: source.state == 'reconnecting')",
}


@pytest.mark.parametrize("what", LEAVE)
def test_exit(what: str) -> None:
    with rtsp_server() as camera:
        pid = camera.pid
        done = run_script(
            f"""{CONSUME}
import logging, os, signal
logging.disable()
def end(): os.kill({pid}, signal.SIGKILL)
def stand_still(): os.kill({pid}, signal.SIGSTOP)
def wait(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
source = from_rtsp(sys.argv[1])
{LEAVE[what]}
print(time.monotonic(), flush=True)
""",
            camera.url(),
        )
        ended = time.monotonic()
    assert (done.returncode, done.stderr) == (0, "")
    assert ended - float(done.stdout) < 15  # (3 are the limit)


# --- 9: leaks -------------------------------------------------------------------------


def test_nothing_leaks(camera: RtspServer) -> None:
    def one() -> None:
        with from_rtsp(camera.url("audio")) as source, pytest.raises(MeteredTimeoutError):
            source.wait(timeout=0)

    check(one, rounds=6)
