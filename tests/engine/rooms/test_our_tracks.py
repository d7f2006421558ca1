"""Test the tracks that are sent to a room, and the metadata that members are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

import pytest
from aiortc.mediastreams import MediaStreamTrack

from metered_sync import AudioSource
from metered_sync.engine.rooms.our_tracks import OurTracks, SentMetadata, metadata_signal
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.testing import ToneSource
from metered_sync.wire.signals import TrackMetadata, parse_signal
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.support.local_tracks import Scripted, beep, run, take
from tests.support.sfu_clients import until


class Video(MediaStreamTrack):
    """A track that nobody reads."""

    kind = "video"

    async def recv(self) -> Any:
        raise NotImplementedError


def track(metadata: dict[str, Any] | None = None) -> LocalTrack:
    return LocalTrack(Video(), stream_id="camera", metadata=metadata)


class Receiver:
    """The media of a member, and the tracks that it is given."""

    def __init__(self) -> None:
        self.tracks: list[LocalTrack] = []
        self.replaced: list[tuple[LocalTrack, LocalTrack | None]] = []

    def set_tracks(self, tracks: Sequence[LocalTrack]) -> None:
        self.tracks = list(tracks)

    def replace_track(self, old: LocalTrack, new: LocalTrack | None) -> None:
        self.replaced.append((old, new))


TIMINGS = replace(DEFAULT_TIMINGS, last_frames=0.05)


def sent_to(
    *members: Receiver, on_ended: Callable[[LocalTrack], None] = lambda _: None
) -> OurTracks:
    return OurTracks(lambda: members, on_ended, TIMINGS)


def on_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Make a test of a coroutine function."""

    def test_() -> None:
        run(test())

    return test_


@on_a_loop
async def test_every_member_gets_every_track() -> None:
    members = [Receiver()]
    ours = OurTracks(lambda: members, lambda _: None, TIMINGS)
    one, two, three = track(), track(), track()
    ours.add([one])
    members.append(Receiver())
    ours.add([two, three])
    assert all(member.tracks == [one, two, three] for member in members)
    ours.remove([two])
    assert all(member.tracks == [one, three] for member in members)
    assert [local.closed for local in (one, two, three)] == [False, True, False]
    assert ours.tracks == (one, three)


@on_a_loop
async def test_a_track_takes_the_place_of_another() -> None:
    member = Receiver()
    ours, one, two = sent_to(member), track(), track()
    ours.add([one, two])
    new = one.successor(Video())
    ours.replace(one, new)
    assert (member.replaced, ours.tracks) == ([(one, new)], (new, two))
    ours.replace(new, None)
    assert (member.replaced[1:], ours.tracks) == ([(new, None)], (two,))
    assert [local.closed for local in (one, two, new)] == [True, False, True]


@on_a_loop
async def test_nothing_is_sent_once_the_room_is_closed() -> None:
    member = Receiver()
    ours, one, two = sent_to(member), track(), track()
    ours.add([one])
    ours.close()
    assert one.closed
    ours.add([two])
    ours.remove([one])
    ours.replace(one, two)
    assert (member.tracks, ours.tracks, member.replaced) == ([one], (one,), [])


@pytest.mark.parametrize("how", ["stop", "end of its frames", "stop of the track"])
def test_a_track_is_removed_once_its_source_has_ended(how: str) -> None:
    async def test() -> None:
        member, ended = Receiver(), list[LocalTrack]()
        ours, stays = sent_to(member, on_ended=ended.append), track()
        with ToneSource() as tone:
            source = Scripted("audio", beep, count=3) if how == "end of its frames" else tone.track
            local = LocalTrack(source)
            ours.add([local, stays])
            assert member.tracks == [local, stays]
            if how == "end of its frames":
                local.outlet().asked = True
                local.update()
            elif how == "stop":
                await asyncio.to_thread(tone.stop)
            else:
                source.stop()
            await until(lambda: ended == [local], 20)
            assert (member.tracks, local.closed, stays.closed) == ([stays], True, False)
            ours.close()

    run(test())


@on_a_loop
async def test_a_track_of_anybody_is_removed_once_it_was_stopped() -> None:
    member, ended = Receiver(), list[LocalTrack]()
    ours, local = sent_to(member, on_ended=ended.append), track()
    ours.add([local])
    local.source.stop()
    await until(lambda: ended == [local], 20)
    assert member.tracks == []


