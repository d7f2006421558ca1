"""Test the signals of a room in both directions, and what is no signal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metered_sync.wire.signals import (
    Candidate,
    EndOfCandidates,
    Hello,
    SessionDescription,
    Signal,
    TrackMetadata,
    build_signal,
    is_reserved,
    parse_signal,
)

CANDIDATE = "candidate:1 1 udp 2122260223 192.0.2.1 50000 typ host"
META = "__meteredTrackMeta"


@pytest.mark.parametrize(
    ("signal", "data"),
    [
        (
            SessionDescription("offer", "v=0"),
            {"type": "rtc-description", "description": {"type": "offer", "sdp": "v=0"}},
        ),
        (
            Candidate(CANDIDATE, "0", 0, "abcd"),
            {
                "type": "rtc-ice",
                "candidate": {
                    "candidate": CANDIDATE,
                    "sdpMid": "0",
                    "sdpMLineIndex": 0,
                    "usernameFragment": "abcd",
                },
            },
        ),
        (EndOfCandidates(), {"type": "rtc-ice", "candidate": None}),
        (
            TrackMetadata("t", {"role": "camera"}, "s", "video"),
            {
                META: {
                    "trackId": "t",
                    "metadata": {"role": "camera"},
                    "kind": "video",
                    "streamId": "s",
                }
            },
        ),
        (TrackMetadata("t"), {META: {"trackId": "t"}}),  # never "metadata": null
        (Hello(True), {META: {"trackId": "$metered_sync", "offers": True}}),
        (Hello(False), {META: {"trackId": "$metered_sync", "offers": False}}),
        (TrackMetadata("t", {}), {META: {"trackId": "t", "metadata": {}}}),
    ],
)
def test_both_ways(signal: Signal, data: dict[str, Any]) -> None:
    assert build_signal(signal) == data
    assert parse_signal(data) == signal
    assert is_reserved(data)


def test_variants_of_other_clients() -> None:
    assert parse_signal({META: {"trackId": "t", "metadata": None}}) == TrackMetadata("t")
    assert parse_signal({META: {"trackId": "t", "more": 1}}) == TrackMetadata("t")
    end = {"candidate": "", "sdpMid": "0", "usernameFragment": "abcd"}
    assert parse_signal({"type": "rtc-ice", "candidate": end}) == EndOfCandidates("abcd")
    bare = {"candidate": CANDIDATE, "sdpMLineIndex": 1}
    assert parse_signal({"type": "rtc-ice", "candidate": bare}) == Candidate(CANDIDATE, None, 1)


@pytest.mark.parametrize("candidate", [{}, {"candidate": 1}, {"candidate": None, "sdpMid": 3}])
def test_a_malformed_candidate_is_no_data_of_the_user(candidate: Any) -> None:
    assert parse_signal({"type": "rtc-ice", "candidate": candidate}) == Candidate("")


def test_long_names_are_left_out() -> None:
    fields = {"candidate": CANDIDATE, "sdpMid": "m" * 257, "usernameFragment": "u" * 257}
    assert parse_signal({"type": "rtc-ice", "candidate": fields}) == Candidate(CANDIDATE)


@pytest.mark.parametrize(
    "data",
    [
        {"type": "rtc-description"},
        {"type": "rtc-description", "description": {"type": "rollback", "sdp": ""}},
        {"type": "rtc-description", "description": {"type": "offer"}},
        {"type": "rtc-description", "description": "v=0"},
        {"type": "rtc-ice"},
        {"type": "rtc-ice", "candidate": CANDIDATE},
        {META: None},
        {META: {"trackId": ""}},
        {META: {"trackId": 1}},
        {META: {"trackId": "t" * 257}},
        {META: {"trackId": "t", "metadata": []}},
        {META: {"trackId": "t", "metadata": "text"}},
        {META: {"trackId": "t", "streamId": ""}},
        {META: {"trackId": "t", "kind": 1}},
    ],
)
def test_what_is_malformed_is_the_users_though_reserved(data: Any) -> None:
    assert parse_signal(data) is None
    assert is_reserved(data)


@pytest.mark.parametrize("data", [None, 1, "rtc-ice", [], {}, {"type": "chat"}, {"type": []}])
def test_the_users_own_data(data: Any) -> None:
    assert parse_signal(data) is None
    assert not is_reserved(data)


def test_no_password_in_a_repr() -> None:
    assert "secret" not in repr(SessionDescription("offer", "a=ice-pwd:secret"))


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "candidate", "description", "sdp", "trackId", "metadata", META]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from(["rtc-description", "rtc-ice", ""]), json_values, json_values, json_values)
def test_anything_is_parsed_or_refused(kind: str, a: Any, b: Any, c: Any) -> None:
    signal = parse_signal({"type": kind, "candidate": a, "description": b, META: c})
    if signal is not None and signal != Candidate(""):
        assert parse_signal(build_signal(signal)) in (signal, EndOfCandidates())
