"""Rule 2: Ctrl-C works. Real signals, in processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from metered_sync.local import LocalCloud
from tests.conftest import ROOT, run_script

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")

CLIENT = """
import sys, threading, time
from metered_sync import SignallingClient, Message
"""

WAITS = {
    "a reader": "inbox.get()",
    "a reader with a deadline": "inbox.get(timeout=60)",
    "iteration": "next(inbox)",
    "wait_for": "client.wait_for(Message)",
    "a publish without an answer": "client.publish('c', 1, timeout=60)",
    "a subscribe without an answer": "client.subscribe('other', timeout=60)",
}


def interrupt(source: str, *args: str, times: int = 1) -> tuple[int, list[str], str, float]:
    """Run source until it prints "ready", send SIGINT; return status, lines, stderr, seconds."""
    with subprocess.Popen(
        [sys.executable, "-c", source, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            time.sleep(0.1)  # the main thread is on its way from the print into the wait
            started = time.monotonic()
            for number in range(times):
                if number:
                    time.sleep(0.2)
                process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
            assert first == "ready\n", err
            return process.returncode, out.splitlines(), err, time.monotonic() - started
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS.keys())
def test_every_wait_ends_and_the_with_block_closes_after_it(wait: str) -> None:
    source = f"""{CLIENT}
with _Server() as server:
    client = SignallingClient(api_key="pk_live_x", url=server.url)
    try:
        with client:
            inbox = client.subscribe("c")
            server.mute = True
            print("ready", flush=True)
            try:
                {wait}
            except KeyboardInterrupt:
                print("interrupted", client.state)
                raise
    except KeyboardInterrupt:
        print("closed", client.state)
        sys.exit(7)
"""
    status, lines, err, seconds = interrupt(SERVER + source)
    assert lines == ["interrupted connected", "closed closed"]
    assert (status, err) == (7, "")
    assert seconds < 20  # (a machine may be busy; a hang takes longer)


SERVER = """
import json, threading
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve
from metered_sync.wire.frames import Welcome, build_welcome, build_ack

class _Server:
    mute = False

    def __enter__(self):
        def answer(connection):
            connection.send(build_welcome(Welcome("me", None, 1, 65536)))
            try:
                for text in connection:
                    if not self.mute:
                        connection.send(build_ack(json.loads(text)["requestId"]))
            except ConnectionClosed:
                pass
        self.server = serve(answer, "127.0.0.1", 0)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"ws://127.0.0.1:{self.server.socket.getsockname()[1]}"
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
"""


def test_connect_ends() -> None:
    # A server that accepts and says nothing.
    source = f"""{CLIENT}
import socket
with socket.create_server(("127.0.0.1", 0)) as server:
    client = SignallingClient(api_key="pk_live_x", url=f"ws://127.0.0.1:{{server.getsockname()[1]}}")
    print("ready", flush=True)
    try:
        client.connect(timeout=60)
    except KeyboardInterrupt:
        print("interrupted", client.state)
        client.close()
        sys.exit(7)
"""
    status, lines, err, seconds = interrupt(source)
    assert (status, lines, err) == (7, ["interrupted idle"], "")
    assert seconds < 20  # (a machine may be busy; a hang takes longer)


ORDER = """
import sys, anyio
from metered_sync.bridge import engines
from metered_sync.bridge.deadline import Deadline

async def work():
    print("ready", flush=True)
    try:
        await anyio.sleep(60)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep({clean_up})
        print("cleaned up", flush=True)

try:
    engines.current().call(work, deadline=Deadline(60), what="work")
except KeyboardInterrupt:
    print("KeyboardInterrupt", flush=True)
    sys.exit(7)
"""


def test_the_inner_clean_up_comes_before_the_interrupt() -> None:
    for _ in range(10):
        status, lines, err, _ = interrupt(ORDER.format(clean_up=0.3))
        assert (status, lines, err) == (7, ["cleaned up", "KeyboardInterrupt"], "")


def test_the_clean_up_is_waited_for_two_seconds_at_most() -> None:
    status, lines, err, seconds = interrupt(ORDER.format(clean_up=30))
    assert (status, lines, err) == (7, ["KeyboardInterrupt"], "")
    assert 1.5 < seconds < 12


def test_a_second_interrupt_does_not_wait() -> None:
    # (The first one would wait for longer than a busy machine takes to start and end a process.)
    patient = "from metered_sync.bridge import loop\nloop.INTERRUPT_GRACE = 30\n"
    source = patient + ORDER.format(clean_up=60)
    status, lines, err, seconds = interrupt(source, times=2)
    assert (status, lines, err) == (7, ["KeyboardInterrupt"], "")
    assert seconds < 15


def test_no_signal_handler_is_installed(shared_cloud: LocalCloud) -> None:
    from tests.conftest import run_script

    done = run_script(
        f"""{CLIENT}
import signal
client = SignallingClient(url=sys.argv[1], api_key=sys.argv[2])
before = [signal.getsignal(n) for n in sorted(signal.valid_signals())]
with client:
    client.subscribe("x")
assert before == [signal.getsignal(n) for n in sorted(signal.valid_signals())]
print("same")
""",
        shared_cloud.url,
        shared_cloud.publishable_key,
    )
    assert (done.stdout, done.stderr) == ("same\n", "")


def test_interrupt_main_ends_a_wait(served_cloud: dict[str, str]) -> None:
    source = f"""{CLIENT}
import _thread
with SignallingClient(url=sys.argv[1], api_key=sys.argv[2]) as client:
    inbox = client.subscribe("quiet")
    for wait in (inbox.get, lambda: next(inbox), lambda: client.wait_for(Message)):
        began = time.monotonic()
        try:
            threading.Timer(0.1, _thread.interrupt_main).start()
            wait()
        except KeyboardInterrupt:
            print(time.monotonic() - began < 15)
"""
    done = run_script(source, served_cloud["url"], served_cloud["publishable_key"], timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n" * 3, "")
