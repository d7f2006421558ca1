"""Test which options and messages a data channel takes."""

from __future__ import annotations

from typing import Any

import pytest

from metered_sync.wire.data_channels import channel_options, check_label, measure


def test_options_become_those_of_aiortc() -> None:
    assert channel_options() == {"ordered": True, "protocol": ""}
    assert channel_options(ordered=False, max_retransmits=0, protocol="p") == {
        "ordered": False,
        "protocol": "p",
        "maxRetransmits": 0,
    }
    assert channel_options(max_packet_life_time=0.25)["maxPacketLifeTime"] == 250


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"protocol": b"x"}, TypeError, "protocol"),
        ({"protocol": "grün"}, ValueError, "protocol"),
        ({"max_retransmits": 1, "max_packet_life_time": 1}, ValueError, "not both"),
        ({"max_retransmits": -1}, ValueError, "max_retransmits"),
        ({"max_retransmits": 65536}, ValueError, "max_retransmits"),
        ({"max_retransmits": True}, ValueError, "max_retransmits"),
        ({"max_packet_life_time": 500}, ValueError, "seconds"),
        ({"max_packet_life_time": 0}, ValueError, "seconds"),
        ({"max_packet_life_time": float("nan")}, ValueError, "seconds"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        channel_options(**options)


def test_labels() -> None:
    assert [check_label(label) for label in ("", "chat", "x" * 65535)] == ["", "chat", "x" * 65535]
    for bad, error in ((7, TypeError), ("grün", ValueError), ("x" * 65536, ValueError)):
        with pytest.raises(error, match="label"):
            check_label(bad)  # type: ignore[arg-type]


def test_a_size_is_in_bytes() -> None:
    assert [measure(data) for data in ("", "ab", "é", "😀", b"\xff\x00")] == [0, 2, 2, 4, 2]
    for wrong in (7, None, ["a"], {"a": 1}):
        with pytest.raises(TypeError, match="str or bytes"):
            measure(wrong)
