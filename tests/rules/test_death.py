"""Let the loop thread die: no call hangs, and each is told why."""

from __future__ import annotations

import gc
import warnings

from metered_sync.local import LocalCloud
from tests.conftest import run_script, wait_until

START = """
import sys, threading, time, traceback
from metered_sync import *

def outcome(call):
    try:
        call()
    except BaseException as error:
        return "".join(traceback.format_exception(error))
    return "no error"

def all_frames():
    while True:
        frames.get(timeout=60)

def the_fatal_mistake():
    raise SystemExit("the loop's own end")

def die(engine):
    # Those who are blocked are woken; those who come later are told, too.
    outcomes = {}
    threads = [
        threading.Thread(target=lambda n=n, c=c: outcomes.__setitem__(n, outcome(c)))
        for n, c in blocked.items()
    ]
    for thread in threads: thread.start()
    time.sleep(0.5)
    engine.post(the_fatal_mistake)
    started = time.monotonic()
    for thread in threads: thread.join(20)
    assert time.monotonic() - started < 15
    outcomes |= {name: outcome(call) for name, call in later.items()}
    for name, text in outcomes.items():
        assert "EngineError" in text, (name, text)
        assert "the_fatal_mistake" in text, (name, text)
    assert len(outcomes) == len(blocked) + len(later)
"""

SOURCE = """
from metered_sync import SfuClient
from metered_sync.testing import ToneSource
client = SignallingClient(url=sys.argv[1], api_key=sys.argv[2])
client.connect()
sfu = SfuClient(url=sys.argv[3], app_id=sys.argv[4], secret=sys.argv[5])
sfu.connect()
track = sfu.subscribe(sfu.publish(ToneSource(frequency=440).audio))
frames, inbox, events = track.frames(), client.subscribe("x"), client.events(Message)
frames.get(timeout=20)

blocked = {
    "inbox.get": lambda: inbox.get(timeout=60),
    "events.get": lambda: events.get(timeout=60),
    "wait_for": lambda: client.wait_for(Message, timeout=60),
    "frames": all_frames,
}
later = {
    "publish": lambda: client.publish("x", 1),
    "subscribe": lambda: client.subscribe("y"),
    "sessions": sfu.sessions,
    "connect": client.connect,
}
die(client._engine)
client.close()
sfu.close()
with SignallingClient(url=sys.argv[1], api_key=sys.argv[2]) as new:   # a new engine
    new.publish("x", 1)
print("done")
"""


def test_everybody_is_woken_with_the_original_traceback(served_cloud: dict[str, str]) -> None:
    for loop in ("asyncio", "uvloop"):
        done = run_script(
            START + SOURCE,
            served_cloud["url"],
            served_cloud["publishable_key"],
            served_cloud["http_url"],
            served_cloud["sfu_app_id"],
            served_cloud["sfu_secret"],
            METERED_SYNC_LOOP=loop,
        )
        assert done.stdout == "done\n", done.stderr
        assert done.returncode == 0
        # It is logged once, with its traceback.
        assert done.stderr.count("the event loop of metered-sync has died") == 1


def test_a_forgotten_local_cloud_is_closed_and_says_so() -> None:
    cloud = LocalCloud()
    cloud.start()
    engine = cloud._engine
    assert engine is not None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del cloud
        gc.collect()
    assert any("LocalCloud was not closed" in str(w.message) for w in caught)
    wait_until(lambda: not engine._thread.is_alive())


ROOM = """
from metered_sync import MeteredPeer
from metered_sync.testing import PatternSource
options = dict(url=sys.argv[1], api_key=sys.argv[2], ice_servers=[])
one, two, pattern = MeteredPeer(**options), MeteredPeer(**options), PatternSource(160, 120, fps=10)
one.add_track(pattern.video)
one.join("death"); two.join("death")
there = two.wait_for_peer(timeout=20)
frames = there.track("video", timeout=20).frames()
frames.get(timeout=20)
channel = there.create_data_channel("x", timeout=20)

blocked = {
    "track": lambda: there.track("audio", timeout=60),
    "wait_for_peer": lambda: two.wait_for_peer("nobody", timeout=60),
    "wait_for": lambda: two.wait_for(Data, timeout=60),
    "the peer's wait_for": lambda: there.wait_for(Track, timeout=60),
    "frames": all_frames,
}
later = {
    "join": lambda: two.join("death"),
    "send": lambda: two.send(1),
    "add_track": lambda: two.add_track(pattern.video),
    "remove_track": lambda: one.remove_track(pattern.video),
    "track again": lambda: there.track("audio", timeout=60),
    "create_data_channel": lambda: there.create_data_channel("y"),
    "stats": there.stats,
}
die(two._engine)
assert {one.state, two.state, there.state} == {"closed"}
one.close(); two.close(); channel.close(); pattern.stop()
with MeteredPeer(**options) as new:     # a new engine
    new.join("death")
    new.send(1)
print("done")
"""


def test_everybody_in_a_room_is_woken_too(served_cloud: dict[str, str]) -> None:
    for loop in ("asyncio", "uvloop"):
        done = run_script(
            START + ROOM,
            served_cloud["url"],
            served_cloud["publishable_key"],
            METERED_SYNC_LOOP=loop,
        )
        assert done.stdout == "done\n", done.stderr
        assert done.returncode == 0
        assert done.stderr.count("the event loop of metered-sync has died") == 1
        assert "Exception in thread" not in done.stderr
