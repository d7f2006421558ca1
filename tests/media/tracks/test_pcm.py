"""Read sound in chunks: rates, layouts, gaps, deadlines, ends."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from typing import Any

import numpy as np
import pytest

from metered_sync import ClosedError, MediaError, MeteredTimeoutError
from metered_sync.testing import dominant_frequency
from tests.support.far_end import Far, sound, tone


def heard(far: Far, **options: Any) -> Any:
    """Return all chunks of what was sent, as one array."""
    pcm = far.track.pcm(**options)
    return pcm, lambda: np.concatenate(list(pcm))


@pytest.mark.parametrize("layout", ["mono", "stereo"])
@pytest.mark.parametrize(
    ("rate", "chunk", "samples"),
    [
        (16000, 0.02, 320),
        (8000, 0.01, 80),
        (44100, 0.025, 1102),
        (48000, 0.03, 1440),
        (8000, 1 / 8000, 1),
        (12345, 0.1, 1234),
        (96000, 0.25, 24000),
        (22050, 2, 44100),
    ],
)
def test_any_rate_layout_and_length(rate: int, chunk: float, samples: int, layout: Any) -> None:
    far = Far("audio")
    chunks = far.track.pcm(rate=rate, layout=layout, chunk=chunk)
    far.send(*sound(tone(440, 1)))
    far.incoming.end()
    got = list(chunks)
    shape = (samples,) if layout == "mono" else (samples, 2)
    assert {(one.shape, one.dtype.name) for one in got} == {(shape, "int16")}
    assert all(one.flags.c_contiguous and one.flags.writeable for one in got[:3])
    assert (len(got) - 1) * samples < rate + rate // 100
    assert len(got) * samples >= rate - rate // 100
    wave = np.concatenate(got)
    left = wave if layout == "mono" else wave[:, 0]
    assert dominant_frequency(left[:rate], rate) == pytest.approx(440, abs=2)
    assert np.abs(left[rate // 10 : rate // 2]).max() == pytest.approx(8000, rel=0.02)
    if layout == "stereo":
        assert np.array_equal(wave[:, 0], wave[:, 1])


def test_channels() -> None:
    left, right = tone(500, 0.5), tone(1500, 0.5)
    both = np.stack([left, right], axis=1)
    for options, check in (
        ({"layout": "stereo"}, lambda w: np.array_equal(w, both)),
        ({"layout": "mono"}, lambda w: np.abs(w - both.mean(axis=1)).max() <= 2),
    ):
        far = Far("audio")
        _, wave = heard(far, rate=48000, **options)
        far.send(*sound(both))
        far.incoming.end()
        assert check(wave())
    far = Far("audio")  # mono is as loud on both channels
    _, wave = heard(far, rate=8000, layout="stereo")
    far.send(*sound(tone(500, 0.5, 8000), rate=8000, layout="mono"))
    far.incoming.end()
    assert np.array_equal(wave()[:4000], np.repeat(tone(500, 0.5, 8000)[:, None], 2, axis=1))


def test_what_is_sent_may_change_its_format() -> None:
    far = Far("audio")
    chunks, wave = heard(far, rate=16000)
    far.send(*sound(tone(500, 0.4)))
    far.send(*sound(tone(500, 0.4, 8000), 0.4, 8000, "mono"))
    far.send(*sound(tone(500, 0.4, 16000), 0.8, 16000, "mono", "fltp"))
    far.send(*sound(tone(500, 0.4, 44100), 1.2, 44100, "stereo", "fltp"))
    far.incoming.end()
    whole = wave()
    assert len(whole) == pytest.approx(1.6 * 16000, abs=330)
    for start in (0.1, 0.5, 0.9, 1.3):
        part = whole[int(start * 16000) : int((start + 0.2) * 16000)]
        assert dominant_frequency(part, 16000) == pytest.approx(500, abs=5)
        assert np.abs(part).max() == pytest.approx(8000, rel=0.03)
    assert chunks.dropped == 0


@pytest.mark.parametrize(
    ("gap", "silence"),
    [(0.02, 0.02), (0.1, 0.1), (0.9, 0.9), (0.001, 0), (1.5, 0), (3600, 0), (-0.1, 0), (-50, 0)],
)
def test_short_gaps_are_silent_and_pauses_left_out(gap: float, silence: float) -> None:
    far = Far("audio")
    _, wave = heard(far, rate=48000)
    loud = np.full(9600, 5000)
    far.send(*sound(loud, 100))
    far.send(*sound(loud, 100.2 + gap))
    far.incoming.end()
    whole = wave()
    assert np.array_equal(whole[:9600], loud)
    still = round(silence * 48000)
    assert not whole[9600 : 9600 + still].any()
    assert np.array_equal(whole[9600 + still : 19200 + still], loud)
    assert len(whole) - (19200 + still) < 960
    assert not whole[19200 + still :].any()


def test_sound_without_times_is_joined() -> None:
    far = Far("audio")
    _, wave = heard(far, rate=48000)
    for frame in sound(np.full(4800, 5000)):
        frame.pts = None
        far.send(frame)
    far.incoming.end()
    assert np.array_equal(wave()[:4800], np.full(4800, 5000))


def test_a_slow_reader_gets_what_is_newest_without_silence() -> None:
    far = Far("audio")
    chunks = far.track.pcm(rate=48000, chunk=0.02)
    sent = sound(np.repeat(np.arange(1, 561), 960))
    far.send(*sent[:10])
    assert [int(chunks.get(timeout=20)[0]) for _ in range(10)] == list(range(1, 11))
    far.send(*sent[10:])
    assert chunks.dropped == 50
    far.incoming.end()
    assert [(int(one[0]), int(one[-1])) for one in chunks] == [(n, n) for n in range(61, 561)]


def test_deadlines() -> None:
    far = Far("audio")
    chunks = far.track.pcm(chunk=0.05)
    frames = sound(tone(440, 0.2))
    far.send(*frames[:2])
    with pytest.raises(MeteredTimeoutError, match=r"pcm of audio track 'far': no whole chunk.*0 s"):
        chunks.get(timeout=0)
    with pytest.raises(queue.Empty):
        chunks.get_nowait()
    started = time.monotonic()
    with pytest.raises(MeteredTimeoutError, match=r"within 0\.05 s"):
        chunks.get(0.05)
    assert time.monotonic() - started < 5
    with pytest.raises(ValueError, match="timeout"):
        chunks.get(-1)
    far.send(*frames[2:])  # what there was is kept
    got = [chunks.get_nowait() for _ in range(3)]
    assert dominant_frequency(np.concatenate(got), 16000) == pytest.approx(440, abs=5)


def test_a_deadline_holds_beside_a_thread_that_waits() -> None:
    far = Far("audio")
    chunks = far.track.pcm()
    seen: list[Any] = []
    waiting = threading.Thread(target=lambda: seen.extend(chunks))
    waiting.start()
    for _ in range(3):
        with pytest.raises(MeteredTimeoutError):
            chunks.get(timeout=0.02)
        with pytest.raises(queue.Empty):
            chunks.get_nowait()
    far.send(*sound(tone(440, 0.1)))
    chunks.close()
    waiting.join(10)
    assert not waiting.is_alive()
    assert len(seen) == 5


def test_threads_share_the_chunks() -> None:
    far = Far("audio")
    chunks = far.track.pcm(rate=48000, chunk=0.01)
    taken: list[list[int]] = [[], [], []]

    def take(mine: list[int]) -> None:
        mine.extend(int(one[0]) for one in chunks)

    threads = [threading.Thread(target=take, args=(mine,)) for mine in taken]
    for thread in threads:
        thread.start()
    far.send(*sound(np.repeat(np.arange(400), 480)))
    far.incoming.end()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert all(mine == sorted(mine) for mine in taken)
    assert sorted(itertools.chain(*taken)) == list(range(400))


def test_the_end_and_closing() -> None:
    far = Far("audio")
    with far.track.pcm(rate=48000, chunk=0.05) as chunks, far.track.pcm() as other:
        far.send(*sound(np.full(4800 + 960, 7)))
        other.close()
        other.close()
        assert len(list(other)) == 6  # what was queued
        far.incoming.end(MediaError("its connection broke"))
        assert [int(chunks.get(timeout=20).sum()) for _ in range(3)] == [16800, 16800, 7 * 960]
        for _ in range(2):
            with pytest.raises(MediaError, match="its connection broke"):
                next(chunks)
            with pytest.raises(ClosedError):
                other.get()
            with pytest.raises(ClosedError):
                other.get_nowait()
    assert not far.incoming.readers
    assert repr(other) == "<pcm of audio track 'far': closed, 0 dropped>"


def test_arguments_are_checked() -> None:
    track: Any = Far("audio").track
    for options, what in (
        ({"rate": 0}, "rate"),
        ({"rate": 16000.5}, "rate"),
        ({"rate": True}, "rate"),
        ({"layout": "5.1"}, "layout"),
        ({"layout": 2}, "layout"),
        ({"chunk": 0}, "chunk"),
        ({"chunk": -1}, "chunk"),
        ({"chunk": float("nan")}, "chunk"),
        ({"chunk": float("inf")}, "chunk"),
        ({"chunk": 0.00001}, "chunk"),
    ):
        with pytest.raises(ValueError, match=what):
            track.pcm(**options)
    for chunk, samples in ((320, "320"), (10.1, "10.1"), (160000, "160000")):
        with pytest.raises(ValueError, match=f"chunk is in seconds.*pass chunk={samples} / 16000"):
            track.pcm(chunk=chunk)
    assert track.pcm(chunk=10)
    for chunk in ("1", None, True):
        with pytest.raises(TypeError, match="chunk"):
            track.pcm(chunk=chunk)
    assert not track._core.incoming.readers
