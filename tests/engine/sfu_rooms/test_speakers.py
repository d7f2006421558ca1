"""Tell who speaks, by levels and by what members say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np
import pytest

from metered_sync.engine.sfu_rooms import speakers
from metered_sync.engine.sfu_rooms.speakers import Speakers, SpeechDetector, sound_level

LOUD, QUIET = -10.0, -60.0
PIECE = 0.1
"""Seconds of a piece of sound."""


@pytest.mark.parametrize(
    ("amplitude", "level"), [(0, -127), (1, -90.3), (328, -40), (3277, -20), (32767, 0)]
)
def test_the_level_of_samples(amplitude: int, level: float) -> None:
    samples = np.full(960, amplitude, np.int16)
    samples[::2] *= -1
    assert sound_level(samples.tobytes()) == pytest.approx(level, abs=0.1)


def test_the_level_of_the_ends_of_the_range() -> None:
    assert sound_level(b"") == speakers.SILENT
    assert sound_level(np.full(960, -32768, np.int16).tobytes()) == pytest.approx(0, abs=0.01)


def heard(detector: SpeechDetector, levels: Sequence[float]) -> list[bool]:
    return [detector.note(level, PIECE) for level in levels]


def test_speech_is_two_fifths_of_half_a_second() -> None:
    detector = SpeechDetector()
    assert heard(detector, [QUIET, LOUD, QUIET, QUIET, QUIET, QUIET]) == [False] * 6  # a click
    assert heard(detector, [LOUD, LOUD]) == [False, True]
    assert detector.level == LOUD
    assert heard(detector, [QUIET] * 5) == [True, True, True, False, False]  # a pause for breath
    assert detector.level in (LOUD, speakers.SILENT)
    assert heard(detector, [QUIET] * 5)[-1] is False
    assert detector.level == speakers.SILENT


def test_pieces_of_any_length_take_bounded_memory() -> None:
    detector = SpeechDetector()
    for seconds in (0.01, 0.02, 3.0, 0.0, 0.02):
        for _ in range(200):
            detector.note(LOUD, seconds)
        assert detector.speaking
    assert len(detector._pieces) < 300


class Room:
    """The speakers of a room, and what was told of them."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []
        self.speakers = Speakers(self.told.append)

    def sounds(self, peer_id: str, level: float) -> None:
        """Have a member sound for half a second."""
        for _ in range(5):
            self.speakers.note_sound(peer_id, level, PIECE)
        self.speakers.update()


def test_members_are_told_of_by_their_word() -> None:
    room = Room()
    room.speakers.note_word("ann", True)
    room.speakers.note_word("ann", True)
    room.speakers.note_word("bob", True)
    room.speakers.note_word("cyd", False)
    room.speakers.note_word("ann", False)
    room.speakers.forget("bob")
    room.speakers.forget("nobody")
    assert room.told == [("ann",), ("bob", "ann"), ("bob",), ()]  # who began last is first


def test_the_loudest_comes_first() -> None:
    room = Room()
    for peer_id, level in (("low", -27.0), ("high", -5.0), ("middle", -16.0)):
        room.sounds(peer_id, level)
    assert room.speakers.ids == ("high", "middle", "low")
    room.speakers.note_word("word", True)  # not received: behind those who are louder than speech
    assert room.speakers.ids == ("high", "middle", "word", "low")
    room.sounds("silent", QUIET)
    assert "silent" not in room.speakers.ids


@pytest.mark.parametrize("around", [-27.0, -21.0, -18.0, -15.0, -9.0])
def test_speakers_that_are_about_as_loud_do_not_change_places(around: float) -> None:
    room = Room()
    room.sounds("ann", around)
    room.sounds("bob", around)
    order = room.speakers.ids
    told = len(room.told)
    for change in (2.0, -2.0, 2.9, -2.9):
        room.sounds("ann", around + change)
        room.sounds("bob", around - change)
    assert room.speakers.ids == order
    assert len(room.told) == told
    room.sounds(order[1], around + 9.0)
    assert room.speakers.ids == order[::-1]


def test_nobody_is_behind_one_who_is_much_quieter() -> None:
    room = Room()
    levels = {"a": -25.0, "b": -20.0, "c": -15.0, "d": -10.0, "e": -5.0}
    for peer_id in "cadbe":
        room.sounds(peer_id, levels[peer_id])
    for index, one in enumerate(room.speakers.ids):
        later = room.speakers.ids[index + 1 :]
        assert all(levels[other] < levels[one] + speakers.LEVEL_STEP for other in later)


def test_what_is_measured_counts_more_than_a_word_and_not_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speakers, "MEASURED_FOR", 0.2)

    async def test() -> None:
        room = Room()
        room.speakers.note_word("ann", True)
        room.sounds("ann", QUIET)
        assert room.speakers.ids == ()  # whatever it says
        deadline = time.monotonic() + 10
        while room.speakers.ids != ("ann",):  # its sound is not received any more
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
            room.speakers.update()
        room.sounds("ann", LOUD)
        room.speakers.note_word("ann", False)  # the last word; nothing is measured after it
        assert room.speakers.ids == ("ann",)
        while room.speakers.ids:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        assert room.told[-1] == ()

    asyncio.run(test())
