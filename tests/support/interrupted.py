"""Call the library in the middle of its own calls, in a process of its own.

``python -m tests.support.interrupted WAY CLOUD SECONDS STEP [CALL …]`` prints a JSON object: of
each call of the table, what is wrong with it. A call that hangs ends the process, with the stacks
of all threads. SECONDS is how long each call is stormed, and every STEP-th moment is taken.

The interpreter looks for signals when a Python function begins and when a built-in one has
returned (and at jumps backwards). A profile function is called at just these moments, so with
one a call can be interrupted at each of them in turn: nothing is left to chance. (But where a
generator goes on, to handle an exception, it is called too, and no signal comes.)
"""

from __future__ import annotations

import faulthandler
import gc
import itertools
import json
import opcode
import os
import queue
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any

import numpy as np

from metered_sync import (
    AudioSource,
    DataChannelOverflowError,
    DCMessage,
    Direct,
    MediaError,
    MediaStream,
    MeteredPeer,
    MeteredTimeoutError,
    Recorder,
    SignallingClient,
    VideoSource,
    WrongThreadError,
)
from metered_sync.testing import PatternSource, ToneSource

YIELD = opcode.opmap["YIELD_VALUE"]
STUCK = 40.0
"""Seconds after which a call hangs for sure."""
SIGNALS = 200
"""Signals of a storm."""
STORM = 1.0
"""Seconds that a storm may go on after the last call that it interrupts has begun."""
POINTS = 400
"""Moments at which a call is interrupted, at most."""
INBOX, ROOM = f"inbox-{os.getpid()}", f"room-{os.getpid()}"
PICTURE = np.zeros((48, 64, 3), np.uint8)
SOUND = bytes(640)

# What a call may raise, for want of data, room or a moment at which it could wait.
EXPECTED = (queue.Empty, queue.Full, WrongThreadError)


class Things:
    """Objects to call: two clients, two members of a room with media, sources."""

    patience = 10.0
    """Seconds that a call may take which should not take long."""

    def __init__(self, cloud: dict[str, str], stack: ExitStack) -> None:
        options: dict[str, Any] = {"api_key": cloud["publishable_key"], "url": cloud["url"]}
        self.client = SignallingClient(**options, rate_limit=None)
        self.other = SignallingClient(**options, rate_limit=None)
        stack.enter_context(self.client)
        stack.enter_context(self.other)
        self.inbox = self.client.subscribe(INBOX, maxsize=8)
        self.delivery = self.client.publish_nowait("nobody", 1)
        one, two = MeteredPeer(**options), MeteredPeer(**options)
        self.pattern = stack.enter_context(PatternSource(64, 48, 60))
        self.tone = stack.enter_context(ToneSource(440))
        one.add_track(self.pattern.video)
        one.add_track(self.tone.audio)
        stack.enter_context(one.joined(ROOM))
        stack.enter_context(two.joined(ROOM))
        self.peer, self.remote = two, two.wait_for_peer(timeout=20)
        self.picture = self.remote.track("video", timeout=20)
        self.sound = self.remote.track("audio", timeout=20)
        self.frames = self.sound.frames()
        self.pcm = self.sound.pcm()
        self.capture = self.picture.capture(timeout=20)
        assert self.capture.read()[0]
        far = one.wait_for_peer(timeout=20)
        self.channel = self.remote.create_data_channel("x", timeout=20)
        self.far = far
        self.screen = stack.enter_context(VideoSource(64, 48, 240))
        self.voice = stack.enter_context(AudioSource(max_buffered_seconds=0.5))
        self.stream = MediaStream()
        self.directory = stack.enter_context(tempfile.TemporaryDirectory())
        path = os.path.join(self.directory, "a.mkv")
        self.recorder = stack.enter_context(Recorder(path, self.pattern.video))
        self.recordings = itertools.count()


def ignore(_: object) -> None:
    """Do nothing with what a callback is given."""


