"""Queue a track's frames: modes, bounds, and readers on their own."""

from __future__ import annotations

import math
import queue
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from av import AudioFrame

from metered_sync import ClosedError
from tests.support.far_end import Far, picture


def test_readers_are_on_their_own() -> None:
    far = Far()
    newest, all_, few = (
        far.track.frames(),
        far.track.frames(mode="fifo"),
        far.track.frames(mode="fifo", maxsize=3),
    )
    far.send(*(picture(number) for number in range(12)))
    assert [len(r) for r in (newest, all_, few)] == [1, 12, 3]
    assert [r.dropped for r in (newest, all_, few)] == [11, 0, 9]
    first = all_.get(timeout=20)
    assert (first.pts, next(few).pts, newest.get_nowait().pts) == (0, 27000, 33000)
    with pytest.raises(queue.Empty):
        newest.get_nowait()
    assert newest.age < 60
    all_.close()
    far.send(picture(12))
    far.incoming.end()
    assert [frame.pts // 3000 for frame in all_] == list(range(1, 12))
    assert [frame.pts // 3000 for frame in newest] == [12]
    assert [frame.pts // 3000 for frame in few] == [10, 11, 12]
    assert (first.width, first.height, first.format.name) == (64, 48, "yuv420p")
    assert first.time_base == picture(0).time_base


def test_frames_change_their_size_and_format() -> None:
    far = Far()
    frames = far.track.frames(mode="fifo")
    shapes = [(64, 48, "yuv420p"), (32, 48, "yuv420p"), (64, 48, "bgr24"), (64, 48, "yuv420p")]
    for number, (width, height, format) in enumerate(shapes):
        far.send(picture(number, width, height, format=format))
    far.incoming.end()
    assert [(f.width, f.height, f.format.name) for f in frames] == shapes


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
@pytest.mark.parametrize("format", ["s16", "fltp"])
def test_each_reader_has_frames_of_sound_of_its_own(layout: str, format: str) -> None:
    far = Far("audio")
    readers = [far.track.frames(), far.track.frames()]
    frame = AudioFrame(format, layout, 441)
    for plane in frame.planes:
        plane.update((bytes(range(256)) * 99)[: plane.buffer_size])
    frame.sample_rate, frame.pts, frame.time_base = 44100, 7, Fraction(1, 44100)
    sent = frame.to_ndarray()
    far.send(frame)
    for reader in readers:
        own = reader.get(timeout=20)
        assert (own.pts, own.time_base, own.sample_rate) == (7, Fraction(1, 44100), 44100)
        assert own.layout.name == frame.layout.name
        np.testing.assert_array_equal(own.to_ndarray(), sent)
        own.pts = None  # as encoders ask for
        for plane in own.planes:
            plane.update(bytes(plane.buffer_size))


def test_each_reader_has_pictures_of_its_own() -> None:
    far = Far()
    readers = [far.track.frames(), far.track.frames()]
    far.send(picture(3))
    for reader in readers:
        own = reader.get(timeout=20)
        assert own.pts is not None
        own.pts = None


def test_modes_and_sizes_are_checked() -> None:
    far = Far()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"mode": "newest"}, 'mode must be "latest" or "fifo"'),
        ({"maxsize": 5}, 'maxsize goes with mode="fifo"'),
        ({"mode": "fifo", "maxsize": 0}, "maxsize must be a positive whole number"),
    ]
    for arguments, message in wrong:
        with pytest.raises(ValueError, match=message):
            far.track.frames(**arguments)
    assert far.incoming.readers == []


def test_a_closed_reader_gives_what_it_has_and_gets_no_more() -> None:
    far = Far()
    with far.track.frames(mode="fifo") as frames:
        assert frames.age == math.inf
        far.send(picture(1))
    far.send(picture(2))
    assert frames.get(timeout=0).pts == 3000
    with pytest.raises(ClosedError):
        frames.get(timeout=0)
    assert far.incoming.readers == []
