"""Rule 8: exit-safe. A script that forgets to close ends soon, cleanly, with its own status."""

from __future__ import annotations

import gc
import re
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from metered_sync import Connected, Message, SignallingClient
from metered_sync.local import LocalCloud
from metered_sync.wire.frames import ClientFrame, Welcome, build_ack, build_welcome
from metered_sync.wire.frames import parse_client_frame as parse
from tests.conftest import run_script, wait_until

START = """
import sys, threading, time
from metered_sync import *
options = dict(url=sys.argv[1], api_key=sys.argv[2], rate_limit=None)
client = SignallingClient(**options)
client.connect()
"""


@contextmanager
def recorder() -> Iterator[tuple[str, list[int | None], list[ClientFrame]]]:
    """A server that acknowledges everything and notes the close codes it sees."""
    codes: list[int | None] = []
    frames: list[ClientFrame] = []

    def answer(connection: ServerConnection) -> None:
        connection.send(build_welcome(Welcome("me", None, 1, 65536)))
        try:
            while True:
                frame = parse(connection.recv())
                frames.append(frame)
                if frame.request_id is not None:
                    connection.send(build_ack(frame.request_id))
        except ConnectionClosed:
            received = connection.protocol.close_rcvd
            codes.append(received.code if received is not None else None)

    server = serve(answer, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}", codes, frames
    finally:
        server.shutdown()
        thread.join()


def leave(source: str, status: int = 0, stdout: str = "", times: int = 1) -> None:
    """Run a script; check its status, output, time, and that the server saw a proper close."""
    for _ in range(times):
        with recorder() as (url, codes, _frames):
            started = time.monotonic()
            done = run_script(START + source + "\nprint(time.monotonic())", url, "pk_live_x")
            ended = time.monotonic()
            assert (done.returncode, done.stderr) == (status, ""), done.stderr
            lines = done.stdout.splitlines()
            if status == 0:  # from the script's last line to the end of the process
                assert ended - float(lines.pop()) < 15  # (3 are the limit)
            assert ended - started < 30  # (an interpreter may take long to start)
            assert "\n".join(lines) == stdout
            wait_until(lambda codes=codes: codes, what="the connection ended")
            assert codes == [1000]


def test_idle() -> None:
    leave("", times=2)


def test_with_subscriptions_and_callbacks() -> None:
    leave("client.on(Message, print)\ninbox = client.subscribe('x')\nclient.publish('y', 1)")


def test_in_the_middle_of_a_burst() -> None:
    leave(
        """
def work():
    try:
        while True:
            client.publish("x", 1)
    except MeteredError:
        pass
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.3)
""",
        times=2,
    )


def test_with_daemon_threads_blocked_in_readers() -> None:
    leave(
        """
def suppress(wait):
    try:
        wait()
    except MeteredError:
        pass
inbox = client.subscribe("x")
for wait in (inbox.get, lambda: client.wait_for(Message), lambda: list(client.events())):
    threading.Thread(target=lambda wait=wait: suppress(wait), daemon=True).start()
time.sleep(0.2)
"""
    )


def test_a_non_daemon_thread_that_reads_is_woken_and_lets_go() -> None:
    leave(
        """
inbox = client.subscribe("x")
def read():
    for message in inbox:
        pass
threading.Thread(target=read).start()
"""
    )


def test_after_sys_exit() -> None:
    leave("sys.exit(5)", status=5)


def test_after_an_exception() -> None:
    with recorder() as (url, codes, _):
        done = run_script(START + "raise LookupError('own mistake')", url, "pk_live_x")
        assert done.returncode == 1
        assert done.stderr.strip().endswith("LookupError: own mistake")
        assert done.stderr.count("Traceback") == 1
        wait_until(lambda: codes)
        assert codes == [1000]


def test_sys_exit_in_a_callback_ends_the_callback_only() -> None:
    leave(
        """
seen = threading.Event()
@client.on(StateChange)
def quit(event):
    seen.set()
    sys.exit(3)
client._hub.emit(StateChange("a", "b"))
assert seen.wait(20)
print("still here")
""",
        stdout="still here",
    )


def test_callbacks_that_are_queued_still_run() -> None:
    with recorder() as (url, _, _frames):
        source = START + "client.on(Disconnected, lambda e: print(e.code, flush=True))"
        done = run_script(source, url, "pk_live_x")
        assert (done.returncode, done.stdout, done.stderr) == (0, "1000\n", "")


SLOW = {
    "a queue of slow callbacks": """
@client.on(StateChange)
def slow(event):
    time.sleep(0.5)
for number in range(20):
    client._hub.emit(StateChange("a", str(number)))
""",
    "a callback that hangs": """
entered = threading.Event()
@client.on(StateChange)
def slow(event):
    entered.set()
    time.sleep(60)
client._hub.emit(StateChange("a", "b"))
assert entered.wait(20)
""",
}


@pytest.mark.parametrize("source", SLOW.values(), ids=SLOW.keys())
def test_slow_callbacks_do_not_hold_the_exit_and_are_named_in_one_line(source: str) -> None:
    # (What is registered before the library is imported runs after the library's own.)
    before = """
import atexit, time
atexit.register(lambda: print(time.monotonic() - begun))
"""
    with recorder() as (url, codes, _frames):
        done = run_script(before + START + source + "\nbegun = time.monotonic()", url, "pk_live_x")
        assert done.returncode == 0
        assert float(done.stdout) < 20
        line = r"the interpreter exits before all .*: SignallingClient.*: slow runs, \d+ queued\n"
        assert re.fullmatch(line, done.stderr), done.stderr
        wait_until(lambda: codes, what="the connection ended")
        assert codes == [1000]