def listen(things: Things) -> None:
    """Register callbacks and remove them."""
    things.client.on(Direct, ignore)
    things.client.once(Direct, ignore)
    things.client.off(Direct, ignore)
    things.channel.on(DCMessage, ignore)
    things.channel.off(DCMessage, ignore)


def look(things: Things) -> None:
    """Ask for everything that is known without asking."""
    for one in (things.client, things.inbox, things.peer, things.remote, things.picture):
        repr(one)
    for one in (things.screen, things.voice, things.channel, things.recorder, things.capture):
        repr(one)
    assert things.client.state == "connected"
    assert things.peer.remote_peers
    assert things.remote.tracks
    assert things.remote.streams is not None
    things.picture.stats()
    things.voice.level, things.voice.buffered_seconds  # noqa: B018


def cancel(things: Things) -> None:
    """Send and take back, with somebody who wants to be told."""
    delivery = things.client.publish_nowait("nobody", 1)
    delivery.add_done_callback(ignore)
    delivery.cancel()
    delivery.done()


def end(things: Things) -> None:
    """End sources in all ways."""
    voice, screen = AudioSource(), VideoSource(64, 48, 240)
    voice.push(SOUND, timeout=0)
    with suppress(MeteredTimeoutError):  # (it is shown all the same)
        screen.write(PICTURE, timeout=0)
    voice.end()
    screen.end()
    voice.stop()
    screen.stop()


def group(things: Things) -> None:
    """Put tracks into a stream and take them out."""
    things.stream.add_track(things.pattern.video)
    things.stream.remove_track(things.pattern.video)


def record(things: Things) -> None:
    """Record a moment, of which there may be no picture yet."""
    path = os.path.join(things.directory, f"{next(things.recordings)}.mkv")
    recorder = Recorder(path, things.pattern.video)
    try:
        recorder.start(timeout=Things.patience)
    finally:
        with suppress(MediaError):
            recorder.stop(timeout=Things.patience)


POSTING: dict[str, Callable[[Things], object]] = {
    "publish_nowait": lambda t: t.client.publish_nowait("nobody", 1),
    "send_nowait": lambda t: t.client.send_nowait(t.other.peer_id or "", 1),
    "on, once, off": listen,
    "events, close": lambda t: t.client.events(Direct).close(),
    "get_nowait": lambda t: t.inbox.get_nowait(),
    "Delivery": cancel,
    "properties": look,
    "push": lambda t: t.voice.push(SOUND, timeout=0),
    "write": lambda t: t.screen.write(PICTURE, timeout=0),
    "clear": lambda t: t.voice.clear(),
    "end, stop": end,
    "stream": group,
    "DataChannel.send_nowait": lambda t: t.channel.send_nowait("x"),
    "frames, close": lambda t: t.picture.frames().close(),
    "frames.get_nowait": lambda t: t.frames.get_nowait(),
    "pcm.get_nowait": lambda t: t.pcm.get_nowait(),
    "on_frame, close": lambda t: t.picture.on_frame(ignore).close(),
    "capture, release": lambda t: t.picture.capture().release(),
}
"""Calls that wait for nothing: they work everywhere."""
WAITING: dict[str, Callable[[Things], object]] = {
    "publish": lambda t: t.client.publish("nobody", 1, timeout=Things.patience),
    "subscribe, close": lambda t: t.client.subscribe("passing", timeout=Things.patience).close(),
    "unsubscribe": lambda t: t.client.unsubscribe("never", timeout=Things.patience),
    "flush": lambda t: t.client.flush(timeout=Things.patience),
    "roster": lambda t: t.client.roster(INBOX, timeout=Things.patience),
    "connect": lambda t: t.client.connect(timeout=Things.patience),
    "get": lambda t: t.inbox.get(timeout=0.01),
    "wait_for": lambda t: t.client.wait_for(Direct, timeout=0.01),
    "Delivery.result": lambda t: t.delivery.result(timeout=Things.patience),
    "DataChannel.send": lambda t: t.channel.send("x", timeout=Things.patience),
    "read": lambda t: t.picture.read(timeout=Things.patience),
    "capture.read": lambda t: t.capture.read(timeout=Things.patience),
    "pcm.get": lambda t: t.pcm.get(timeout=Things.patience),
    "push and wait": lambda t: t.voice.push(SOUND, timeout=0.01),
    "write and wait": lambda t: t.screen.write(PICTURE, timeout=0.01),
    "Source.wait": lambda t: t.voice.wait(timeout=0.01),
    "add_track, remove_track": lambda t: (
        t.peer.add_track(t.screen.video, timeout=Things.patience),
        t.peer.remove_track(t.screen.video, timeout=Things.patience),
    ),
    "Recorder.start, stop": record,
    "Recorder.add": lambda t: t.recorder.add(t.pattern.video, timeout=Things.patience),
}
"""Calls that wait: they work, or say that they cannot."""
CALLS = POSTING | WAITING
SHORT = ("get", "wait_for", "push", "push and wait", "write", "write and wait", "Source.wait")
"""Calls whose deadline may pass: nothing comes, or there is no room."""


