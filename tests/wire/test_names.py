"""Test which names of channels and peers are accepted, and what patterns cover."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metered_sync.wire.names import (
    channel_problem,
    check_channel,
    check_peer_id,
    covers,
    is_pattern,
    is_reserved,
    matches,
    peer_id_problem,
)


@pytest.mark.parametrize(
    ("pattern", "channel", "expected"),
    [
        # The table of docs/protocol/signalling.md#channel-patterns.
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


@pytest.mark.parametrize(
    ("pattern", "other", "expected"),
    [
        ("a", "a", True),
        ("a/*", "a/*", True),
        ("a/*", "a/b", True),
        ("a/*", "a/", True),
        ("a/*", "a/b*", True),
        ("a/*", "a/*b*", True),
        ("a/*", "a/**", False),
        ("a/*", "a/*/b", False),
        ("a/*", "*", False),
        ("a/b*", "a/*", False),
        ("a/**", "a/*", True),
        ("a/**", "a/*/b/**", True),
        ("**", "**", True),
        ("**", "*", True),
        ("*", "**", False),
        ("***", "**", True),
        ("**", "***", True),
        ("*", "***", False),
        ("*/*", "a/*", True),
        ("*/*", "**", False),
        ("**/**", "a*/b", True),
        ("*a*", "*a", True),
        ("*a", "*a*", False),
        (r"a\*", r"a\*", True),
        (r"a\*", "a*", False),
        ("a*", r"a\*", True),
        (r"\\*", r"\\x", True),
    ],
)
def test_patterns_that_cover_patterns(pattern: str, other: str, expected: bool) -> None:
    assert covers(pattern, other) is expected


_PIECES = st.lists(st.sampled_from(["a", "b", "/", "*", "**", r"\*", r"\\", "\\"]), max_size=6)
_PATTERNS = _PIECES.map("".join)


def _expression(pattern: str) -> re.Pattern[str]:
    """The same as a regular expression, which is what a pattern means."""
    parts = []
    for token in re.findall(r"\\[\\*]|\*\*|\*|[^*\\]+|\\", pattern):
        plain = re.escape(token[1:] if token in (r"\*", "\\\\") else token)
        parts.append({"*": "[^/]*", "**": ".*"}.get(token, plain))
    return re.compile("".join(parts), re.DOTALL)


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(_PATTERNS, st.text("ab/*\\", max_size=8))
def test_a_pattern_means_a_regular_expression(pattern: str, channel: str) -> None:
    assert matches(pattern, channel) is bool(_expression(pattern).fullmatch(channel))


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(_PATTERNS, _PATTERNS, st.text("ab/*\\", max_size=8))
def test_covering_is_never_claimed_wrongly(pattern: str, other: str, channel: str) -> None:
    assert covers(pattern, pattern)
    if covers(pattern, other) and matches(other, channel):
        assert matches(pattern, channel)


def test_a_pattern_with_many_runs_takes_no_time() -> None:
    pattern = "*a" * 60 + "**b" * 40 + "c"
    start = time.monotonic()
    for number in range(10):
        assert not matches(pattern, "a" * 250 + str(number))
        assert not covers(pattern, "a*" * 100 + str(number))
    assert time.monotonic() - start < 5


def test_what_is_a_pattern() -> None:
    assert is_pattern("a/*")
    assert is_pattern(r"a\*")
    assert not is_pattern(r"a\b")
