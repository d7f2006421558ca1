"""Test the readers of decoded JSON: each field's types, and errors that name the field."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from metered_sync.wire.fields import (
    FieldError,
    Fields,
    copied,
    each,
    error_body,
    is_number,
    parse_error,
)

GOOD: dict[str, Any] = {
    "text": "a",
    "empty": "",
    "number": 1.5,
    "whole": 7,
    "round": 8.0,
    "flag": False,
    "object": {"inner": {"deep": 1}},
    "list": [{"n": 1}, {"n": 2}],
    "texts": ["a", ""],
    "null": None,
}


def test_fields_that_are_as_they_should_be() -> None:
    fields = Fields(GOOD)
    assert fields.text("text") == fields.filled("text") == fields.optional_text("text") == "a"
    assert fields.text("empty") == fields.optional_text("empty") == ""
    assert fields.number("number") == fields.optional_number("number") == 1.5
    assert fields.whole("whole") == fields.optional_whole("whole") == 7
    whole = fields.whole("round")
    assert (whole, type(whole)) == (8, int)
    assert fields.flag("flag") is False
    assert fields.object("object").object("inner").whole("deep") == 1
    assert fields.optional_object("object") == GOOD["object"]
    assert fields.each("list", lambda item: item.whole("n")) == (1, 2)
    assert fields.optional_texts("texts") == ("a", "")
    assert "null" in fields
    assert "other" not in fields


@pytest.mark.parametrize("name", ["null", "missing"])
def test_fields_that_may_be_missing(name: str) -> None:
    fields = Fields(GOOD)
    for read in (
        fields.get,
        fields.optional_text,
        fields.optional_filled,
        fields.optional_texts,
        fields.optional_number,
        fields.optional_whole,
        fields.optional_object,
        fields.text_or_none,
        fields.object_or_none,
    ):
        assert read(name) is None


READERS: list[tuple[Callable[[Fields, str], Any], list[str]]] = [
    (Fields.text, ["number", "null", "missing", "list"]),
    (Fields.filled, ["empty", "number", "null", "missing"]),
    (Fields.number, ["text", "flag", "null", "missing"]),
    (Fields.whole, ["number", "text", "flag", "null"]),
    (Fields.flag, ["whole", "text", "null", "missing"]),
    (Fields.object, ["list", "text", "null", "missing"]),
    (lambda fields, name: fields.each(name, Fields.get), ["object", "text", "null"]),
    (Fields.optional_text, ["number", "object"]),
    (Fields.optional_filled, ["empty", "number"]),
    (Fields.optional_texts, ["text", "list", "object"]),
    (Fields.optional_number, ["text", "flag"]),
    (Fields.optional_whole, ["number", "text"]),
    (Fields.optional_object, ["list", "text", "flag"]),
]


@pytest.mark.parametrize(
    ("read", "name"), [(read, name) for read, wrong in READERS for name in wrong]
)
def test_fields_of_another_type(read: Callable[[Fields, str], Any], name: str) -> None:
    for path, at in ((name, Fields(GOOD)), (f"a[2].{name}", Fields(GOOD, "a[2]"))):
        with pytest.raises(FieldError) as caught:
            read(at, name)
        assert caught.value.field == path
        assert str(caught.value).startswith(f'"{path}" must be ')


def test_an_error_names_the_place_inside_lists_and_objects() -> None:
    with pytest.raises(FieldError) as caught:
        Fields({"a": [{"b": {"c": 0}}]}).each("a", lambda item: item.object("b").text("c"))
    assert caught.value.field == "a[0].b.c"
    with pytest.raises(FieldError, match=r'^"a\[1\]" must be an object$'):
        Fields({"a": [{}, 1]}).each("a", lambda item: item.get("b"))


@pytest.mark.parametrize("value", [None, [], "text", 1])
def test_a_whole_that_is_no_object(value: Any) -> None:
    with pytest.raises(FieldError, match=r"^the body must be an object$") as caught:
        Fields(value)
    assert caught.value.field == ""
    with pytest.raises(FieldError, match=r'^"plan" must be an object$'):
        Fields(value, "plan")


@pytest.mark.parametrize("value", [None, {}, "text"])
def test_a_whole_that_is_no_list(value: Any) -> None:
    with pytest.raises(FieldError, match=r"^the body must be a list$"):
        each(value, lambda item: item)


def test_texts_may_be_bounded() -> None:
    fields = Fields({"a": "12345", "b": 1})
    assert fields.text("a", most=5) == fields.filled("a", most=5) == "12345"
    for read in (fields.text, fields.filled, fields.optional_text, fields.optional_filled):
        with pytest.raises(FieldError, match='"a" must have at most 4 characters'):
            read("a", most=4)
    assert fields.text_or_none("a", most=5) == "12345"
    assert fields.text_or_none("a", most=4) is None
    assert fields.text_or_none("b") is None
    assert fields.object_or_none("a") is None
    assert Fields(GOOD).object_or_none("object") == GOOD["object"]


@pytest.mark.parametrize("value", [0, -1.5, 10**300, 2**1000])
def test_numbers(value: Any) -> None:
    assert is_number(value)


@pytest.mark.parametrize("value", [True, None, "1", math.nan, math.inf, -math.inf, 10**400])
def test_what_is_no_number(value: Any) -> None:
    assert not is_number(value)


def test_refusals_both_ways() -> None:
    assert parse_error(error_body("unauthorized", "no")) == ("unauthorized", "no")
    for body in (None, [], "text", {}, {"error": 1, "message": {}}):
        assert parse_error(body) == (None, None)


def test_a_copy_is_equal_and_shares_nothing() -> None:
    data = {"a": [1, "x", None, {"b": [[], {}]}], "c": {"d": 1.5, "e": True}, "f": []}
    twin = copied(data)
    assert twin == data
    assert [type(one) for one in twin.values()] == [list, dict, list]
    before = json.dumps(data)
    todo: list[Any] = [twin]
    while todo:
        one = todo.pop()
        todo += [
            each
            for each in (one.values() if isinstance(one, dict) else one)
            if isinstance(each, (dict, list))
        ]
        one.clear()
    assert json.dumps(data) == before
    for plain in (None, 1, 2.5, "text", True):
        assert copied(plain) is plain


def test_a_copy_may_be_nested_at_will() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    twin, depth = copied(deep), 0
    while twin:
        assert twin is not deep
        (twin,), (deep,), depth = twin, deep, depth + 1
    assert depth == 100_000
