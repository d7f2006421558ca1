"""Find out from a track's readers whether it is wanted."""

from __future__ import annotations

import gc
import time
from typing import Any

import pytest

from metered_sync import MediaError
from metered_sync.bridge.reader import Reader
from metered_sync.engine.sfu_rooms import room_track
from metered_sync.engine.sfu_rooms.messages import AnnouncedTrack
from metered_sync.engine.sfu_rooms.room_track import LINGER, RoomTrack, SubscribePolicy

CAMERA = AnnouncedTrack("id", "video", "camera", "cam")


class Demand:
    """A track, and how often somebody asked for it."""

    def __init__(self, policy: SubscribePolicy = "on-read") -> None:
        self.asked = 0
        self.track = RoomTrack(
            CAMERA, "session", "ann", max_pixels=10**6, policy=policy, on_demand=self._ask
        )

    def _ask(self) -> None:
        self.asked += 1


def test_nobody_wants_a_track_that_nobody_reads() -> None:
    one = Demand()
    now = time.monotonic()
    assert not one.track.wanted_at(now)
    assert (one.track.id, one.track.stream_id, one.track.peer_id) == ("id", "camera", "ann")
    assert one.asked == 0


@pytest.mark.parametrize("end", ["closed", "collected", "removed"])
def test_a_track_is_wanted_from_its_first_reader_on_and_a_while_after_the_last(end: str) -> None:
    one = Demand()
    reader: Reader[Any] | None = Reader("reader")
    assert reader is not None
    one.track.add(reader)
    assert one.asked == 1
    now = time.monotonic()
    assert one.track.wanted_at(now)
    assert one.track.wanted_at(now + 1000)  # for as long as it is there
    if end == "closed":
        reader.close()
    elif end == "removed":
        one.track.remove(reader)
    reader = None
    gc.collect()
    assert one.track.wanted_at(now + 1000 + LINGER - 0.1)
    assert not one.track.wanted_at(now + 1000 + LINGER + 0.1)


def test_a_reader_that_is_kept_between_calls_counts_up_to_its_last_one() -> None:
    one = Demand()
    reader = Reader[Any]("read")
    one.track.add(reader)
    now = time.monotonic()
    reader.idle_since = now
    assert one.track.wanted_at(now + LINGER - 0.1)
    assert not one.track.wanted_at(now + LINGER + 0.1)
    reader.idle_since = None  # called again
    assert one.track.wanted_at(now + 100)


def test_calls_wake_the_receiver_and_not_each_of_them() -> None:
    one = Demand()
    one.track.touch()
    assert one.asked == 1
    one.track.requested = one.track.info
    one.track.found()
    opened = one.track.opened
    for _ in range(1000):
        one.track.touch()
    assert one.asked < 100
    assert one.track.opened >= opened  # each counts for who comes first
    one.track.let_go()
    one.track.touch()
    one.track.touch()
    assert one.asked >= 3  # while it is not received, each


def test_what_is_received_unread() -> None:
    every, none, chosen = Demand("all"), Demand("none"), Demand()
    now = time.monotonic()
    assert every.track.wanted_at(now)
    chosen.track.take()
    assert chosen.asked == 1
    assert chosen.track.wanted_at(now)
    with pytest.raises(MediaError, match='subscribe="none"'):
        none.track.add(Reader("reader"))
    assert none.track.readers == []
    none.track.take()
    assert not none.track.wanted_at(now)


def test_a_track_that_has_ended_is_not_wanted() -> None:
    one = Demand("all")
    one.track.add(reader := Reader[Any]("reader"))
    one.track.end(MediaError("it cannot be decoded"))
    assert not one.track.wanted_at(time.monotonic())
    with pytest.raises(MediaError, match="cannot be decoded"):
        reader.get(timeout=20)


def test_a_track_that_is_missing_is_asked_for_after_pauses_that_grow() -> None:
    one = Demand().track
    pauses = []
    for now in (100.0, 200.0, 300.0, 400.0):
        one.retry_later(now, 0.5, 3.0)
        pauses.append(one.retry_at - now)
    assert pauses == [0.5, 1.0, 2.0, 3.0]
    assert one.missing_since == 100.0
    one.announce(AnnouncedTrack("other", "video", "camera", "cam"), "session-2")
    assert (one.retry_at, one.id, one.info.session_id) == (0.0, "other", "session-2")
    assert one.missing_since == 100.0  # it is still looked for
    one.requested = one.info
    one.found()
    assert (one.missing_since, one.subscribed) == (None, one.info)


def test_what_a_member_says_meanwhile_is_not_what_was_subscribed_to() -> None:
    one = Demand().track
    assert not one.outdated
    first = one.requested = one.info
    assert not one.outdated
    one.announce(AnnouncedTrack("other", "video", "camera", "cam"), "session-2")
    assert one.outdated
    one.found()
    assert (one.subscribed, one.subscribed == one.info) == (first, False)
    one.requested = one.info
    one.announce(AnnouncedTrack("other", "video", "camera", "cam"), "session-2")
    assert one.outdated  # the same once more: it is there now, perhaps


def test_a_track_that_was_let_go_does_not_restart_and_one_that_was_lost_does() -> None:
    for lose, restarts in ((RoomTrack.let_go, 0), (RoomTrack.lost, 1)):
        one = Demand().track
        section: Any = type("Section", (), {"kind": "video", "mid": "s1"})()
        one.attach(section)
        one.found()
        lose(one)
        assert (one.subscribed, one.live, one.transceiver) == (None, False, None)
        one.attach(section)
        assert one.restarts == restarts


def test_it_lingers_for_as_long_as_the_guide_says() -> None:
    assert room_track.LINGER == 5.0
