"""Hold readers of media to the rules: arrays, captures, sound in chunks, callbacks."""

from __future__ import annotations

import gc
import itertools
import json
import re
import statistics
import threading
import time
import warnings
from typing import Any

import pytest

from metered_sync import (
    ClosedError,
    MediaStream,
    MeteredPeer,
    SfuClient,
    WrongThreadError,
    iter_frames,
)
from metered_sync.bridge import engines
from metered_sync.testing import PatternSource, ToneSource, dominant_frequency, read_number
from tests.conftest import run_script, wait_until
from tests.rules.test_fork import START as FORK
from tests.rules.test_interrupt import interrupt
from tests.rules.test_leaks import check
from tests.rules.test_media import START

START += "from metered_sync import iter_frames\n"

BOTH = """
one, two = SfuClient(**options), SfuClient(**options)
one.connect(); two.connect()
pattern, tone = PatternSource(160, 120, 15), ToneSource(frequency=440)
published = one.publish([pattern.video, tone.audio])
picture, sound = two.subscribe(published)
capture, pcm = picture.capture(), sound.pcm()
assert capture.read(timeout=20)[0]
pcm.get(timeout=20)
"""


# --- 2: Ctrl-C ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wait",
    [
        "capture.read()",
        "capture.get(5)",
        "next(pcm)",
        "next(iter_frames(idle.video))",
    ],
)
def test_ctrl_c_ends_waits(wait: str, served_cloud: dict[str, str]) -> None:
    source = f"""{START}{BOTH}
try:
    with one, two:
        idle = PatternSource(64, 64, fps=0.01)
        next(iter_frames(idle.video))
        pattern.stop(); tone.stop()
        capture.release(); capture = picture.capture()
        print("ready", flush=True)
        try:
            while True:
                {wait}
        except KeyboardInterrupt:
            print("interrupted", two.state)
            raise
except KeyboardInterrupt:
    print("closed", two.state)
    sys.exit(7)
"""
    status, lines, err, seconds = interrupt(source, json.dumps(served_cloud))
    assert (status, lines, err) == (7, ["interrupted connected", "closed closed"], "")
    assert seconds < 20  # (a machine may be busy; a hang takes longer)


# --- 5: callbacks and the loop thread -------------------------------------------------


def test_a_frame_callback_may_close_its_client(options: dict[str, str]) -> None:
    with PatternSource(160, 120, fps=15) as pattern:
        client = SfuClient(**options)
        client.connect()
        track = client.subscribe(client.publish(pattern.video))
        seen: list[Any] = []

        @track.on_frame
        def look(frame: Any) -> None:
            if seen:
                return  # (what was queued still comes)
            seen.append(track.read(timeout=20).shape)
            seen.append(len(client.sessions()) >= 1)
            client.close()
            seen.append(client.state)

        wait_until(lambda: len(seen) == 3, 30)
        assert seen == [(120, 160, 3), True, "closed"]
        wait_until(lambda: "metered-sync-callbacks" not in str(threading.enumerate()))
        with pytest.raises(ClosedError):
            track.on_frame(look)


def test_waits_on_the_loop_thread_are_refused(options: dict[str, str]) -> None:
    with (
        SfuClient(**options) as client,
        PatternSource(160, 120, fps=15) as pattern,
        ToneSource(frequency=440) as tone,
    ):
        picture, sound = client.subscribe(client.publish([pattern.video, tone.audio]))
        capture, pcm = picture.capture(), sound.pcm()
        calls = (
            picture.read,
            capture.read,
            capture.grab,
            lambda: capture.get(3),
            pcm.get,
            lambda: next(iter_frames(picture)),
            lambda: next(iter_frames(tone.audio)),
        )
        errors: list[BaseException] = []
        done = threading.Event()

        def on_the_loop() -> None:
            for call in calls:
                try:
                    call()
                except BaseException as error:
                    errors.append(error)
            done.set()

        engine: Any = client._engine
        engine.post(on_the_loop)
        assert done.wait(20)
        assert [type(error) for error in errors] == [WrongThreadError] * len(calls)


# --- 6: slow readers ------------------------------------------------------------------