def outcome(name: str, things: Things, alone: bool = False) -> str:
    """Make a call; return what is wrong with that: nothing, usually.

    Args:
        alone: Whether it interrupts no other call: then it can wait.
    """
    faulthandler.dump_traceback_later(STUCK, exit=True)
    started = time.monotonic()
    try:
        CALLS[name](things)
    except EXPECTED as error:
        if isinstance(error, WrongThreadError) and (alone or name in POSTING):
            return f"{name}: {error!r}"
    except MeteredTimeoutError as error:
        # (A finalizer may run on the thread, and hold the locks of others, that it waits for.)
        if name not in SHORT and Things.patience > 1:
            return f"{name}: {error!r}"
    except DataChannelOverflowError:
        pass
    if time.monotonic() - started > 8:
        return f"{name}: took {time.monotonic() - started:.1f} s"
    return ""


# --- interrupting at each moment ------------------------------------------------------


class Interruption:
    """Do something at the n-th moment at which the interpreter looks for signals in our code."""

    def __init__(self, at: int, action: Callable[[], object]) -> None:
        self.left = at
        self.action = action
        self.done = False

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        ours = frame.f_globals.get("__name__", "").startswith("metered_sync")
        if event not in ("call", "c_return", "c_exception") or not ours or self.done:
            return
        last = frame.f_lasti
        if event == "call" and last > 0 and YIELD in frame.f_code.co_code[last - 2 : last + 1 : 2]:
            return
        self.left -= 1
        if self.left < 0:
            self.done = True
            self.action()


@contextmanager
def interrupted(at: int, action: Callable[[], object]) -> Iterator[Interruption]:
    """Interrupt what this thread does in the block."""
    interruption = Interruption(at, action)
    sys.setprofile(interruption)
    try:
        yield interruption
    finally:
        sys.setprofile(None)


def feed(things: Things) -> None:
    """See to it that there is something to read."""
    if not len(things.inbox):
        things.other.publish(INBOX, 1, timeout=Things.patience)


def at_each_moment(
    name: str, things: Things, inner: list[str], seconds: float, step: int
) -> list[str]:
    """Make calls at each moment of another one."""
    wrong: list[str] = []

    def interrupt() -> None:
        for one in inner:
            if trouble := outcome(one, things):
                wrong.append(f"at {at}: {trouble}")

    for at in range(0, POINTS, step):
        if name == "get_nowait":
            feed(things)
        with interrupted(at, interrupt) as interruption:
            trouble = outcome(name, things)
        if trouble:
            wrong.append(f"interrupted at {at}: {trouble}")
        if not interruption.done:
            break
    return wrong


