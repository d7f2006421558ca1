"""Read whatever a stranger may send as a room's message; build what is read back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metered_sync.engine.sfu_rooms import messages
from metered_sync.engine.sfu_rooms.messages import (
    AnnouncedTrack,
    RoomMessage,
    RoomState,
    StateRequest,
    Watching,
    build_room_message,
    fitting,
    is_room_message,
    parse_room_message,
)

texts = st.text(max_size=12)
filled = st.text(min_size=1, max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
announced = st.builds(
    AnnouncedTrack,
    filled,
    st.sampled_from(["audio", "video"]),
    st.none() | filled,
    st.none() | filled,
    st.booleans(),
    st.none() | st.dictionaries(texts, texts | st.integers(), max_size=2),
)
states = st.builds(
    RoomState,
    filled,
    st.integers(0, messages.MAX_REVISION - 1),
    st.none() | filled,
    st.lists(announced, max_size=5, unique_by=lambda one: one.track_id).map(tuple),
    st.booleans(),
)
watching = st.builds(Watching, st.lists(texts, max_size=5).map(tuple))

FIELDS = ("$sfu", "boot", "rev", "session", "tracks", "speaking", "ask", "watch")
likely = st.sampled_from(
    [1, 2, 0, -1, True, 2**53, 1.0, "", "x", None, [], {}, "b" * 65, "s" * 2049, ["id"], [{}]]
)
track_bodies = st.dictionaries(
    st.sampled_from(["id", "kind", "stream", "name", "on", "meta", "other"]),
    json_values | st.sampled_from(["audio", "video", "id", "x" * 257, {"a": 1}]),
)
strangers = json_values | st.dictionaries(
    st.sampled_from(FIELDS),
    json_values | likely | st.lists(track_bodies, max_size=4),
)


@given(states | watching | st.just(StateRequest()))
def test_what_is_built_is_read_back(message: RoomMessage) -> None:
    body = build_room_message(message)
    assert is_room_message(body)
    assert parse_room_message(json.loads(json.dumps(body))) == message


@given(strangers)
def test_anything_is_read_within_bounds(data: Any) -> None:
    message = parse_room_message(data)
    if message is not None:
        assert is_room_message(data)
    if isinstance(message, RoomState):
        assert len(message.tracks) <= messages.MAX_STATE_TRACKS
        assert 0 < len(message.boot) <= messages.MAX_BOOT
        assert 0 <= message.revision < messages.MAX_REVISION
        assert message.cut >= 0
        ids = [one.track_id for one in message.tracks]
        assert len(set(ids)) == len(ids)
        for one in message.tracks:
            assert one.kind in ("audio", "video")
            assert max(len(one.track_id), len(one.name or ""), len(one.stream_id or "")) <= 256
        assert parse_room_message(build_room_message(message)) is not None
    if isinstance(message, Watching):
        assert len(message.track_ids) <= messages.MAX_WATCHED


def state(*tracks: Any, **more: Any) -> dict[str, Any]:
    return {"$sfu": 1, "boot": "b", "rev": 1, "session": "s", "tracks": list(tracks), **more}


def track(id: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "kind": "video", **more}


def read(data: Any) -> RoomState:
    message = parse_room_message(data)
    assert isinstance(message, RoomState)
    return message


def test_of_a_state_that_is_too_large_the_rest_is_cut_off() -> None:
    many = read(state(*(track(f"{number}") for number in range(500))))
    assert [one.track_id for one in many.tracks] == [f"{number}" for number in range(32)]
    assert many.cut == 500 - 32
    half = "x" * (messages.MAX_STATE // 2)
    large = read(state(track("a", meta={"is": half}), track("b", meta={"is": half}), track("c")))
    assert [one.track_id for one in large.tracks] == ["a"]
    assert large.cut == 2
    # What its sender tells is what receivers take.
    told = [AnnouncedTrack(f"{number}", "video", metadata={"is": half}) for number in range(3)]
    assert fitting(told) == tuple(told[:1])


def test_metadata_that_are_nested_without_end_are_cut_off() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    found = read(state(track("shallow"), track("deep", meta={"deep": deep})))
    assert [one.track_id for one in found.tracks] == ["shallow"]
    assert found.cut == 1
    while isinstance(deep, list):  # (taken apart, for freeing it would be as deep)
        deep = deep.pop()


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("on", None, True),
        ("on", False, False),
        ("on", 0, True),
        ("meta", {"a": 1}, {"a": 1}),
        ("meta", None, None),
        ("stream", None, None),
        ("name", "cam", "cam"),
    ],
)
def test_a_field_of_a_track(field: str, value: Any, expected: Any) -> None:
    (one,) = read(state(track("t", **{field: value}))).tracks
    names = {"meta": "metadata", "stream": "stream_id"}
    assert getattr(one, names.get(field, field)) == expected


def test_a_track_that_cannot_be_read_leaves_the_others() -> None:
    odd = [7, None, track(""), track("t", name=7), track("t", kind="smell"), track("x" * 257), []]
    assert [one.track_id for one in read(state(*odd, track("t"), track("t"))).tracks] == ["t"]


def test_what_others_watch_is_bounded() -> None:
    message = parse_room_message({"$sfu": 1, "watch": ["x" * 257, *map(str, range(1000))]})
    assert isinstance(message, Watching)
    assert message.track_ids == tuple(str(number) for number in range(messages.MAX_WATCHED - 1))
    assert parse_room_message({"$sfu": 1, "watch": []}) == Watching(())
    assert parse_room_message({"$sfu": 1, "watch": [1]}) is None
