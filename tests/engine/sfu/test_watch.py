"""Decide about silent tracks, by the lists of their publishers' sessions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from metered_sync import SfuNotFoundError, TrackInfo
from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.sfu.calls import SfuCalls
from metered_sync.engine.sfu.directory import Directory
from metered_sync.engine.sfu.session import Session
from metered_sync.engine.sfu.tracks import Incoming, Outgoing
from metered_sync.engine.sfu.watch import Watch
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.engine.sfu.test_directory import lists
from tests.support.scripted_http import ScriptedHttp

TIMINGS = replace(DEFAULT_TIMINGS, request_interval=0.0, search=5.0, quiet=2.0)


class Tracks:
    """A link with tracks and no session."""

    def __init__(self, directory: Directory) -> None:
        self.label = "client"
        self.error: BaseException | None = None
        self.outgoing: list[Outgoing] = []
        self.incoming: list[Incoming] = []
        self.session: Session | None = None
        self.timings = TIMINGS
        self.directory = directory
        self.connected = True
        self.recovers = True


@pytest.fixture
def link(scripted: ScriptedHttp) -> Iterator[Tracks]:
    calls = SfuCalls("client", scripted.origin, "app", "secret")
    yield Tracks(Directory(calls, TIMINGS))
    calls.close()


def incoming(
    track_id: str = "t", *, name: str | None = None, live: bool = True, silent: float = 3.0
) -> Incoming:
    """Return a track of session ``a``, silent for so many seconds."""
    one = Incoming(TrackInfo("a", track_id, name, "video"))
    one.live, one.attached_at, one.listed = live, time.monotonic() - silent, False
    return one


def listed(*ids: str) -> list[TrackInfo]:
    return [TrackInfo("a", track_id, None, "video") for track_id in ids]


def test_a_silent_track_that_is_published_still_is_left_alone(link: Tracks) -> None:
    watch, one = Watch(link), incoming()
    assert watch._judge([one], listed("t")) == []
    assert not one.ended
    assert one.look_at > time.monotonic()  # the next look is later
    pause = one.pause
    watch._judge([one], listed("t"))
    assert one.pause > pause
    for _ in range(20):
        watch._judge([one], listed("t"))
    assert one.pause == TIMINGS.quiet_max


def test_one_whose_subscription_ended_is_subscribed_to_again(link: Tracks) -> None:
    one = incoming(live=False)
    assert Watch(link)._judge([one], listed("t")) == [one]


@pytest.mark.parametrize("evidence", ["seen before", "frames came", "it has ended"])
def test_a_track_that_its_publisher_closed_ends(link: Tracks, evidence: str) -> None:
    one = incoming(live=evidence != "it has ended")
    one.listed, one.frames = evidence == "seen before", int(evidence == "frames came")
    assert Watch(link)._judge([one], listed("other")) == []
    assert one.ended
    assert one.error is None


def test_a_track_that_never_sent_anything_is_given_some_time(link: Tracks) -> None:
    early, late = incoming(silent=3.0), incoming(silent=6.0)
    Watch(link)._judge([early, late], listed())
    assert not early.ended  # a track is listed with its first packet
    assert isinstance(late.error, SfuNotFoundError)
    assert "never sent anything" in str(late.error)


def test_a_track_whose_session_is_gone_is_looked_for(link: Tracks) -> None:
    one = incoming(name="camera")
    assert Watch(link)._judge([one], None) == []
    assert not one.ended
    assert not one.live
    assert one.gone_at is not None


def find(link: Tracks, one: Incoming, gone_for: float = 0.0) -> list[Incoming]:
    one.gone_at, one.gone_from = time.monotonic() - gone_for, "a"
    return asyncio.run(Watch(link)._find([one], Deadline(10)))


def test_it_is_found_by_name_and_kind(scripted: ScriptedHttp, link: Tracks) -> None:
    one = incoming(name="camera")
    others = [TrackInfo("b", "x", "camera", "audio"), TrackInfo("b", "y", "other", "video")]
    new = TrackInfo("b", "z", "camera", "video")
    lists(scripted, [("b", "connected")], [*others, new])
    assert find(link, one) == [one]
    assert (one.info, one.id, one.stream_id) == (new, "z", "b")
    assert one.gone_at is not None  # until it has been subscribed to


def test_one_that_was_found_may_vanish_and_is_found_again_in_the_same_session(
    scripted: ScriptedHttp, link: Tracks
) -> None:
    """A publisher that has another session takes back the first round of its tracks."""
    watch, one = Watch(link), incoming(name="camera")
    lists(scripted, [("b", "connected")], [TrackInfo("b", "first", "camera", "video")])
    assert find(link, one, gone_for=3.0) == [one]
    since = one.gone_at
    # It vanishes before it is subscribed to …
    lists(scripted, [("b", "connected")], [])
    assert asyncio.run(watch._find([one], Deadline(10))) == []
    lists(scripted, [("b", "connected")], [TrackInfo("b", "second", "camera", "video")])
    assert asyncio.run(watch._find([one], Deadline(10))) == [one]
    # … or soon after that.
    one.gone_at, one.live, one.attached_at = None, False, time.monotonic()
    assert watch._judge([one], [TrackInfo("b", "other", None, "video")]) == []
    assert (one.ended, one.gone_at) == (False, since)
    lists(scripted, [("b", "connected")], [TrackInfo("b", "third", "camera", "video")])
    assert asyncio.run(watch._find([one], Deadline(10))) == [one]
    assert one.id == "third"
    # Once it has settled it ends as any other that its publisher closes.
    one.gone_at, one.attached_at = None, time.monotonic() - TIMINGS.settle
    assert watch._judge([one], []) == []
    assert (one.ended, one.error) == (True, None)


def test_its_old_session_does_not_count(scripted: ScriptedHttp, link: Tracks) -> None:
    one = incoming(name="camera")
    lists(scripted, [("a", "connected")], [TrackInfo("a", "z", "camera", "video")])
    assert find(link, one) == []
    assert not one.ended


@pytest.mark.parametrize(
    ("name", "published", "gone_for", "words"),
    [
        (None, (), 0.0, "no name"),
        ("camera", ("camera", "camera"), 0.0, "2 tracks"),
        ("camera", ("other",), 6.0, "nobody published it again"),
    ],
)
def test_it_ends_where_it_cannot_be_found(
    scripted: ScriptedHttp,
    link: Tracks,
    name: str | None,
    published: tuple[str, ...],
    gone_for: float,
    words: str,
) -> None:
    one = incoming(name=name)
    found: Any = [TrackInfo("b", f"t{n}", name, "video") for n, name in enumerate(published)]
    if published:
        lists(scripted, [("b", "connected")], found)
    assert find(link, one, gone_for) == []
    assert isinstance(one.error, SfuNotFoundError)
    assert words in str(one.error)


def test_names_are_learnt_while_the_publisher_is_there(
    scripted: ScriptedHttp, link: Tracks
) -> None:
    one = Incoming(TrackInfo("a", "t", None, ""))  # subscribed to by its ids alone
    one.live = True
    link.incoming.append(one)
    lists(scripted, [], [TrackInfo("a", "t", "camera", "video", "0")])
    watch = Watch(link)
    asyncio.run(watch._learn_names(Deadline(5)))
    assert one.name is None
    one.look_at = 0.0
    asyncio.run(watch._learn_names(Deadline(5)))
    assert (one.name, one.info.kind, one.listed) == ("camera", "video", True)


def test_looks_are_close_together_while_a_track_is_looked_for(link: Tracks) -> None:
    watch, one = Watch(link), incoming()
    link.incoming.append(one)
    assert watch.pause() == TIMINGS.watch
    one.gone_at, one.look_at = time.monotonic(), time.monotonic() + 0.1
    assert watch.pause() <= 0.1