def test_a_slow_reader_sees_fresh_pictures(options: dict[str, str]) -> None:
    with (
        SfuClient(**options) as client,
        PatternSource(160, 120, fps=30) as pattern,
        ToneSource(frequency=440) as tone,
    ):
        picture, sound, unread = client.subscribe(
            client.publish([pattern.video, tone.audio, PatternSource(160, 120, fps=30).video])
        )
        frames, all_, slow = picture.frames(), picture.frames(mode="fifo"), sound.pcm()
        capture = picture.capture()
        ages, numbers = [], []
        for _ in range(16):
            image = picture.read(timeout=20)
            frame = frames.get(timeout=20)
            ages.append(frames.age)
            numbers.append(read_number(frame.to_ndarray(format="gray")))
            assert image.shape == capture.read(timeout=20)[1].shape  # type: ignore[union-attr]
            assert slow.get(timeout=20).shape == (320,)
            received = picture.frames_received
            wait_until(lambda received=received: picture.frames_received >= received + 6, 20)
        # In the order in which they come, 90 frames would lie before each: 3 s.
        assert statistics.median(ages) < 1
        assert all(after - before >= 4 for before, after in itertools.pairwise(numbers))
        assert frames.dropped > 40
        assert len(all_) <= 30
        assert unread.frames_received > 30
        assert not unread._core.incoming.readers


def test_memory_stays_where_nobody_reads_or_too_slowly() -> None:
    # 460 KB a frame, and 150 of them a second for each reader that would keep them.
    source = """
import gc, resource
from fractions import Fraction
import numpy as np
from av import VideoFrame
from tests.support.far_end import Far, sound
unread, read, heard = Far(), Far(), Far("audio")
readers = [read.track.frames(), read.track.capture(), read.track.frames(mode="fifo", maxsize=5)]
handle = read.track.on_frame(lambda frame: None)
pcm = heard.track.pcm()
pixels = np.zeros((720, 640), np.uint8)
for number in range(400):
    if number == 100:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for far in (unread, read):
        frame = VideoFrame.from_ndarray(pixels, format="yuv420p")
        frame.pts, frame.time_base = number * 3000, Fraction(1, 90000)
        far.send(frame)
    heard.send(*sound(np.zeros(9600), number / 5))
    if number % 10 == 0:
        readers[0].get(timeout=20); readers[1].read(timeout=20); pcm.get(timeout=20)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
handle.close()
"""
    done = run_script(source)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert int(done.stdout) < 30  # MB; one reader that keeps what comes would have 138


# --- media that is rebuilt ------------------------------------------------------------


def test_readers_go_on_where_the_connection_is_rebuilt(cloud: Any) -> None:
    with (
        PatternSource(160, 120, fps=15) as pattern,
        ToneSource(frequency=440) as tone,
        SfuClient(**cloud.sfu_options()) as sender,
        SfuClient(**cloud.sfu_options()) as receiver,
    ):
        picture, sound = receiver.subscribe(
            sender.publish([pattern.video, tone.audio], name="both")
        )
        capture, pcm = picture.capture(timeout=30), sound.pcm(chunk=0.05)
        seen: list[float] = []
        frames = iter_frames(picture, timeout=30)
        with picture.on_frame(lambda frame: seen.append(frame.time)):
            assert capture.read()[0]
            assert pcm.get(timeout=30).shape == (800,)
            next(frames)
            wait_until(lambda: seen, 20)
            cloud.faults.kill_sfu_session(receiver.session_id)
            wait_until(lambda: picture.restarts and sound.restarts, 30)
            position, calls = capture.get(0), len(seen)
            while True:
                assert capture.read()[0]
                if capture.get(0) > position + 500:
                    break
            for _ in range(20):
                assert pcm.get(timeout=30).shape == (800,)
            next(frames)
            wait_until(lambda: len(seen) > calls + 3, 20)
            assert seen == sorted(seen)


