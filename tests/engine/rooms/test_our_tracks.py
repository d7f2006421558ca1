"""Test the tracks that are sent to a room, and the metadata that members are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiortc.mediastreams import MediaStreamTrack

from metered_sync.engine.rooms.our_tracks import OurTracks, SentMetadata, metadata_signal
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.wire.signals import TrackMetadata, parse_signal


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


def test_every_member_gets_every_track() -> None:
    members = [Receiver()]
    ours, one, two, three = OurTracks(lambda: members), track(), track(), track()
    ours.add([one])
    members.append(Receiver())
    ours.add([two, three])
    assert all(member.tracks == [one, two, three] for member in members)
    ours.remove([two])
    assert all(member.tracks == [one, three] for member in members)
    assert [local.closed for local in (one, two, three)] == [False, True, False]
    assert ours.tracks == (one, three)


def test_a_track_takes_the_place_of_another() -> None:
    member = Receiver()
    ours, one, two = OurTracks(lambda: [member]), track(), track()
    ours.add([one, two])
    new = one.successor(Video())
    ours.replace(one, new)
    assert (member.replaced, ours.tracks) == ([(one, new)], (new, two))
    ours.replace(new, None)
    assert (member.replaced[1:], ours.tracks) == ([(new, None)], (two,))
    assert [local.closed for local in (one, two, new)] == [True, False, True]


def test_nothing_is_sent_once_the_room_is_closed() -> None:
    member = Receiver()
    ours, one, two = OurTracks(lambda: [member]), track(), track()
    ours.add([one])
    ours.close()
    assert one.closed
    ours.add([two])
    ours.remove([one])
    ours.replace(one, two)
    assert (member.tracks, ours.tracks, member.replaced) == ([one], (one,), [])


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
