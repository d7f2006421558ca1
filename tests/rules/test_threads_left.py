"""Rule 9, threads: soon after the last close none of ours is left, and the next use works."""

from __future__ import annotations

from pathlib import Path

import pytest

from metered_sync.bridge import engines, workers
from metered_sync.local import LocalCloud
from tests.conftest import run_script

START = """
import asyncio, gc, inspect, os, sys, threading, time, warnings
from pathlib import Path
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack
from metered_sync import *
from metered_sync.bridge import engines, workers
from metered_sync.testing import PatternSource, ToneSource
warnings.simplefilter("ignore", RuntimeWarning)
engines.LOOK_EVERY, workers.IDLE_LIMIT = 0.1, 0.2
url, api_key, http_url, app_id, secret, folder = sys.argv[1:]
options = dict(url=url, api_key=api_key)

def ours():
    return sorted(
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith(("metered-sync", "uvloop_", "asyncio_", "video-", "audio-"))
    )

def all_end():
    deadline = time.monotonic() + 20
    while ours():
        gc.collect()
        assert time.monotonic() < deadline, ours()
        time.sleep(0.02)

def stays(seconds=0.4):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert "metered-sync" in ours()
        time.sleep(0.02)

def talk():
    with SignallingClient(**options) as client, SignallingClient(**options) as other:
        inbox = client.subscribe("left")
        other.publish("left", 1)
        assert inbox.get(timeout=20).data == 1
"""


def run(source: str, cloud: LocalCloud, tmp_path: Path, loop: str) -> None:
    """Run a script to its end."""
    sfu = cloud.sfu_options()
    done = run_script(
        START + source + "\nprint('done')",
        cloud.url,
        cloud.publishable_key,
        cloud.http_url,
        sfu["app_id"],
        sfu["secret"],
        str(tmp_path),
        METERED_SYNC_LOOP=loop,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", ""), done.stderr


def test_it_takes_less_than_ten_seconds() -> None:
    assert 2 * engines.LOOK_EVERY + 2 < 10  # (the loop's own threads end with it)
    assert workers.IDLE_LIMIT + 2 < 10


@pytest.mark.parametrize("loop", [pytest.param("asyncio", marks=pytest.mark.slow), "uvloop"])
def test_everything_closed(loop: str, shared_cloud: LocalCloud, tmp_path: Path) -> None:
    run(
        """
def outcomes(things):
    "Call everything that can be called of what is closed; return how it ends."
    found = {}
    for number, thing in enumerate(things):
        for name in sorted(dir(type(thing))):
            if name.startswith("_") and name not in ("__iter__", "__len__", "__repr__"):
                continue
            for given in ((), ("x",), ("x", 1)):
                try:
                    value = getattr(thing, name)
                    if callable(value):
                        value = value(*given)
                    found[number, name, len(given)] = type(value).__name__
                except Exception as error:
                    found[number, name, len(given)] = type(error).__name__
    return found

def everything():
    pattern, tone = PatternSource(64, 48, 10), ToneSource()
    client = SignallingClient(**options)
    client.connect()
    inbox, events = client.subscribe("left"), client.events(Message)
    client.publish("left", 1)
    one, two = (MeteredPeer(**options, ice_servers=[]) for _ in range(2))
    one.add_track(pattern.video)
    one.join("left/room")
    two.join("left/room")
    remote = two.wait_for_peer(timeout=20)
    track = remote.track("video", timeout=20)
    frames = track.frames()
    frames.get(timeout=20)
    frames.close()
    channel = remote.create_data_channel("c")
    sfu = SfuClient(url=http_url, app_id=app_id, secret=secret)
    sfu.connect()
    publication = sfu.publish(tone.audio)
    sound = sfu.subscribe(publication)
    sound.frames().get(timeout=20)
    recorder = Recorder(Path(folder) / "left.mp4")
    recorder.add(pattern.video)
    recorder.start()
    next(iter_frames(tone.audio, timeout=20))
    deadline = time.monotonic() + 20
    while not recorder.info.duration:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    recorder.stop()
    for thing in (client, one, two, sfu):
        thing.close()
    pattern.stop()
    tone.stop()
    return [
        client, inbox, events, one, two, remote, track, frames, channel, sfu, publication, sound,
    ]

things = everything()
at_once = outcomes(things)
all_end()
later = outcomes(things)
assert at_once == later, {
    key: (at_once.get(key), later.get(key))
    for key in at_once.keys() | later.keys() if at_once.get(key) != later.get(key)
}
assert "ClosedError" in at_once.values() and "EngineError" not in at_once.values()
all_end()
talk()
everything()
all_end()
""",
        shared_cloud,
        tmp_path,
        loop,
    )


def test_what_is_open_keeps_the_loop(shared_cloud: LocalCloud, tmp_path: Path) -> None:
    run(
        """
class Queued(AudioStreamTrack):
    "A track whose queue belongs to the loop on which it is read first."
    def __init__(self):
        super().__init__()
        self.queue = asyncio.Queue()
    async def recv(self):
        if self.queue.empty():
            asyncio.get_running_loop().call_later(0.02, self.queue.put_nowait, None)
        await self.queue.get()
        return await super().recv()

not_connected = SignallingClient(url="ws://127.0.0.1:9", api_key=api_key)
try:
    not_connected.connect()
except MeteredError:
    pass
stays()            # it may connect yet
del not_connected
all_end()
queued = Queued()
next(iter_frames(queued, timeout=10))
stays()
next(iter_frames(queued, timeout=10))
queued.stop()
all_end()
queued = Queued()
recorder = Recorder(Path(folder) / "left.wav")
recorder.add(queued)
recorder.start()
stays()
recorder.stop()
stays()
del queued, recorder
all_end()
source = PatternSource(64, 48, 20)
frames = iter_frames(source.video, timeout=20)
next(frames)
deadline = time.monotonic() + 20
while "metered-sync" in ours():         # a source of ours can be read on any loop
    assert time.monotonic() < deadline
    time.sleep(0.02)
next(frames)
source.stop()
talk()
all_end()
""",
        shared_cloud,
        tmp_path,
        "uvloop",
    )


def test_many_rounds(shared_cloud: LocalCloud, tmp_path: Path) -> None:
    run(
        """
engines.LOOK_EVERY = 0.005
client = SignallingClient(**options)

def round_():
    with SignallingClient(**options) as client:
        client.publish("left", 1)
        engine = client._engine
    deadline = time.monotonic() + 20
    while engine._thread.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.001)

def held():
    gc.collect()
    return len(os.listdir("/proc/self/fd")), len(ours())

for _ in range(5):
    round_()
all_end()
before = held()
objects = len(gc.get_objects())
for _ in range(40):
    round_()
all_end()
assert held() == before, (held(), before)
assert len(gc.get_objects()) < objects + 1000
""",
        shared_cloud,
        tmp_path,
        "uvloop",
    )