def test_tracks_of_rooms_are_read_in_the_same_ways(served_cloud: dict[str, str]) -> None:
    options: Any = {
        "api_key": served_cloud["publishable_key"],
        "url": served_cloud["url"],
        "ice_servers": [],
    }
    with (
        PatternSource(160, 120, fps=15) as pattern,
        ToneSource(frequency=440) as tone,
        MeteredPeer(**options) as one,
        MeteredPeer(**options) as two,
    ):
        one.add_stream(MediaStream([pattern.video, tone.audio]))
        one.join("reading")
        two.join("reading")
        remote = two.wait_for_peer(timeout=20)
        errors: list[Any] = []
        remote.on_error = lambda frame, error: errors.append((frame.width, repr(error)))
        picture = remote.track("video", timeout=30)
        with picture.on_frame(lambda frame: frame.nothing):
            assert picture.read(timeout=20, format="rgb24").shape == (120, 160, 3)
            assert picture.capture(timeout=20).read()[0]
            chunks = remote.track("audio", timeout=30).pcm(chunk=0.1)
            for _ in range(3):
                wave = chunks.get(timeout=20)
            assert dominant_frequency(wave, 16000) == pytest.approx(440, abs=20)
            assert next(iter_frames(picture, timeout=20)).width == 160
            wait_until(lambda: errors, 20)
        assert errors[0][0] == 160
        assert "AttributeError" in errors[0][1]
        cap = picture.capture(timeout=20)
        two.close()
        while cap.read()[0]:
            pass
        assert not cap.isOpened()
        list(chunks)
        with pytest.raises(ClosedError):
            chunks.get()


# --- 7: fork --------------------------------------------------------------------------


