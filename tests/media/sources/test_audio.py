"""Push sound: pace, backpressure, barge-in, ending; and through the SFU."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
import weakref
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from metered_sync import AudioSource, ClosedError, MeteredError, MeteredTimeoutError, SfuClient
from metered_sync.engine.sending import pushed as live
from metered_sync.local import LocalCloud
from metered_sync.media.sources import audio as audio_source
from metered_sync.testing import dominant_frequency
from tests.conftest import wait_until
from tests.support.interrupted import interrupted
from tests.support.listening import Listener, tone


def played(source: AudioSource) -> NDArray[Any]:
    """Return what the source is going to play: the left channel, without silence around it."""
    source._queue.add(source._converter.flush())
    left: NDArray[Any] = np.frombuffer(source._queue.sound, np.int16)[::2]
    (loud,) = np.nonzero(left)
    return left[loud[0] : loud[-1] + 1].copy()


class Pushing:
    """A push on a thread of its own."""

    def __init__(self, source: AudioSource, sound: Any, timeout: float | None = None) -> None:
        self.error: BaseException | None = None
        self.seconds = math.nan

        def push() -> None:
            started = time.monotonic()
            try:
                source.push(sound, timeout=timeout)
            except BaseException as error:
                self.error = error
            self.seconds = time.monotonic() - started

        self.thread = threading.Thread(target=push)
        self.thread.start()

    def result(self) -> BaseException | None:
        self.thread.join(20)
        assert not self.thread.is_alive()
        return self.error


def waiting(source: AudioSource, calls: int = 1) -> None:
    """Wait until that many pushes are under way and the buffer is full."""
    wait_until(lambda: len(source._turns) == calls and not source._queue.room, what="pushes wait")


# --- what is pushed is what is played ---------------------------------------------------


def test_it_plays_what_is_pushed_in_frames_of_20_ms() -> None:
    source = AudioSource()
    source.push(tone(1000, 0.5))
    assert source.buffered_seconds == pytest.approx(0.5, abs=0.005)
    with Listener(source.audio) as ear:
        source.end()
        ear.wait_for_end()
        assert {(f.samples, f.sample_rate, f.layout.name, f.format.name) for f in ear.frames} == {
            (960, 48000, "stereo", "s16")
        }
        assert {f.time_base for f in ear.frames} == {Fraction(1, 48000)}
        heard = ear.heard()
        assert len(heard) == pytest.approx(24000, abs=10)  # nothing lost, nor added
        assert dominant_frequency(heard, 48000) == pytest.approx(1000, abs=1)
        assert abs(int(heard.max()) - 8000) < 100
        sound = ear.sound()
        assert (sound[:, 0] == sound[:, 1]).all()
        assert ear.times[-1] - ear.times[0] >= 0.47  # in real time
        stalled = np.diff(ear.pts()).max() > 960  # the machine was: then that counts, too
        assert source.position == pytest.approx(0.5) or (stalled and source.position > 0.5)
    assert source.frames_sent == {"audio": len(ear.frames)}


def test_what_cannot_be_played_is_refused_and_it_goes_on() -> None:
    source = AudioSource()
    for wrong in ("text", np.zeros(5, np.int32), np.full(5, np.nan)):
        with pytest.raises((TypeError, ValueError)):
            source.push(wrong)
    for wrong in ([0, 1, 2], (0.5, 0.25)):
        with pytest.raises(TypeError, match=r"not (list|tuple): numpy\.array\(…, numpy\.int16\)"):
            source.push(wrong)  # type: ignore[arg-type]
    source.push(tone(440, 0.1))
    assert source.buffered_seconds > 0.09


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"input_rate": 0}, ValueError, "input_rate must be a whole number"),
        ({"input_rate": 16000.5}, ValueError, "not 16000.5"),
        ({"input_rate": True}, ValueError, "not True"),
        ({"input_layout": "loud"}, ValueError, '"mono", "stereo" or another layout'),
        ({"input_layout": 2}, TypeError, "must be a str, not int"),
        ({"max_buffered_seconds": 0}, ValueError, "from 0.1 up"),
        ({"max_buffered_seconds": math.inf}, ValueError, "finite"),
        ({"max_buffered_seconds": math.nan}, ValueError, "finite"),
    ],
)
def test_options_are_checked(options: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        AudioSource(**options)


# --- pace -------------------------------------------------------------------------------


def test_silence_where_there_is_nothing_to_play() -> None:
    source = AudioSource()
    with Listener(source.audio) as ear:
        ear.wait_for(5)
        assert not ear.sound().any()
        assert source.level == -127.0
        source.push(tone(440, 0.1))
        source.wait_drained(timeout=20)
        count = len(ear.frames)
        ear.wait_for(count + 5)
        assert not ear.frames[-1].to_ndarray().any()
        assert len(ear.heard()) == pytest.approx(4800, abs=60)
        assert np.diff(ear.pts()).min() == 960
    source.stop()


def test_after_a_stall_nothing_comes_in_a_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    source = AudioSource()
    monkeypatch.setattr(live, "UNTAKEN_KEPT", 60.0)  # the listener is there, only slow
    with Listener(source.audio) as ear:
        source.push(tone(440, 1))
        ear.wait_for(10)
        ear.stall(0.5)
        before = len(ear.frames)
        source.wait_drained(timeout=20)
        spacing = np.diff(np.array(ear.times[before : before + 40]))
        assert spacing.sum() >= 0.02 * (len(spacing) - 6)  # 100 ms may be caught up
        pts = ear.pts()
        assert np.diff(pts).min() == 960
        assert np.diff(pts).max() >= 0.35 * 48000  # the stall is a gap, also in the timestamps
        ear.wait_for(len(ear.frames) + 2)  # (the last piece was taken, and is not there yet)
        assert len(ear.heard()) == pytest.approx(48000, abs=960)  # and nothing is lost
    source.stop()


def test_a_caller_that_pushes_as_it_goes_makes_no_gaps() -> None:
    source = AudioSource(input_rate=48000)
    queue = source._queue

    def take() -> NDArray[Any]:
        with source._feed.lock:
            frame: Any = queue._next().frame
        return frame.to_ndarray()[0, ::2]

    wave = np.arange(1, 480 * 3 + 1, dtype=np.int16)
    source.push(wave[:480])
    assert not take().any()  # half a frame: the rest is on its way
    source.push(wave[480:960])
    assert np.array_equal(take(), wave[:960])
    source.push(wave[960:])
    assert not take().any()
    assert np.array_equal(take(), np.append(wave[960:], np.zeros(480)))  # it was not
    assert not take().any()


def test_level() -> None:
    source = AudioSource(input_rate=48000)
    assert source.level == -127.0
    with Listener(source.audio):
        source.push(tone(1000, 2, 48000, peak=32767))
        wait_until(lambda: source.level > -100)
        assert source.level == pytest.approx(-3.01, abs=0.1)  # a sine's RMS
        source.clear()
        source.push(tone(1000, 2, 48000, peak=3276.7))
        wait_until(lambda: source.level == pytest.approx(-23.01, abs=0.1))
    source.stop()
    assert source.level == -127.0


# --- backpressure -----------------------------------------------------------------------


def test_a_push_waits_while_the_buffer_is_full() -> None:
    source = AudioSource(max_buffered_seconds=0.2)
    with Listener(source.audio) as ear:
        started = time.monotonic()
        source.push(tone(440, 0.6))
        assert time.monotonic() - started >= 0.35
        assert source.buffered_seconds <= 0.2
        source.wait_drained(timeout=20)
        ear.wait_for(len(ear.frames) + 2)
        assert len(ear.heard()) == pytest.approx(28800, abs=60)
    source.stop()


def test_a_deadline_drops_the_rest_and_says_why() -> None:
    source = AudioSource(max_buffered_seconds=0.2)
    with pytest.raises(MeteredTimeoutError, match=r"within 0.1 s.*dropped; nobody consumes"):
        source.push(tone(440, 0.5), timeout=0.1)
    assert source.buffered_seconds == pytest.approx(0.2)
    with pytest.raises(MeteredTimeoutError, match="within 0 s"):
        source.push(tone(440, 0.5), timeout=0)
    with Listener(source.audio) as ear:
        ear.wait_for(2)
        with pytest.raises(MeteredTimeoutError, match=r"dropped$"):
            source.push(tone(440, 5), timeout=0.1)
        source.wait_drained(timeout=10)
        source.push(tone(440, 0.1), timeout=0)  # what fits is taken without waiting
    source.stop()


def test_while_nobody_consumes_a_push_waits_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audio_source, "UNCONSUMED_WAIT", 0.3)
    source = AudioSource(max_buffered_seconds=0.1)
    with pytest.raises(MeteredTimeoutError, match=r"within 0\.3 s.*nobody consumes its track yet"):
        source.push(tone(440, 1))
    source.clear()
    with Listener(source.audio):
        source.push(tone(440, 0.6))  # as long as playing takes
    source.stop()


def test_time_passes_while_a_consumer_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "UNTAKEN_KEPT", 0.1)
    source = AudioSource(max_buffered_seconds=0.3)
    with Listener(source.audio) as ear:
        ear.wait_for(2)
    source.push(tone(440, 0.6))  # it would wait for ever, were playing to wait for a listener
    source.wait_drained(timeout=20)
    assert source.position >= 0.6
    source.push(tone(440, 0.2))
    source.end()
    source.wait(timeout=20)


def test_several_who_push_take_turns() -> None:
    source = AudioSource(input_rate=48000, max_buffered_seconds=0.1)
    pushes = []
    for number in range(1, 6):
        pushes.append(Pushing(source, np.full(4800 + 7, number * 1000, np.int16)))
        wait_until(lambda n=number: len(source._turns) == n)
    with Listener(source.audio) as ear:
        assert [push.result() for push in pushes] == [None] * 5
        source.end()
        ear.wait_for_end()
        heard = ear.heard()
        assert np.array_equal(heard, np.repeat(np.arange(1, 6) * 1000, 4807))


# --- barge-in ---------------------------------------------------------------------------


def test_a_signal_handler_may_push_at_each_moment_of_a_push() -> None:
    with AudioSource() as source:
        told = 0

        def push_more() -> None:
            nonlocal told
            try:
                source.push(bytes(640), timeout=0)
            except MeteredTimeoutError:  # the push that it has interrupted goes first
                told += 1

        for at in range(500):
            source.clear()
            with interrupted(at, push_more) as interruption:
                source.push(bytes(640), timeout=10)
            if not interruption.done:
                break
        assert 0 < told < at < 499


def test_clear_drops_what_is_buffered_and_what_is_still_to_be_pushed() -> None:
    source = AudioSource(max_buffered_seconds=1)
    with Listener(source.audio) as ear:
        first, second = Pushing(source, tone(440, 20)), Pushing(source, tone(440, 20))
        waiting(source, 2)
        ear.wait_for(5)
        source.clear()
        assert source.buffered_seconds == 0
        assert (first.result(), second.result()) == (None, None)
        # At most the frame that was on its way then is not silent.
        count = len(ear.frames)
        ear.wait_for(count + 5)
        assert not any(frame.to_ndarray().any() for frame in ear.frames[count + 1 : count + 5])
        source.wait_drained(timeout=20)

        before = len(ear.frames)
        source.push(np.full(1600, 5000, np.int16))  # and the next is heard, from its beginning
        source.wait_drained(timeout=20)
        ear.wait_for(len(ear.frames) + 1)
        after = np.concatenate([f.to_ndarray().reshape(-1, 2)[:, 0] for f in ear.frames[before:]])
        assert np.count_nonzero(after > 4000) == pytest.approx(4800, abs=60)
        assert after.min() > -1500  # nothing of the tone was left in the resampler
    source.stop()


def test_clear_forgets_half_a_sample() -> None:
    source = AudioSource(input_rate=48000)
    source.push(b"\x01")
    source.clear()
    wave = tone(440, 0.1, 48000)
    source.push(wave.tobytes())
    assert np.array_equal(played(source), wave[1:][: len(wave) - 1][: np.nonzero(wave)[0][-1]])


# --- ending -----------------------------------------------------------------------------


def test_end_plays_what_is_buffered_and_then_ends_the_track() -> None:
    source = AudioSource()
    source.push(tone(440, 0.3))
    with pytest.raises(MeteredTimeoutError, match=r"0\.1 s; nobody consumes its track yet"):
        source.wait_drained(timeout=0.1)
    source.end()
    source.end()
    for call in (lambda: source.push(b""), lambda: source.push(tone(440, 0.1))):
        with pytest.raises(ClosedError, match="has been ended: make another one"):
            call()
    with Listener(source.audio) as ear:
        source.wait(timeout=20)
        ear.wait_for_end()
        assert len(ear.heard()) == pytest.approx(14400, abs=10)
        assert len(ear.frames) == 15
    source.wait_drained(timeout=0)
    assert "stopped" in repr(source)
    track: Any = source.audio
    assert track.readyState == "ended"


def test_end_with_nothing_buffered_ends_at_once() -> None:
    source = AudioSource()
    source.end()
    source.wait(timeout=0)
    source = AudioSource()
    with Listener(source.audio) as ear:
        ear.wait_for(2)
        source.end()
        ear.wait_for_end()


def test_clear_after_end_ends_at_once() -> None:
    source = AudioSource()
    source.push(tone(440, 3))
    source.end()
    source.clear()
    source.wait(timeout=0)


@pytest.mark.parametrize("how", ["end", "stop", "with", "the track"])
@pytest.mark.parametrize("consumed", [False, True], ids=["", "consumed"])
def test_ending_wakes_who_pushes(how: str, consumed: bool) -> None:
    source = AudioSource(max_buffered_seconds=1)
    track: Any = source.audio
    end: dict[str, Callable[[], None]] = {
        "end": source.end,
        "stop": source.stop,
        "with": lambda: source.__exit__(None, None, None),
        "the track": track.stop,
    }
    with Listener(track) if consumed else source:
        pushes = [Pushing(source, tone(440, 30)) for _ in range(3)]
        waiting(source, 3)
        end[how]()
        assert [type(push.result()) for push in pushes] == [ClosedError] * 3
        assert max(push.seconds for push in pushes) < 5
    with pytest.raises(ClosedError, match="has been ended" if how == "end" else "stopped"):
        source.push(b"")
    source.stop()
    source.clear()


def test_no_thread_is_started_and_a_forgotten_source_goes() -> None:
    before = threading.active_count()
    source = AudioSource()
    source.push(tone(440, 1))
    assert threading.active_count() == before
    track: Any = source.audio
    reference = weakref.ref(source)
    del source
    gc.collect()
    assert reference() is not None  # its track is in use
    assert asyncio.run(asyncio.wait_for(track.recv(), 20)).samples == 960
    del track
    gc.collect()
    assert reference() is None


def test_it_has_no_video() -> None:
    source = AudioSource()
    assert source.video is None
    assert source.tracks == [source.audio]


# --- through the SFU --------------------------------------------------------------------


def test_a_tone_and_an_interruption_reach_a_subscriber(shared_cloud: LocalCloud) -> None:
    options = shared_cloud.sfu_options()
    with (
        AudioSource() as source,
        SfuClient(**options) as one,
        SfuClient(**options) as two,
        two.subscribe(one.publish(source.audio)).frames(maxsize=2000) as frames,
    ):

        def hear() -> NDArray[Any]:
            return frames.get(timeout=20).to_ndarray().reshape(-1, 2)[:, 0]

        hear()
        push = Pushing(source, tone(1000, 60))
        while np.abs(hear()).max() < 4000:
            pass
        heard = np.concatenate([hear() for _ in range(50)])
        assert dominant_frequency(heard, 48000) == pytest.approx(1000, abs=2)
        with pytest.raises(MeteredError):
            source.push(tone(1000, 1), timeout=0)
        source.clear()
        assert push.result() is None
        on_the_way = 0
        while np.abs(hear()).max() > 500:
            on_the_way += 1
        assert on_the_way < 50  # a second, on a busy machine; usually 5
        quiet = np.concatenate([hear() for _ in range(10)])
        assert np.abs(quiet).max() < 500
        source.end()
        source.wait(timeout=20)
