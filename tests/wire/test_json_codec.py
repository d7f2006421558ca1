"""Test that JSON text is the same with the optional library and without it."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import math
import time
import uuid
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from metered_sync.wire import json_codec
from metered_sync.wire.frames import Ack
from tests.support.plain_json import plain_json


@pytest.fixture(params=["as installed", "plain"])
def both(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run a test with the optional library, where it is installed, and without it."""
    with plain_json() if request.param == "plain" else nullcontext():
        yield


@pytest.mark.parametrize(
    "value",
    [
        2**63,
        -(2**70),
        {1: "a", None: "b"},
        (1, [2.5, None, 1e300]),
        enum.IntEnum("Size", "SMALL").SMALL,
        enum.Enum("Colour", "RED").RED,
        uuid.UUID(int=7),
        "é\u2028😀\x7f",
        {"a": True, "b": [{}]},
    ],
)
def test_accelerated_json_is_the_same(value: Any) -> None:
    text = json_codec.encode(value)
    assert text == json_codec._plain_encode(value)
    decoded = json_codec.decode(text.encode())
    assert repr(decoded) == repr(json_codec._plain_decode(text))


@pytest.mark.parametrize("value", [b"x", {1, 2}, object(), datetime.date(2030, 1, 1), Ack("x")])
def test_accelerated_json_refuses_the_same(value: Any) -> None:
    with pytest.raises(TypeError, match="JSON"):
        json_codec.encode({"data": value})


@pytest.mark.usefixtures("both")
@pytest.mark.parametrize("value", [math.nan, [math.inf], {"a": "\ud800"}, {"b": {"c": -math.inf}}])
def test_what_utf8_and_json_cannot_carry_is_a_value_error(value: Any) -> None:
    with pytest.raises(ValueError, match="data"):
        json_codec.encode(value)


@pytest.mark.usefixtures("both")
def test_null_is_no_nan() -> None:
    assert json_codec.encode([None, "null"]) == '[null,"null"]'


@pytest.mark.usefixtures("both")
@pytest.mark.parametrize("text", ["", "{", "[1,]", "NaN", "[Infinity]", '"\n"', "1 2", b"\xff"])
def test_what_is_no_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        json_codec.decode(text)


@pytest.mark.usefixtures("both")
@pytest.mark.parametrize("text", [' {"a" : [1, 2.5]}\n', b'{"a":[1,2.5]}'])
def test_white_space_does_not_count(text: str | bytes) -> None:
    assert json_codec.decode(text) == {"a": [1, 2.5]}


@pytest.mark.usefixtures("both")
def test_what_is_nested_too_deeply_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="deep"):
        json_codec.encode(deep)
    with pytest.raises((ValueError, RecursionError)):
        json_codec.decode("[" * 100_000 + "]" * 100_000)


@dataclasses.dataclass
class Point:
    x: int = 1


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (np.zeros(3), TypeError, "at data: send .tolist()"),
        ({"x": [1, np.float32(0.5)]}, TypeError, "at data['x'][1]: send .tolist()"),
        ({"a": {"b": b"x"}}, TypeError, "at data['a']['b']: base64.b64encode(…).decode()"),
        ([bytearray(b"x")], TypeError, "at data[0]: base64"),
        ({"at": datetime.datetime(2024, 1, 1)}, TypeError, "at data['at']: send .isoformat()"),
        ([datetime.date(2024, 1, 1)], TypeError, "at data[0]: send .isoformat()"),
        ([1, {2, 3}], TypeError, "at data[1]: send list(…)"),
        ((n for n in ()), TypeError, "at data: send list(…)"),
        ([Point()], TypeError, "at data[0]: send dataclasses.asdict(…)"),
        ([object()], TypeError, "at data[0]: send text, numbers"),
        ({(1, 2): 3}, TypeError, "a key of data is a tuple: make it a text"),
        ({"a": [1.0, math.nan]}, ValueError, "at data['a'][1]: JSON has no NaN"),
        ((0, (0, -math.inf)), ValueError, "at data[1][1]: JSON has no NaN and no infinity"),
    ],
)
def test_what_is_no_json_is_named_with_its_place_and_a_remedy(
    value: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind) as caught:
        json_codec.encode(value)
    assert str(caught.value).startswith("the data cannot be sent as JSON: ")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 250


def test_the_search_for_what_is_no_json_is_bounded() -> None:
    many: list[Any] = [0] * 300_000
    with pytest.raises(TypeError) as caught:
        json_codec.encode([*many, object()])
    assert "at data" not in str(caught.value)


@pytest.mark.usefixtures("both")
def test_data_that_contain_themselves_are_refused_at_once() -> None:
    circle: list[Any] = [1]
    circle += [circle, {"a": circle}]
    started = time.thread_time()
    with pytest.raises(ValueError, match=r"data|deep"):
        json_codec.encode(circle)
    assert time.thread_time() - started < 2