@on_a_loop
async def test_what_nobody_hears_any_more_ends_all_the_same() -> None:
    ended = list[LocalTrack]()
    ours, voice = sent_to(on_ended=ended.append), AudioSource()
    local = LocalTrack(voice.track)
    ours.add([local])
    outlet = local.outlet()
    await take(outlet, 3)
    outlet.close()  # the last listener has left, and then somebody says goodbye
    await asyncio.to_thread(voice.push, bytes(8000))
    voice.end()
    assert not local.ended
    await until(lambda: ended == [local], 10)


@on_a_loop
async def test_what_has_ended_before_is_removed_too() -> None:
    member, ended = Receiver(), list[LocalTrack]()
    ours, tone, other = sent_to(member, on_ended=ended.append), ToneSource(), track()
    tone.stop()
    other.source.stop()
    fed = LocalTrack(tone.track)
    ours.add([fed, other])
    await until(lambda: set(ended) == {fed, other}, 20)
    assert member.tracks == []


@on_a_loop
async def test_a_track_that_is_replaced_in_time_is_no_end() -> None:
    member, ended = Receiver(), list[LocalTrack]()
    ours, tone = sent_to(member, on_ended=ended.append), ToneSource()
    old = LocalTrack(tone.track)
    ours.add([old])
    tone.stop()
    await asyncio.sleep(0)
    new = old.successor(ToneSource().track)
    ours.replace(old, new)
    await asyncio.sleep(3 * TIMINGS.last_frames)
    assert (ours.tracks, ended, new.closed) == ((new,), [], False)
    ours.close()


@on_a_loop
async def test_a_track_that_replaces_one_whose_source_has_ended_is_added() -> None:
    member, ended = Receiver(), list[LocalTrack]()
    ours, tone = sent_to(member, on_ended=ended.append), ToneSource()
    old = LocalTrack(tone.track)
    ours.add([old])
    tone.stop()
    await until(lambda: ended == [old], 20)
    new = old.successor(ToneSource().track)
    ours.replace(old, new)
    assert member.tracks == [new]
    ours.replace(old, None)
    assert member.tracks == [new]
    ours.close()


@on_a_loop
async def test_a_room_that_is_closed_listens_to_no_source() -> None:
    tone, own = ToneSource(), track()
    ours, local = sent_to(), LocalTrack(tone.track)
    ours.add([local, own])
    ours.close()
    assert not tone.track._queue._listeners
    assert not own.source.listeners("ended")


def told(sent: SentMetadata, *tracks: LocalTrack) -> list[tuple[str, Any]]:
    """Return what a member is told now: ids, and metadata or ``None``."""
    words = [parse_signal(signal) for signal in sent.update(tracks)]
    assert all(isinstance(word, TrackMetadata) for word in words)
    return [(word.track_id, word.metadata) for word in words if isinstance(word, TrackMetadata)]


def test_metadata_is_told_once_and_taken_back() -> None:
    sent, one, two = SentMetadata(), track({"n": 1}), track()
    assert told(sent, one, two) == [(one.id, {"n": 1})]
    assert told(sent, one, two) == []
    assert told(sent, two) == [(one.id, None)]
    assert told(sent) == []


def test_metadata_is_told_again_to_a_member_that_was_away() -> None:
    sent, one = SentMetadata(), track({"n": 1})
    told(sent, one)
    sent.forget()
    assert told(sent, one) == [(one.id, {"n": 1})]
    two = one.successor(Video())
    told(sent, two)
    sent.forget()
    assert told(sent, two) == [(two.id, {"n": 1})]
    assert told(sent) == [(one.id, None), (two.id, None)]  # what it was told before counts, too


def test_a_track_is_known_by_the_ids_of_those_it_replaced() -> None:
    sent, first = SentMetadata(), track({"n": 1})
    second = first.successor(Video())
    third = second.successor(Video())
    assert told(sent, first) == [(first.id, {"n": 1})]
    assert told(sent, second) == [(second.id, {"n": 1})]
    again = LocalTrack(first.source, metadata={"n": 2})
    assert told(sent, third, again) == [(third.id, {"n": 1}), (first.id, {"n": 2})]
    assert told(sent, again) == [(second.id, None), (third.id, None)]
    assert told(sent) == [(first.id, None)]


def test_metadata_is_told_with_stream_and_kind() -> None:
    local = track({"n": 1})
    assert parse_signal(metadata_signal(local)) == TrackMetadata(
        local.id, {"n": 1}, "camera", "video"
    )
