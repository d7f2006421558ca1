"""Share one interface among sources; take tracks or sources as arguments."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from metered_sync import MediaError, MediaStream, MeteredTimeoutError
from metered_sync.media.sources.base import Source
from metered_sync.testing import PatternSource, ToneSource
from tests.conftest import wait_until
from tests.support.listening import Listener


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("metered-sync-ToneSource")]


def test_sources_share_one_interface() -> None:
    with PatternSource() as pattern, ToneSource() as tone:
        assert (pattern.audio, tone.video) == (None, None)
        assert [t.kind for t in pattern.tracks + tone.tracks] == ["video", "audio"]
        assert pattern.video is pattern.video
        assert (pattern.position, pattern.frames_sent) == (0.0, {"video": 0})
        assert repr(pattern) == "<PatternSource PatternSource(320, 240, 30): ready, 0.00 s>"
    assert repr(tone) == "<ToneSource ToneSource(440): stopped, 0.00 s>"
    assert tone.tracks[0].readyState == "ended"
    tone.wait(timeout=0)


def test_waiting_for_the_end() -> None:
    with ToneSource(duration=0.1) as tone:
        with pytest.raises(MeteredTimeoutError, match="nobody consumes its tracks yet"):
            tone.wait(timeout=0)
        with pytest.raises(ValueError, match="timeout"):
            tone.wait(timeout=-1)
        with Listener(tone.audio) as ear:
            tone.wait(timeout=20)
            assert (tone.frames_sent, len(ear.frames)) == ({"audio": 5}, 5)
            assert tone.position == pytest.approx(0.1)


def test_stop_wakes_all_who_wait_and_ends_the_tracks() -> None:
    tone = ToneSource()
    waiting = [threading.Thread(target=tone.wait, kwargs={"timeout": 20}) for _ in range(3)]
    for thread in waiting:
        thread.start()
    with Listener(tone.audio) as ear:
        ear.wait_for(3)
        with pytest.raises(MeteredTimeoutError, match=r"not played to the end within 0 s$"):
            tone.wait(timeout=0)
        tone.stop()
        ear.wait_for_end()
    for thread in waiting:
        thread.join(20)
        assert not thread.is_alive()
    wait_until(lambda: not threads())
    tone.stop()


def test_a_failure_of_the_producer_is_told_to_all_who_wait() -> None:
    def produce(feed: object) -> None:
        raise MediaError("it broke")

    source = Source("test", {"audio": 5}, produce)
    with Listener(source.audio) as ear:
        ear.wait_for_end()
    for _ in range(2):
        with pytest.raises(MediaError, match="it broke"):
            source.wait(timeout=20)


def test_a_track_keeps_its_source_and_the_last_reference_ends_it() -> None:
    source: ToneSource | None = ToneSource()
    assert source is not None
    gone, track = weakref.ref(source), source.audio
    assert track is not None
    del source
    gc.collect()

    with Listener(track) as ear:
        ear.wait_for(3)
        assert gone() is not None
        assert threads()
    del track, ear
    gc.collect()
    assert gone() is None
    wait_until(lambda: not threads())


def test_stopping_its_only_track_stops_a_source() -> None:
    tone = ToneSource()
    track = tone.audio
    assert track is not None
    track.stop()
    tone.wait(timeout=20)

    with Listener(track) as ear:
        ear.wait_for_end()
        assert ear.frames == []


def test_a_source_is_not_iterated_over_itself() -> None:
    with PatternSource() as pattern, ToneSource() as tone:
        for source in (pattern, tone):
            with pytest.raises(TypeError, match=r"use iter_frames\(source.video\)"):
                iter(source)  # type: ignore[call-overload]
            assert len(MediaStream(source).tracks) == 1
