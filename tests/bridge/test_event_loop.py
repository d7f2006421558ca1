"""The loop of an engine: which one, by which clock, and where it looks names up."""

from __future__ import annotations

import asyncio
import gc
import sys
import types

import pytest

from metered_sync.bridge import event_loop
from tests.conftest import run_script


@pytest.mark.parametrize("there", [True, False])
def test_uvloop_is_used_where_it_is_and_not_opted_out_of(
    monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", types.ModuleType("uvloop") if there else None)
    monkeypatch.delenv("METERED_SYNC_LOOP", raising=False)
    assert event_loop.uvloop_wanted() is there
    monkeypatch.setenv("METERED_SYNC_LOOP", "asyncio")
    assert not event_loop.uvloop_wanted()


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_a_socket_that_was_left_open_is_closed_with_the_loop(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("METERED_SYNC_LOOP", kind)
    loop = event_loop.new_event_loop()
    there = ("127.0.0.1", 0)
    transport, _ = loop.run_until_complete(
        loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=there)
    )
    socket = transport.get_extra_info("socket")
    loop.close()
    assert socket.fileno() == -1
    del transport
    gc.collect()  # (a ResourceWarning would be an error)


GREEN = """
import sys
if sys.argv[1] == "gevent":
    from gevent.monkey import patch_all
    patch_all()
    from gevent import spawn
else:
    from eventlet import monkey_patch, spawn
    monkey_patch()
import asyncio, threading
from metered_sync import Message, SignallingClient

def is_seen():
    return asyncio._get_running_loop() is not None

async def mine():
    "A loop of the program's own, in one green thread, while ours runs in another."
    loop = asyncio.get_running_loop()
    for _ in range(50):
        await asyncio.sleep(0.002)
        assert asyncio.get_running_loop() is loop
    return 7

heard, all_heard = [], threading.Event()

def hear(message):
    heard.append(is_seen())
    if len(heard) == 20:
        all_heard.set()

with SignallingClient() as one, SignallingClient() as two:
    assert not is_seen()
    inbox = two.subscribe("green")
    two.on(Message, hear)
    for number in range(20):
        one.publish("green", number)
        assert not is_seen()
    for number in range(20):
        assert inbox.get(timeout=20).data == number
        assert not is_seen()
    assert all_heard.wait(20)
    assert not any(heard)
    speaker = spawn(lambda: [one.publish("green", number) for number in range(20)])
    assert asyncio.run(mine()) == 7
    assert [inbox.get(timeout=20).data for _ in range(20)] == list(range(20))
    assert not is_seen()
print("done")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="gevent and eventlet need POSIX")
@pytest.mark.parametrize("kind", ["gevent", "eventlet"])
def test_green_threads_do_not_see_our_loop(kind: str, served_cloud: dict[str, str]) -> None:
    """Django would refuse them its database, and ``asyncio.run`` would not start."""
    environment = {
        "METERED_URL": served_cloud["url"],
        "METERED_KEY": served_cloud["publishable_key"],
    }
    done = run_script(GREEN, kind, **environment)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
