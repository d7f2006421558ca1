"""A machine that gives no more threads: each call says so, and works again afterwards."""

from __future__ import annotations

import sys

import pytest

from metered_sync import SfuClient
from metered_sync.testing import PatternSource, ToneSource
from tests.conftest import run_script, wait_until

NO_THREADS = """
import contextlib, threading

@contextlib.contextmanager
def no_threads():
    # No stack of this size can be had, so the system refuses each new thread.
    threading.stack_size(1 << 47)
    try:
        yield
    finally:
        threading.stack_size(0)
"""
SOURCE = """
import sys, threading
import pytest
from metered_sync import *
url, key, http_url, key_id, secret = sys.argv[1:]

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
assert inbox.get(timeout=20).data == "after it"

heard = threading.Event()
refused(lambda: client.on(Message, lambda message: heard.set()))
plane.publish("x", "to the callback")
assert heard.wait(20)

print("done")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="where stacks of any size can be had")
def test_without_threads_calls_say_so_and_work_again(served_cloud: dict[str, str]) -> None:
    names = ("url", "publishable_key", "http_url", "key_id", "key_secret")
    done = run_script(NO_THREADS + SOURCE, *(served_cloud[name] for name in names))
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


MEDIA = """
import logging, sys
import pytest
from metered_sync import *
records = []
handler = logging.Handler(logging.WARNING)
handler.emit = records.append
logging.getLogger().addHandler(handler)

options = dict(zip(("url", "app_id", "secret"), sys.argv[1:]))
with SfuClient(**options) as receiver:
    published = receiver.tracks(sys.argv[4])
    published.sort(key=lambda track: track.kind, reverse=True)
    receiver.sessions()  # whose thread is there for the next call
    with no_threads():
        picture, sound = receiver.subscribe(published)
        with pytest.raises(MeteredTimeoutError):
            picture.read(timeout=0.5)
    assert picture.read(timeout=10).shape == (48, 64, 3)
    assert sound.frames().get(timeout=20).samples
    receiver.sessions()
    with no_threads():
        again = receiver.subscribe(published[0])
        with pytest.raises(MeteredTimeoutError):
            again.read(timeout=0.2)
        receiver.unsubscribe(again)
    assert again.ended
print(len([r for r in records if "no thread can be started to decode" in r.getMessage()]))
print([r.getMessage() for r in records if "thread" not in r.getMessage()])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="where stacks of any size can be had")
def test_a_decoder_that_gets_no_thread_gets_one_later(served_cloud: dict[str, str]) -> None:
    url, app_id, secret = (served_cloud[n] for n in ("http_url", "sfu_app_id", "sfu_secret"))
    with (
        PatternSource(64, 48, 15) as pattern,
        ToneSource(440) as tone,
        SfuClient(url=url, app_id=app_id, secret=secret) as sender,
    ):
        sender.publish([pattern.video, tone.audio])
        session = sender.session_id or ""
        wait_until(lambda: len(sender.tracks(session)) == 2, 20)
        done = run_script(NO_THREADS + MEDIA, url, app_id, secret, session)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n[]\n", "")
