"""Test which track a member's metadata is about, where its description names another."""

from __future__ import annotations

from typing import Any

from metered_sync.engine.rooms.track_metadata import MAX_ANNOUNCED, AnnouncedMetadata
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.wire.signals import TrackMetadata

CAMERA, SCREEN = {"role": "camera"}, {"role": "screen"}


class Member:
    """What a member tells and sends."""

    def __init__(self) -> None:
        self.announced = AnnouncedMetadata()
        self.tracks: list[IncomingTrack] = []

    def tells(self, *ids: str, metadata: dict[str, Any] | None = CAMERA, **more: str) -> None:
        for track_id in ids:
            self.announced.note(TrackMetadata(track_id, metadata, **more), self.tracks)

    def sends(self, *ids: str, stream_id: str | None = None) -> list[dict[str, Any] | None]:
        """Have tracks come in one description; return what is known about each."""
        new = [IncomingTrack("video", id=track_id, stream_id=stream_id) for track_id in ids]
        self.tracks += new
        self.announced.match(self.tracks)
        return self.knows(*new)

    def knows(self, *tracks: IncomingTrack) -> list[dict[str, Any] | None]:
        return [self.announced.of(track, self.tracks) for track in tracks or self.tracks]


def test_by_id_and_by_stream() -> None:
    member = Member()
    member.tells("a")
    member.tells("b", metadata=SCREEN, stream_id="s", kind="video")
    assert member.sends("a") == [CAMERA]
    assert member.sends("other", stream_id="s") == [SCREEN]
    assert member.sends("one more") == [None]
    member.tells("a", metadata=None)
    assert member.knows() == [None, SCREEN, None]


def test_a_track_under_another_id_has_what_was_told_just_before() -> None:
    member = Member()
    assert member.sends("first") == [None]
    member.tells("a")
    assert member.knows() == [None]  # (what is to come is not about what is there)
    assert member.sends("x") == [CAMERA]
    member.tells("b", "c", metadata=SCREEN)  # one of them in a section of its own
    assert member.sends("b", "y") == [SCREEN, SCREEN]
    member.tells("a", metadata={"n": 2})
    assert member.knows() == [None, {"n": 2}, SCREEN, SCREEN]
    member.tells("a", metadata=None)
    assert member.knows()[1] is None


def test_what_is_told_once_more_is_not_about_what_comes_then() -> None:
    """As the JavaScript client does after each outage, of tracks that are there."""
    member = Member()
    member.tells("a", "b")
    assert member.sends("a", "x") == [CAMERA, CAMERA]  # one of them under another id
    member.tells("a", "b")
    assert member.sends("y", "z") == [None, None]
    member.tells("a", "b")
    member.tracks.clear()  # its page was loaded again
    assert member.sends("v", "w") == [None, None]


def test_only_where_there_is_no_doubt() -> None:
    for tell, come in (
        (["a"], ["x", "y"]),  # one of the two has no metadata
        (["a", "b"], ["x"]),
        ([], ["x"]),
    ):
        member = Member()
        member.tells(*tell)
        assert member.sends(*come) == [None for _ in come]
        assert member.sends("z") == [None]  # nor is it about whatever comes after that
    member = Member()
    member.tells("a")
    member.tells("b", metadata=SCREEN)
    assert member.sends("x", "y") == [None, None]
    member = Member()
    member.tells("a", stream_id="s", kind="video")
    assert member.sends("x", stream_id="t") == [None]


def test_a_track_that_replaces_another_and_one_that_comes_after_it() -> None:
    member = Member()
    member.tells("a", metadata=CAMERA)
    assert member.sends("a") == [CAMERA]
    for old, new in (("a", "b"), ("b", "c"), ("c", "a")):
        member.tells(old, metadata=None)
        assert member.knows() == [None]
        member.tells(new)
        assert member.knows() == [CAMERA]
    assert member.sends("z") == [None]
    member.tells("a", metadata=None)
    member.tells("d", metadata=SCREEN)  # another one, not a replacement
    assert member.knows() == [None, None]
    assert member.sends("x") == [SCREEN]


def test_a_track_that_goes_and_comes_again() -> None:
    member = Member()
    member.tells("a")
    assert member.sends("x") == [CAMERA]
    (track,) = member.tracks
    member.tracks = []
    member.announced.track_gone(track)
    member.tells("a", metadata=None)
    member.tells("a", metadata=SCREEN)
    member.tracks = [track]
    member.announced.match(member.tracks)
    assert member.knows() == [SCREEN]


def test_it_is_bounded() -> None:
    member = Member()
    member.tells(*(f"{n}" for n in range(MAX_ANNOUNCED + 5)))
    assert len(member.announced) == len(member.announced._bare) == MAX_ANNOUNCED
    assert member.sends("0", f"{MAX_ANNOUNCED}") == [None, CAMERA]


def test_other_threads_ask_while_a_member_announces() -> None:
    """Here what asks announces by itself, in the middle of the look through what is known."""
    member = Member()

    class Kind(str):
        def __eq__(self, other: object) -> bool:
            member.tells(f"another {len(member.announced)}", stream_id="s")
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    member.tells("a", "b", stream_id="s", kind="video")
    track = IncomingTrack(Kind("video"), id="x", stream_id="s")
    assert member.knows(track) == [CAMERA]
    assert len(member.announced) == 4