def test_fork(served_cloud: dict[str, str]) -> None:
    source = f"""
import gc, json, queue
from metered_sync import SfuClient, iter_frames
from metered_sync.testing import PatternSource, ToneSource
facts = json.loads(sys.argv[3])
options_ = dict(url=facts["http_url"], app_id=facts["sfu_app_id"], secret=facts["sfu_secret"])
{BOTH.replace("options", "options_")}
frames, local = iter_frames(picture), iter_frames(tone.audio)
called = threading.Event()
handle = picture.on_frame(lambda frame: called.set())
assert called.wait(20)
picture.read(timeout=20)
next(frames)
def child():
    global capture, pcm, handle, frames, picture, sound, local
    assert not any("frames" in thread.name for thread in threading.enumerate())
    for call in (
        picture.read, capture.read, capture.grab, capture.retrieve, capture.release,
        lambda: capture.get(3), pcm.get, pcm.get_nowait, pcm.close, handle.close,
        lambda: next(frames), lambda: next(local), picture.capture, sound.pcm,
        lambda: picture.on_frame(print), lambda: iter_frames(picture),
    ):
        refused(call)
    repr(capture), repr(pcm), repr(handle), capture.isOpened()
    del call    # and now everything goes, in a process without the threads of its codecs
    capture = pcm = handle = frames = picture = sound = local = None
    gc.collect()
    with SfuClient(**options_) as mine, PatternSource(160, 120, 15) as fresh:
        track = mine.subscribe(mine.publish(fresh.video))
        called = threading.Event()
        track.on_frame(lambda frame: called.set())
        assert track.read(timeout=20).any()
        assert called.wait(20)
assert in_child(child) == 0
called.clear()
assert called.wait(20) and capture.read(timeout=20)[0] and pcm.get(timeout=20).any()
one.close(); two.close(); pattern.stop(); tone.stop()
"""
    done = run_script(
        FORK + source,
        served_cloud["url"],
        served_cloud["publishable_key"],
        json.dumps(served_cloud),
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


# --- 8: exit, and objects that are collected ------------------------------------------

LEAVE = {
    "readers and callbacks at work": BOTH
    + "@picture.on_frame\ndef convert(frame):\n    frame.to_ndarray(format='bgr24')\n"
    "sound.on_frame(lambda frame: frame.to_ndarray())\n"
    "def read():\n    while capture.read()[0]: pass\n"
    "def listen():\n    for chunk in pcm: pass\n"
    "threading.Thread(target=read).start()\nthreading.Thread(target=listen).start()\n"
    "assert capture.read(timeout=20)[0]",
    "a callback that blocks": BOTH
    + "called = threading.Event()\npicture.on_frame(lambda f: (called.set(), time.sleep(60)))\n"
    "assert called.wait(20)",
    "local frames, half read": "pattern = PatternSource(64, 64, 15)\n"
    "next(iter_frames(pattern.video))\n",
}


def test_iterating_ends_where_the_interpreter_exits() -> None:
    done = run_script(
        """
import asyncio, atexit, threading
threads = []
atexit.register(lambda: threads[0].join(20))  # after the library's own, which comes later
from aiortc import AudioStreamTrack
from metered_sync import iter_frames
begun = threading.Event()
class Track(AudioStreamTrack):
    async def recv(self):
        if begun.is_set():
            waiting.set()
            await asyncio.Event().wait()
        return await super().recv()
waiting = threading.Event()
def read():
    for frame in iter_frames(Track()):
        begun.set()
    print("ended")
threads.append(threading.Thread(target=read, daemon=True))
threads[0].start()
assert waiting.wait(20)
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


@pytest.mark.parametrize("source", LEAVE.values(), ids=LEAVE.keys())
def test_exit(source: str, served_cloud: dict[str, str]) -> None:
    source = START + source + "\nprint(time.monotonic(), flush=True)"
    done = run_script(source, json.dumps(served_cloud))
    ended = time.monotonic()
    assert done.returncode == 0
    if "sleep(60)" in source:  # named, as it cannot be waited for
        line = r"the interpreter exits before .* track .*: <lambda> runs, \d queued\n"
        assert re.fullmatch(line, done.stderr)
    else:
        assert done.stderr == ""
    assert ended - float(done.stdout.split()[-1]) < 15  # (3 are the limit)


def test_a_client_whose_track_has_callbacks_stays_alive(options: dict[str, str]) -> None:
    seen: list[int] = []
    with PatternSource(160, 120, fps=15) as pattern:

        def start() -> Any:
            client = SfuClient(**options)
            client.connect()
            client.subscribe(client.publish(pattern.video)).on_frame(
                lambda frame: seen.append(frame.pts)
            )
            return client._link

        link = start()
        gc.collect()
        wait_until(lambda: seen, 20)
        gc.collect()
        count = len(seen)
        wait_until(lambda: len(seen) > count + 5, 20)
        assert link.state == "connected"
        pattern.stop()
        engine = engines.current()
        engine.post(engine.abandon, link)
        wait_until(lambda: link.state == "closed")


# --- 9: leaks -------------------------------------------------------------------------


def test_readers_leave_nothing(options: dict[str, str]) -> None:
    with (
        SfuClient(**options) as client,
        PatternSource(160, 120, fps=30) as pattern,
        ToneSource(frequency=440) as tone,
    ):
        picture, sound = client.subscribe(client.publish([pattern.video, tone.audio]))
        picture.read(timeout=20)
        sound.frames().get(timeout=20)

        def round_() -> None:
            called = threading.Event()
            with picture.on_frame(lambda frame: called.set()), sound.pcm(rate=8000) as pcm:
                with picture.capture() as capture:
                    capture.read(timeout=20)
                pcm.get(timeout=20)
                assert called.wait(20)
            next(iter_frames(picture, timeout=20))
            picture.capture().get(3, timeout=20)  # and those that are forgotten
            sound.pcm().get(timeout=20)

        check(round_, rounds=15, per_round=4000)  # (aiortc's own buffers move meanwhile)
        wait_until(lambda: gc.collect() is not None and len(picture._core.incoming.readers) == 1)
        assert not sound._core.incoming.readers


def test_a_forgotten_reader_keeps_no_client(options: dict[str, str]) -> None:
    with ToneSource(frequency=440) as tone:
        client: Any = SfuClient(**options)
        client.connect()
        link = client._link
        pcm: Any = client.subscribe(client.publish(tone.audio)).pcm()
        del client
        gc.collect()
        pcm.get(timeout=20)  # it does as long as it is held
        assert link.state == "connected"
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del pcm
            wait_until(lambda: gc.collect() is not None and link.state == "closed")
        assert any("SfuClient was not closed" in str(w.message) for w in caught)
