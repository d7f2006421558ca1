from __future__ import annotations

import pytest

from metered_sync.wire.names import (
    channel_problem,
    check_channel,
    check_peer_id,
    is_reserved,
    matches,
    peer_id_problem,
)


@pytest.mark.parametrize(
    ("pattern", "channel", "expected"),
    [
        # The service documentation's own table.
        ("app_abc/*", "app_abc/room-1", True),
        ("app_abc/*", "app_abc/sub/deep", False),
        ("app_abc/**", "app_abc/room-1", True),
        ("app_abc/**", "app_abc/sub/deep", True),
        ("**", "anything/at all", True),
        ("app_abc/room-*", "app_abc/room-1", True),
        ("app_abc/room-*", "app_abc/hall-1", False),
        ("devices/*/events", "devices/7/events", True),
        ("devices/*/events", "devices/7/8/events", False),
        # Runs may be empty; matching is of the whole string and minds case.
        ("a*", "a", True),
        ("a**", "a", True),
        ("a", "ab", False),
        ("a", "A", False),
        # Escapes, and characters that mean something to regular expressions.
        (r"a\*", "a*", True),
        (r"a\*", "ab", False),
        (r"a\\", "a\\", True),
        ("a.c", "abc", False),
        ("a+", "aa", False),
        ("x[1]", "x[1]", True),
        ("**", "line\nbreak", True),
        ("a\\", "a\\", True),
    ],
)
def test_patterns(pattern: str, channel: str, expected: bool) -> None:
    assert matches(pattern, channel) is expected


@pytest.mark.parametrize(
    "name", ["", "x" * 257, "é" * 129, "a\x00b", "a\x7f", "a\x85", "a\ud800", 7, None, b"x"]
)
def test_bad_channel_names(name: object) -> None:
    assert channel_problem(name)
    with pytest.raises((TypeError, ValueError), match="channel name"):
        check_channel(name)


@pytest.mark.parametrize("name", ["x", "x" * 256, "é" * 128, "raum/ä b", "_meteredroom"])
def test_good_channel_names(name: str) -> None:
    assert channel_problem(name) is None
    assert check_channel(name) == name


@pytest.mark.parametrize("name", ["_metered/x", "_Internal/x", "_SYSTEM/"])
def test_reserved_prefixes_are_refused_whatever_their_case(name: str) -> None:
    assert is_reserved(name)
    with pytest.raises(ValueError, match="reserves"):
        check_channel(name)


def test_peer_ids_are_printable_ascii() -> None:
    assert check_peer_id("sensor 7~!") == "sensor 7~!"
    assert peer_id_problem("é")
    assert peer_id_problem("x" * 129)
    with pytest.raises(ValueError, match="peer id"):
        check_peer_id("")


def test_an_error_shows_a_long_name_cut_short() -> None:
    with pytest.raises(ValueError) as caught:
        check_channel("x" * 10_000)
    assert len(str(caught.value)) < 200