def raising_at_each_moment(name: str, things: Things, seconds: float, step: int) -> list[str]:
    """Have Ctrl-C at each moment of a call, then see whether everything works."""
    wrong: list[str] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    for at in range(0, POINTS, step):
        if name in ("get", "get_nowait"):
            feed(things)
        try:
            with interrupted(at, interrupt) as interruption:
                outcome(name, things)
        except KeyboardInterrupt:
            pass
        for one in (name, "publish"):
            if trouble := outcome(one, things, alone=True):
                wrong.append(f"after Ctrl-C at {at}: {trouble}")
        if not interruption.done:
            break
    return wrong


# --- storms ---------------------------------------------------------------------------


def storm(name: str, things: Things, seconds: float, step: int) -> list[str]:
    """Make a call in a signal handler, again and again, while the main thread makes it, too."""
    wrong: list[str] = []
    count = 0

    def handler(_: int, __: object) -> None:
        nonlocal count
        count += 1
        if trouble := outcome(name, things):
            wrong.append(trouble)
        # (What the handler takes, the call that it interrupts does not get: it has to end in time.)
        if count < SIGNALS and time.monotonic() < last:
            signal.setitimer(signal.ITIMER_REAL, 20e-6 + (count * 37 % 200) * 1e-6)

    until = time.monotonic() + seconds
    last = until + STORM
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 1e-4)
    while count < SIGNALS and time.monotonic() < until and not wrong:
        if trouble := outcome(name, things):
            wrong.append(trouble)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0)
    if not count:
        wrong.append("no signal came")
    return wrong


class Cycle:
    """Garbage that only the collector finds."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.itself = self
        self.action = action

    def __del__(self) -> None:
        self.action()


def finalized(name: str, things: Things, seconds: float, step: int) -> list[str]:
    """Make a call whenever the collector runs, on whichever thread."""
    wrong: list[str] = []
    count = 0

    def action() -> None:
        nonlocal count
        count += 1
        if count <= SIGNALS and (trouble := outcome(name, things)):
            wrong.append(trouble)

    threshold = gc.get_threshold()
    gc.set_threshold(40)
    until = time.monotonic() + seconds
    while count < SIGNALS and time.monotonic() < until and not wrong:
        Cycle(action)
        if trouble := outcome(name, things):
            wrong.append(trouble)
        things.client.publish_nowait("nobody", 1)
    gc.set_threshold(*threshold)
    count = SIGNALS
    gc.collect()
    return wrong


INNER = [name for name in POSTING if name not in ("end, stop", "properties", "stream")]


def nested(name: str, things: Things, seconds: float, step: int) -> list[str]:
    """Send, listen, read, write, publish and ask at each moment of a call."""
    for inner in ([*INNER, "publish"], ["properties", "end, stop", "stream"]):
        if wrong := at_each_moment(name, things, inner, seconds, step):
            return wrong
    return []


WAYS: dict[str, Callable[[str, Things, float, int], list[str]]] = {
    "signals": storm,
    "finalizers": finalized,
    "each moment": nested,
    "Ctrl-C": raising_at_each_moment,
}


def main(way: str, cloud: dict[str, str], seconds: float, step: int, names: list[str]) -> None:
    """Interrupt the calls in a way; print what became of each."""
    if way == "finalizers":
        Things.patience = 0.5
    faulthandler.dump_traceback_later(STUCK, exit=True)
    with ExitStack() as stack:
        things = Things(cloud, stack)
        results: dict[str, list[str]] = {}
        for name in names or CALLS:
            started = time.monotonic()
            results[name] = WAYS[way](name, things, seconds, step)
            took = time.monotonic() - started
            sys.stderr.write(f"{took:6.2f} s {name} {results[name][:1]}\n")
        faulthandler.dump_traceback_later(STUCK, exit=True)
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps(results))


if __name__ == "__main__":
    main(
        sys.argv[1],
        json.loads(sys.argv[2]),
        float(sys.argv[3]),
        int(sys.argv[4]),
        sys.argv[5:],
    )
