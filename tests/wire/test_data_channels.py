"""Test which options and messages a data channel takes."""

from __future__ import annotations

from typing import Any

import numpy as np
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


def test_text_that_utf8_cannot_carry() -> None:
    with pytest.raises(ValueError, match=r"lone surrogate: send .* as bytes"):
        measure("\ud800")


@pytest.mark.parametrize(
    ("data", "remedy"),
    [
        ({"a": 1}, "not dict: send json.dumps(…)"),
        ([1], "not list: send json.dumps(…)"),
        (None, "not NoneType: send json.dumps(…)"),
        (np.zeros(2), "not ndarray: send .tobytes()"),
        (object(), "not object"),
    ],
)
def test_what_cannot_be_a_message_is_told_how_it_can(data: Any, remedy: str) -> None:
    with pytest.raises(TypeError) as caught:
        measure(data)
    assert str(caught.value) == f"a data channel sends str or bytes, {remedy}"
