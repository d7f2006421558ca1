"""Take the frames of recorded tracks: held until placed, bounded, and again after a rebuild."""

from __future__ import annotations

from typing import Any

import pytest

from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.reader import Reader
from metered_sync.media.recording.inputs import PLACING_TIME, QueuedFrame, RecordedTrack
from metered_sync.media.recording.mixing import Mixer, MixerInput
from tests.support.far_end import Far, picture, sound, tone


class Sink:
    """Notes where pictures were put."""

    def __init__(self) -> None:
        self.places: list[float] = []

    def write(self, frame: Any, at: float) -> None:
        self.places.append(round(at, 3))


def recorded(kind: str = "video") -> tuple[Far, RecordedTrack, Reader[QueuedFrame]]:
    far = Far(kind)
    inbox: Reader[QueuedFrame] = Reader("test", maxsize=10000)
    track = RecordedTrack(far.track, inbox)
    track.reader.attach(Deadline(1))
    return far, track, inbox


def drain(inbox: Reader[QueuedFrame]) -> list[QueuedFrame]:
    return [inbox.get(timeout=20) for _ in range(len(inbox))]


@pytest.mark.parametrize(("kind", "limit"), [("video", 30), ("audio", 500)])
def test_frames_that_nobody_takes_out_are_dropped_and_counted(kind: str, limit: int) -> None:
    far, track, inbox = recorded(kind)
    frames = sound(tone(440, 0.02)) if kind == "audio" else [picture(1)]
    for _ in range(limit + 7):
        far.send(*frames)
    assert (len(inbox), track.reader.dropped) == (limit, 7)
    track.reader.taken += len(drain(inbox))
    far.send(*frames)
    assert len(inbox) == 1
    far.incoming.end()
    *_, last = drain(inbox)
    assert last.frame is None
    far.send(*frames)
    assert len(inbox) == 0


def test_a_detached_track_delivers_nothing() -> None:
    far, track, inbox = recorded()
    track.reader.detach()
    far.send(picture(1))
    assert (len(inbox), len(far.incoming.readers)) == (0, 0)


def test_frames_are_held_until_the_track_can_be_placed() -> None:
    _far, track, _inbox = recorded()
    track.sink = sink = Sink()  # type: ignore[assignment]
    assert not track.came
    for number in range(4):
        item = QueuedFrame(track, picture(number), 7 + number * 0.1, 100 + number * 0.1, 0)
        track.take(item._replace(arrived=item.arrived + (0.05 if number != 2 else 0)), 100.0)
    assert track.came
    assert track.earliest() == pytest.approx(100.0)  # by the most punctual of them
    track.advance(100.0, 100.05 + PLACING_TIME / 2)
    assert sink.places == []
    track.advance(100.0, 100.05 + PLACING_TIME)
    assert sink.places == [0.0, 0.1, 0.2, 0.3]
    track.take(QueuedFrame(track, picture(4), 7.4, 100.4, 0), 100.0)
    assert sink.places[-1] == 0.4
    assert not track.held


def test_a_rebuilt_track_is_placed_anew() -> None:
    _far, track, _inbox = recorded()
    track.sink = sink = Sink()  # type: ignore[assignment]
    for number in range(3):
        track.take(QueuedFrame(track, picture(number), number * 0.1, 50 + number * 0.1, 0), 50.0)
    track.take(QueuedFrame(track, picture(3), 900.0, 52.0, 1), 50.0)  # releases what was held
    assert sink.places == [0.0, 0.1, 0.2]
    track.ended = True
    track.advance(50.0, 52.0)
    assert sink.places[-1] == 2.0


def test_too_many_held_frames_are_not_waited_for() -> None:
    _far, track, _inbox = recorded()
    track.sink = sink = Sink()  # type: ignore[assignment]
    for number in range(61):
        track.take(QueuedFrame(track, picture(1), number / 1000, 10 + number / 1000, 0), None)
    assert track.full
    track.release(None)
    assert len(track.held) == 61  # while nobody knows where the file begins
    track.advance(10.0, 10.061)
    assert len(sink.places) == 61


def test_sound_goes_into_the_mixer() -> None:
    far, track, inbox = recorded("audio")
    mixer = Mixer()
    track.sink = MixerInput(mixer)
    far.send(*sound(tone(440, 0.1)))
    for item in drain(inbox):
        track.take(item, item.arrived if not track.held else None)
    track.release(track.earliest())
    assert track.sink.end == pytest.approx(4800, abs=2)
    assert abs(mixer.take(4800)).max() > 7000
