"""A machine that gives no more threads: each call says so, and works again afterwards."""

from __future__ import annotations

import sys

import pytest

from tests.conftest import run_script

SOURCE = """
import contextlib, sys, threading
import pytest
from metered_sync import *
url, key, http_url, key_id, secret = sys.argv[1:]

@contextlib.contextmanager
def no_threads():
    # No stack of this size can be had, so the system refuses each new thread.
    threading.stack_size(1 << 47)
    try:
        yield
    finally:
        threading.stack_size(0)

def refused(call):
    with no_threads(), pytest.raises(MeteredError, match="as many threads as it may") as caught:
        call()
    return call()  # which works

client = SignallingClient(url=url, api_key=key, timeout=10)
refused(client.connect)
inbox = client.subscribe("x")
plane = ControlPlane(key_id, secret, url=http_url)
with no_threads(), pytest.raises(MeteredError, match="as many threads as it may"):
    plane.publish("x", "reported as failed")
plane.publish("x", "after it")
assert inbox.get(timeout=10).data == "after it"

heard = threading.Event()
refused(lambda: client.on(Message, lambda message: heard.set()))
plane.publish("x", "to the callback")
assert heard.wait(10)

print("done")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="where stacks of any size can be had")
def test_without_threads_calls_say_so_and_work_again(served_cloud: dict[str, str]) -> None:
    names = ("url", "publishable_key", "http_url", "key_id", "key_secret")
    done = run_script(SOURCE, *(served_cloud[name] for name in names))
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
