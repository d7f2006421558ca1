"""Test that JSON and frames are the same with the optional library and without it.

The same values, or an error of the same class in the same words, whatever comes.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import math
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metered_sync.events import Direct, Message, Presence
from metered_sync.wire import frames, json_codec
from metered_sync.wire.frames import bulk
from tests.support.plain_json import plain_json
from tests.wire.test_properties import NEAR_ACKS, ODD_NUMBERS, json_values, near_frames, same

pytest.importorskip("msgspec", reason="msgspec is not installed")


def outcome(function: Callable[[Any], Any], value: Any) -> Any:
    """Return what a function returns, or the class and the words of what it raises."""
    try:
        return function(value)
    except Exception as error:
        return type(error), str(error), getattr(error, "code", None)


def check(function: Callable[[Any], Any], value: Any) -> None:
    """Run a function both ways on a value."""
    quick = outcome(function, value)
    with plain_json():
        plain = outcome(function, value)
    assert same(quick, plain), (value, quick, plain)
    assert getattr(quick, "frame_size", 0) == getattr(plain, "frame_size", 0)


def check_text(text: str | bytes) -> None:
    """Read text both ways, as a value and as a frame."""
    for function in (json_codec.decode, frames.parse_server_frame, frames.parse_client_frame):
        check(function, text)
        check(function, text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)


# --- reading --------------------------------------------------------------------------

VALUES = ["1", "{}", "null", '"x"', "[", "{", '{"a" 1}', "[1,]", '{"a":1,}', "tru", "1 2", "",
          '"\\ud800"', '"\\ud83d\\ude00"', '"\\ud800\\ud800"', '"\\u12"', '"\\q"', '"\t"', '"\x7f"',
          '"\\u0000"', "{1:2}", "[" * 30 + "]" * 30, "[" * 100_000, "[" * 5000 + "]" * 5000,
          '{"a":' * 5000 + "1" + "}" * 5000, '{"a":1,"a":2}', "\ufeff1", "\ud800"]  # fmt: skip
PLACES = [
    "%s",
    '{"type":"message","channel":"c","from":"b","data":%s}',
    '{"type":"message","channel":"c","from":"b","data":1,"fromMetadata":{"x":%s}}',
    '{"type":"message","channel":"c","from":"b","data":1,"fromMetadata":%s}',
    '{"type":"message","channel":"c","from":"b","data":1,"unknown":%s}',
    '{"unknown":%s,"type":"message","channel":"c","from":"b","data":1}',
    '{"type":"message","channel":%s,"from":"b","data":1}',
    '{"type":"message","channel":"c","from":"b","data":1,"channel":%s}',
    '{"type":"message","channel":"c","from":"b","data":1,"type":%s}',
    '{"type":"direct","from":"b","data":%s}',
    '{"type":"direct","from":%s,"data":1}',
    '{"type":"presence","channel":"c","joined":[{"peerId":%s}],"left":[]}',
    '{"type":"presence","channel":"c","joined":[{"peerId":"a","metadata":%s}],"left":[]}',
    '{"type":"presence","channel":"c","joined":[{"peerId":"a","unknown":%s}],"left":[]}',
    '{"type":"presence","channel":"c","joined":[%s],"left":[]}',
    '{"type":"presence","channel":"c","joined":[],"left":%s}',
    '{"type":"error","code":"c","message":%s}',
    '{"type":"publish","requestId":"1","channel":"c","data":%s}',
    '{"type":%s}',
    '{%s:1,"type":"message","channel":"c","from":"b","data":1}',
]


@pytest.mark.parametrize("place", PLACES)
def test_what_is_odd_in_a_frame_is_read_the_same(place: str) -> None:
    for value in (*VALUES, *ODD_NUMBERS):
        check_text(place.replace("%s", value))


@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_utf8_is_read_the_same(place: str) -> None:
    for value in (b'"\xff"', b'"\xed\xa0\x80"', b'"\xc3"', b"\xc3", b'{"\xff":1}', b'"\xf0\x9f"'):
        check_text(place.encode().replace(b"%s", value))


@pytest.mark.parametrize("text", NEAR_ACKS)
def test_near_acknowledgements_are_read_the_same(text: str) -> None:
    check_text(text)


@given(
    near_frames()
    | st.builds(lambda value: json.dumps(value), json_values)
    | st.builds(lambda text, at: text.encode()[at:], near_frames(), st.integers(0, 9))
    | st.text()
    | st.binary()
)
@example('{"type":"message","channel":"c","from":"b","data":NaN}')
def test_both_ways_of_reading_agree(text: str | bytes) -> None:
    check_text(text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"type":"message","channel":"c","from":"b","data":[1]}', Message),
        ('{"from":"b","type":"message","fromMetadata":{},"channel":"c","data":1}', Message),
        ('{"type":"direct","from":"b","data":null,"fromMetadata":null}', Direct),
        ('{"type":"presence","channel":"c","joined":[{"peerId":"a"}],"left":[]}', Presence),
    ],
)
def test_what_comes_in_bulk_takes_the_quick_way(text: str, kind: type) -> None:
    assert type(bulk.decoder.decode(text).event(9)) is kind


# --- writing --------------------------------------------------------------------------


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Real(float):
    pass


class Record(dict[str, int]):
    pass


class Row(list[int]):
    pass


@dataclasses.dataclass
class Point:
    x: int = 1


class Speaks:
    """What other libraries ask an object for."""

    def __json__(self) -> str:
        return "1"

    def __iter__(self) -> Iterator[int]:
        return iter((1,))


def circle() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


ODD_VALUES = [
    math.nan, math.inf, -math.inf, b"x", bytearray(b"x"), memoryview(b"x"), {1, 2}, frozenset((1,)),
    datetime.datetime(2030, 1, 1), datetime.date(2030, 1, 1), datetime.time(1),
    datetime.timedelta(1),
    decimal.Decimal("1.5"), uuid.UUID(int=7), enum.Enum("Colour", "RED").RED, Text("a"), Number(7),
    enum.IntEnum("Size", "SMALL").SMALL, Real(2.5), Real("nan"), Record(a=1), Row((1,)), Point(),
    OrderedDict(a=1), Counter("aa"), Speaks(), object(), 1j, Ellipsis, range(3), 2**63, 2**64,
    -(2**64), 10**400, 1e300, 1e16, 5e-324, -0.0, "\ud800", "a\ud83d\ude00", "null", None, True,
    (1, (2, 3)), {}, [], (), circle(), nested(3000), int, len, iter(()), frames.Ack("x"),
]  # fmt: skip
"""Values that libraries write differently, or not at all."""
ODD_KEYS = [1, 2.5, None, True, math.nan, (1,), b"x", "\ud800", Text("a"), uuid.UUID(int=7),
            enum.Enum("Colour", "RED").RED, enum.IntEnum("Size", "SMALL").SMALL, 2**70]  # fmt: skip


def write(value: Any) -> Any:
    """Return what is written, read again: a number may be spelled differently."""
    text = json_codec.encode(value)
    assert "\n" not in text
    return json.loads(text)


@pytest.mark.parametrize("value", ODD_VALUES, ids=lambda value: type(value).__name__)
def test_odd_values_are_written_the_same(value: Any) -> None:
    for data in (value, [value], {"a": value}, {"a": [1, (value,)]}):
        check(write, data)
        check(lambda data: json.loads(frames.build_publish("c", data, "1")), data)


@pytest.mark.parametrize("key", ODD_KEYS, ids=lambda key: type(key).__name__)
def test_odd_keys_are_written_the_same(key: Any) -> None:
    for data in ({key: 1}, [{"a": 1, key: 2}]):
        check(write, data)


plain_types = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner)
        | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(plain_types)
def test_both_ways_of_writing_agree(value: Any) -> None:
    check(write, value)


@given(st.sampled_from(ODD_VALUES), st.sampled_from(ODD_KEYS), json_values)
def test_both_ways_of_writing_agree_on_what_is_odd(odd: Any, key: Any, value: Any) -> None:
    check(write, {"a": value, "b": [odd, value]})
    check(write, [{"a": odd, key: value}])
