"""Rule 7: fork-safe."""

from __future__ import annotations

import os
import sys

import pytest

from metered_sync.local import LocalCloud
from tests.conftest import run_script

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

START = """
import os, sys, threading, time, multiprocessing, warnings
warnings.simplefilter("ignore", DeprecationWarning)    # Python 3.12 warns of every such fork
from metered_sync import *
from metered_sync.bridge import engines
from metered_sync.bridge.loop import Engine
options = dict(url=sys.argv[1], api_key=sys.argv[2])

def in_child(function):
    "Run a function in a forked child; return its exit status, killing it after 20 s."
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    for _ in range(2000):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return "hung"

def talk():
    "Open clients of one's own and use them."
    with SignallingClient(**options) as a, SignallingClient(**options) as b:
        channel = f"fork-{os.getpid()}"
        inbox = a.subscribe(channel)
        b.publish(channel, 1)
        assert inbox.get(timeout=20).data == 1

def refused(call):
    started = time.monotonic()
    try:
        call()
    except ForkedError as error:
        assert "os.fork" in str(error) and "child" in str(error), error
        assert time.monotonic() - started < 15
    else:
        raise AssertionError("not refused")
"""


def run(source: str, cloud: LocalCloud, start: str = START) -> None:
    done = run_script(start + source, cloud.url, cloud.publishable_key)
    assert (done.returncode, done.stderr) == (0, "")


def test_before_anything_was_started(shared_cloud: LocalCloud) -> None:
    run("assert in_child(talk) == 0\ntalk()", shared_cloud)


def test_an_idle_client_made_before_is_refused_too(shared_cloud: LocalCloud) -> None:
    # (Its key and options could be used, but a client is either one process's or another's.)
    run(
        "client = SignallingClient(**options)\n"
        "assert in_child(lambda: refused(client.connect)) == 0\n"
        "client.connect(); client.close()",
        shared_cloud,
    )


def test_a_connected_client(shared_cloud: LocalCloud) -> None:
    run(
        """
client = SignallingClient(**options)
client.connect()
inbox = client.subscribe("parent")
events = client.events(Message)
client.on(Message, print)
def child():
    for call in (
        lambda: client.publish("parent", 1),
        lambda: client.subscribe("other"),
        client.connect, client.close, inbox.get, inbox.get_nowait, inbox.close, events.get,
        lambda: client.wait_for(Message), lambda: client.on(Message, print),
    ):
        refused(call)
    talk()
assert in_child(child) == 0
client.off(Message)
client.publish("parent", 1)     # the parent's connection has not been touched
with SignallingClient(**options) as other:
    other.publish("parent", 2)
    assert inbox.get(timeout=20).data == 2
client.close()
""",
        shared_cloud,
    )


def test_a_child_of_a_child(shared_cloud: LocalCloud) -> None:
    run(
        """
client = SignallingClient(**options)
client.connect()
def child():
    mine = SignallingClient(**options)
    mine.connect()
    def grandchild():
        refused(lambda: client.publish("x", 1))
        refused(lambda: mine.publish("x", 1))
        talk()
    assert in_child(grandchild) == 0
    mine.publish("x", 1)
    mine.close()
assert in_child(child) == 0
client.publish("x", 1)
client.close()
""",
        shared_cloud,
    )


def test_while_the_engine_starts(shared_cloud: LocalCloud) -> None:
    run(
        """
starting = engines._engine.value = Engine()      # as if another thread were starting it
starting._to_start.clear()
assert in_child(talk) == 0
engines._engine.value = None
client = SignallingClient(**options)
client.connect()
inbox = client.subscribe("x")
def child():
    refused(inbox.get)
    refused(lambda: client.publish("x", 1))
    refused(lambda: client.on(Message, print))
    talk()
assert in_child(child) == 0
client.close()
""",
        shared_cloud,
    )


def test_many_times_in_the_middle_of_traffic(shared_cloud: LocalCloud) -> None:
    run(
        """
client = SignallingClient(**options, rate_limit=None)
client.connect()
inbox = client.subscribe("busy")
stop = threading.Event()
def work():
    while not stop.is_set():
        client.publish("busy", 1)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
def child():
    refused(inbox.get)
    refused(lambda: client.publish("busy", 1))
    talk()
for _ in range(15):
    assert in_child(child) == 0
stop.set()
for thread in threads: thread.join()
client.publish("busy", 1)
client.close()
""",
        shared_cloud,
    )


UWSGI = (
    """
import sys, types
uwsgi = sys.modules["uwsgi"] = types.ModuleType("uwsgi")    # the server makes it
told = []
uwsgi.post_fork_hook = lambda: told.append(1)
"""
    + START
    + """
import ctypes
from metered_sync.bridge import guard
client = SignallingClient(**options)
def worker():
    uwsgi.post_fork_hook()
    assert (told, guard.generation()) == ([1], 1)
    refused(client.connect)
    talk()
"""
)


def test_workers_of_uwsgi(shared_cloud: LocalCloud) -> None:
    """It forks without telling Python, unless it is asked to, and calls a hook of its own."""
    run(
        """
assert in_child(worker) == 0    # as with py-call-uwsgi-fork-hooks
os.fork = ctypes.PyDLL(None).fork
assert in_child(worker) == 0
talk()
""",
        shared_cloud,
        UWSGI,
    )


def test_a_child_that_exits_in_the_ordinary_way(shared_cloud: LocalCloud) -> None:
    run(
        """
client = SignallingClient(**options)
client.connect()
inbox = client.subscribe("x")
pid = os.fork()
if pid == 0:
    del client, inbox           # collected in the child: must not close the parent's
    import gc; gc.collect()
    sys.exit(0)                 # and runs the exit hooks
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
client.publish("x", 1)
client.close()
""",
        shared_cloud,
    )


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(shared_cloud: LocalCloud, method: str, tmp_path: object) -> None:
    source = """
def main():
    client = SignallingClient(**options)
    client.connect()
    context = multiprocessing.get_context(sys.argv[3])
    with context.Pool(2) as pool:
        assert pool.map(work, range(4), chunksize=1) == [0, 1, 2, 3]
    client.publish("x", 1)
    client.close()

def work(number):
    talk()
    return number

if __name__ == "__main__":
    main()
"""
    import subprocess
    from pathlib import Path

    script = Path(str(tmp_path)) / "script.py"
    script.write_text(START + source)
    done = subprocess.run(
        [sys.executable, str(script), shared_cloud.url, shared_cloud.publishable_key, method],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
