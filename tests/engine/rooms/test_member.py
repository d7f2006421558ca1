"""Test one member of a room by itself: its state, its errors and its tracks' metadata."""

from __future__ import annotations

from typing import Any

import pytest

from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.errors import ClosedError, NegotiationFailedError, ReconcileTimeoutError
from metered_sync.events import (
    ConnectionReset,
    IceCandidateError,
    NegotiationError,
    PresencePeer,
    StateChange,
)
from metered_sync.wire.signals import TrackMetadata
from tests.support.room_parts import IdleMedia, Journal

ERROR = NegotiationFailedError("given up", stage="ICE")


def member(room: Journal) -> tuple[Any, IdleMedia]:
    """Return a member of a room, and its media."""
    one: Any = room.make_member(PresencePeer("ann", {"name": "Ann"}))
    return one, one.media


def test_the_state_is_that_of_its_media() -> None:
    room = Journal()
    ann, media = member(room)
    assert (ann.id, ann.metadata, ann.state, ann.present) == ("ann", {"name": "Ann"}, "idle", True)
    media.become("connecting")
    media.become("connected")
    media.become("connected")
    assert room.take_happened() == [
        ("ann", StateChange("idle", "connecting")),
        ("ann", StateChange("connecting", "connected")),
    ]


def test_while_we_are_away_it_does_not_seem_connected() -> None:
    room = Journal()
    ann, media = member(room)
    media.become("connected")
    assert ann.signalling_is_up
    room.state = "reconnecting"
    ann.set_state("reconnecting")
    assert not ann.signalling_is_up
    media.become("connecting")
    media.become("connected")
    assert ann.state == "reconnecting"
    room.state = "joined"
    media.become("connected")
    assert ann.state == "connected"


@pytest.mark.parametrize(
    ("media_state", "state"), [("idle", "idle"), ("connected", "reconnecting")]
)
def test_media_begin_anew(media_state: Any, state: str) -> None:
    room = Journal()
    ann, media = member(room)
    ann.set_state("reconnecting")
    ann.on_exhausted(ERROR)
    media.state = media_state
    ann.rebuild("me")
    assert (media.local_ids, ann.error, ann.state) == (["me"], None, state)


def test_a_member_that_is_closed_stays_so() -> None:
    room = Journal()
    ann, media = member(room)
    ann.set_state("closed")
    media.become("connected")
    assert ann.state == "closed"


def test_errors_are_kept_until_it_connects_after_all() -> None:
    room = Journal()
    ann, media = member(room)
    ann.on_error(ERROR)
    assert ann.error is None
    ann.on_exhausted(ERROR)
    assert ann.error is ERROR
    media.become("connected")
    assert ann.error is None
    ann.on_candidate_error(ERROR)
    ann.on_reset()
    assert [event for _, event in room.take_happened()] == [
        NegotiationError(ERROR),
        NegotiationError(ERROR),
        StateChange("idle", "connected"),
        IceCandidateError(ERROR),
        ConnectionReset(),
    ]


def test_metadata_finds_its_track() -> None:
    room = Journal()
    ann, media = member(room)
    track = IncomingTrack("video", id="t")
    ann.on_metadata(TrackMetadata("t", {"role": "camera"}))
    media.tracks = (track,)
    ann.on_track(track, True)
    assert room.take_happened() == ["metadata of ann", ("ann", track)]
    assert ann.metadata_of(track) == {"role": "camera"}
    ann.on_track_gone(track)
    assert room.take_happened() == [("ann", None)]


def test_why_it_is_gone() -> None:
    room = Journal()
    ann, _ = member(room)
    with pytest.raises(ClosedError, match="waiting: the peer has left"):
        raise ann.gone("waiting")
    room.error = ReconcileTimeoutError("we are gone")
    with pytest.raises(ReconcileTimeoutError, match="we are gone"):
        raise ann.gone("waiting")
