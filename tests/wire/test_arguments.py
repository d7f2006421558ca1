"""Test the checks of arguments: what each lets through, and what its error says."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any
from unittest.mock import Mock, create_autospec

import numpy as np
import pytest

from metered_sync.wire.arguments import (
    check_choice,
    check_function,
    check_number,
    check_text,
    check_whole,
    unrun_result,
)
from tests.support.seen import frames_of


def test_texts() -> None:
    assert check_text("label", "a") == "a"
    for value in ("", None, 7, b"a"):
        with pytest.raises(ValueError) as caught:
            check_text("label", value)
        assert str(caught.value) == f"label must be a non-empty string, not {value!r}"


@pytest.mark.parametrize("value", [0, 7, 2**70, np.int64(3), 640.0, np.float32(9), Fraction(4, 2)])
def test_whole_numbers(value: Any) -> None:
    whole = check_whole("size", value)
    assert (whole, type(whole)) == (int(value), int)


NO_SIZES = [True, 1.5, "1", None, -1, 11, 10**400, math.nan, math.inf, np.bool_(1), np.zeros(1)]


@pytest.mark.parametrize("value", NO_SIZES)
def test_what_is_no_whole_number_within_bounds(value: Any) -> None:
    with pytest.raises(ValueError) as caught:
        check_whole("size", value, most=10, unit="pixels")
    assert str(caught.value) == f"size must be a whole number of pixels from 0 to 10, not {value!r}"
    with pytest.raises(ValueError, match="size must be a positive whole number, not 0"):
        check_whole("size", 0, 1)
    with pytest.raises(ValueError, match="size must be a whole number from 2 up, not 1"):
        check_whole("size", 1, 2)


@pytest.mark.parametrize("value", [0, 0.5, 1, Fraction(1, 3), np.float32(0.25), np.int64(1)])
def test_numbers(value: Any) -> None:
    number = check_number("part", value, most=1)
    assert (number, type(number) in (int, float)) == (pytest.approx(float(value)), True)


@pytest.mark.parametrize("value", [True, "1", None, 1j, -0.1, 1.1, math.nan, -math.inf, 10**400])
def test_what_is_no_number_within_bounds(value: Any) -> None:
    with pytest.raises(ValueError) as caught:
        check_number("part", value, most=1)
    assert str(caught.value) == f"part must be a number from 0 to 1, not {value!r}"


@pytest.mark.parametrize(
    ("options", "value", "words"),
    [
        ({}, -1, "wait must be a finite number from 0 up, not -1"),
        (
            {"unit": "seconds"},
            math.inf,
            "wait must be a finite number of seconds from 0 up, not inf",
        ),
        ({"above": True}, 0, "wait must be a finite number above 0, not 0"),
        (
            {"above": True, "most": 240},
            241,
            "wait must be a number above 0 and at most 240, not 241",
        ),
        (
            {"least": 0.001, "most": 65.535},
            66,
            "wait must be a number from 0.001 to 65.535, not 66",
        ),
    ],
)
def test_bounds_of_numbers(options: dict[str, Any], value: float, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_number("wait", value, **options)
    assert str(caught.value) == words


def test_a_number_may_be_infinite_where_that_makes_sense() -> None:
    assert check_number("wait", math.inf, infinite=True) == math.inf
    assert check_number("wait", 10**400) == 10**400
    with pytest.raises(ValueError, match="wait must be a number from 0 up, not nan"):
        check_number("wait", math.nan, infinite=True)


def test_choices() -> None:
    assert check_choice("kind", None, ("audio", "video", None)) is None
    assert check_choice("kind", "audio", ("audio", "video")) == "audio"
    with pytest.raises(ValueError) as caught:
        check_choice("kind", "text", ("audio", "video", None))
    assert str(caught.value) == 'kind must be "audio", "video" or None, not \'text\''


@pytest.mark.parametrize("value", ["sk_secret_4711", b"sk_secret_4711", ["sk_secret_4711"]])
def test_a_secret_in_the_place_of_a_function_is_not_shown(value: object) -> None:
    with pytest.raises(TypeError) as caught:
        check_function("fn", value)
    assert "4711" not in frames_of(caught.value)


def test_functions() -> None:
    assert check_function("fn", print) is print
    for value, kind in ((3, "int"), (None, "NoneType"), ("print", "str"), ([print], "list")):
        with pytest.raises(TypeError, match=f"fn must be callable, not {kind}$"):
            check_function("fn", value)

    async def later() -> None: ...

    def lazy() -> Any:
        yield 1

    with pytest.raises(TypeError, match=r"fn: .*later is an async function, .*run_coroutine_thr"):
        check_function("fn", later)
    with pytest.raises(TypeError, match=r"fn: .*lazy is a generator function, which nothing"):
        check_function("fn", lazy)
    for result in (None, 1, [1], range(3), iter([1])):
        assert unrun_result(result) is None
    running = lazy()
    assert "a generator" in str(unrun_result(running))
    assert list(running) == []  # closed


def test_an_array_is_not_shown_whole() -> None:
    array = np.zeros((1000, 1000))
    for check in (
        lambda: check_text("name", array),
        lambda: check_whole("name", array),
        lambda: check_number("name", array),
        lambda: check_choice("name", array, ("a", None)),
    ):
        with pytest.raises(ValueError, match="name must be ") as caught:
            check()
        assert len(str(caught.value)) < 600


class Taker:
    def __call__(self, one: object) -> None: ...

    def method(self, one: object) -> None: ...

    def nothing(self) -> None: ...

    @classmethod
    def of_class(cls, one: object) -> None: ...

    @staticmethod
    def static(one: object) -> None: ...


class Idle:
    def __call__(self) -> None: ...


def two(one: object, other: object) -> None: ...


def none() -> None: ...


@functools.wraps(none)
def hiding(*args: object) -> None: ...


@functools.wraps(two)
def hidden() -> None: ...


def signed() -> None: ...


signed.__signature__ = inspect.Signature()  # type: ignore[attr-defined]

TAKEN: tuple[Callable[..., Any], ...] = (
    lambda one: None,
    lambda *all_: None,
    lambda one, other=1: None,
    Taker(),
    Taker().method,
    Taker.of_class,
    Taker.static,
    functools.partial(two, 1),
    functools.partial(two, other=1),
    functools.partial(functools.partial(two), 1),
    functools.partial(Taker().method),
    print,
    [].append,
    [].clear,
    str,
    Idle,
    dict,
    Mock(),
    create_autospec(two),
    hiding,
    signed,
)
NOT_TAKEN: tuple[Callable[..., Any], ...] = (
    none,
    two,
    lambda: None,
    lambda *, more=1, **rest: None,
    lambda *, one: None,
    Idle(),
    Taker().nothing,
    Taker.method,
    functools.partial(two),
    functools.partial(two, 1, 2),
    functools.partial(two, one=1),
    functools.partial(Taker().method, 1),
    hidden,
)


@pytest.mark.parametrize("function", TAKEN)
def test_functions_that_may_take_an_argument(function: Callable[..., Any]) -> None:
    assert check_function("fn", function, arguments=1) is function


@pytest.mark.parametrize("function", NOT_TAKEN)
def test_functions_that_cannot_take_an_argument(function: Callable[..., Any]) -> None:
    with pytest.raises(TypeError):
        function(None)
    with pytest.raises(TypeError, match=r"^fn: .* is called with one argument here, and cannot be"):
        check_function("fn", function, arguments=1)
    assert check_function("fn", function) is function


def test_functions_of_two_arguments() -> None:
    assert check_function("fn", two, arguments=2) is two
    with pytest.raises(TypeError, match="fn: none is called with 2 arguments here"):
        check_function("fn", none, arguments=2)