def test_while_a_token_provider_hangs() -> None:
    with recorder() as (url, _, _frames):
        source = """
import sys, threading, time
from metered_sync import *
def provide():
    time.sleep(60)
client = SignallingClient(url=sys.argv[1], token_provider=provide)
def connect():
    try:
        client.connect(timeout=60)
    except MeteredError:
        pass
threading.Thread(target=connect, daemon=True).start()
time.sleep(0.3)
"""
        started = time.monotonic()
        done = run_script(source, url)
        assert (done.returncode, done.stderr) == (0, "")
        assert time.monotonic() - started < 30  # (an interpreter may take long to start)


def test_while_the_server_does_not_answer_the_close() -> None:
    # A raw socket that upgrades, says welcome, and then nothing more.
    source = """
import base64, hashlib, socket, sys, threading, time
from metered_sync import *
from metered_sync.wire.frames import Welcome, build_welcome
server = socket.create_server(("127.0.0.1", 0))
def answer():
    connection, _ = server.accept()
    request = b""
    while b"\\r\\n\\r\\n" not in request:
        request += connection.recv(4096)
    key = [l for l in request.decode().split("\\r\\n") if l.lower().startswith("sec-websocket-key")]
    key = key[0].split(": ")[1] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
    connection.send(("HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\n"
        f"Connection: Upgrade\\r\\nSec-WebSocket-Accept: {accept}\\r\\n\\r\\n").encode())
    text = build_welcome(Welcome("me", None, 1, 65536)).encode()
    connection.send(bytes([0x81, len(text)]) + text)
    time.sleep(60)
threading.Thread(target=answer, daemon=True).start()
client = SignallingClient(url=f"ws://127.0.0.1:{server.getsockname()[1]}", api_key="pk_live_x")
client.connect()
print(time.monotonic(), flush=True)
"""
    done = run_script(source)
    ended = time.monotonic()
    assert (done.returncode, done.stderr) == (0, "")
    assert ended - float(done.stdout) < 20


def test_a_forgotten_local_cloud() -> None:
    source = """
from metered_sync import *
from metered_sync.local import LocalCloud
cloud = LocalCloud()
cloud.start()
client = SignallingClient(**cloud.client_options())
client.connect()
client.subscribe("x")
"""
    for _ in range(3):
        started = time.monotonic()
        done = run_script(source)
        assert (done.returncode, done.stderr) == (0, "")
        assert time.monotonic() - started < 30  # (an interpreter may take long to start)


# --- objects that are collected while open --------------------------------------------


def test_a_collected_client_is_closed_and_says_so(shared_cloud: LocalCloud) -> None:
    with SignallingClient(**shared_cloud.client_options()) as watcher:
        watcher.subscribe("gc")
        client = SignallingClient(**shared_cloud.client_options())
        client.connect()
        client.subscribe("gc")
        link = client._link
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del client
            gc.collect()
        assert any("SignallingClient was not closed" in str(w.message) for w in caught)
        assert link is not None
        wait_until(lambda: link.state == "closed")


def test_a_closed_or_idle_client_is_collected_in_silence(
    shared_cloud: LocalCloud, recwarn: pytest.WarningsRecorder
) -> None:
    client = SignallingClient(**shared_cloud.client_options())
    client.connect()
    client.close()
    del client
    SignallingClient(**shared_cloud.client_options())
    gc.collect()
    assert not [w for w in recwarn if issubclass(w.category, ResourceWarning)]


def test_a_client_with_callbacks_stays_alive(shared_cloud: LocalCloud) -> None:
    seen: list[object] = []

    def start() -> None:
        client = SignallingClient(**shared_cloud.client_options())
        client.on(Connected, seen.append)
        client.on(Message, lambda message: (seen.append(message.data), client.close()))
        client.connect()
        client.subscribe("alive")

    start()
    gc.collect()
    with SignallingClient(**shared_cloud.client_options()) as other:
        other.publish("alive", "still here")
    wait_until(lambda: "still here" in seen)


def test_importing_starts_nothing() -> None:
    source = """
import sys, threading
before = threading.active_count()
import metered_sync
for name in ("aiortc", "aioice", "av", "numpy", "aiohttp", "PIL", "rich", "requests", "jwt"):
    assert name not in sys.modules, name
assert threading.active_count() == before
assert not hasattr(metered_sync, "no_such_name")
assert "SfuClient" in dir(metered_sync)
"""
    done = run_script(source)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "register",
    [
        "atexit.register(goodbye)",
        "weakref.finalize(goodbye, goodbye_of, client)",
        "logging.getLogger().addHandler(Farewell())",
    ],
    ids=["atexit", "finalize", "logging"],
)
def test_a_goodbye_after_the_main_program_arrives_or_is_told_how_to(
    served_cloud: dict[str, str], register: str
) -> None:
    source = f"""
import atexit, logging, sys, weakref
from metered_sync import MeteredError, SignallingClient
options = dict(url=sys.argv[1], api_key=sys.argv[2])
client, listener = SignallingClient(**options), SignallingClient(**options)
client.connect()

def goodbye_of(client):
    try:
        client.publish("goodbye", 1)
    except MeteredError as error:
        print(error)
    else:
        print("delivered")

def goodbye():
    goodbye_of(client)

class Farewell(logging.Handler):
    def flush(self):
        goodbye()

{register}
client.publish("goodbye", 0)
"""
    done = run_script(source, served_cloud["url"], served_cloud["publishable_key"])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "delivered\n" or (
        "the interpreter is exiting" in done.stdout and "`finally`" in done.stdout
    )
