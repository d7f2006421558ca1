"""Check the arguments of public calls; a ``ValueError`` names the argument and its bounds."""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import operator
from collections.abc import Callable, Hashable, Sequence
from types import FunctionType, MethodType
from typing import Any, TypeVar

from metered_sync.wire.secrets import cut_secrets

__all__ = [
    "check_choice",
    "check_function",
    "check_number",
    "check_text",
    "check_whole",
    "plain_number",
    "shown",
    "unrun_result",
]

T = TypeVar("T")
MAX_SHOWN = 500
"""Characters of a value that an error shows."""


def shown(value: object) -> str:
    """Return a value as an error shows it: no secret, and no array that would fill the screen."""
    text = cut_secrets(repr(value))
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 20]}… ({type(value).__name__})"


def check_text(name: str, value: object) -> str:
    """Return an argument that must be a non-empty string."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} must be a non-empty string, not {shown(value)}")
    return value


def plain_number(value: object) -> float | None:
    """Return a number, of numpy's or whose ever, as Python's own ``int`` or ``float``.

    ``None`` for all else, ``True`` and ``False`` among it.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    return operator.index(value) if isinstance(value, numbers.Integral) else float(value)


def check_whole(
    name: str, value: object, least: int = 0, most: int | None = None, *, unit: str = ""
) -> int:
    """Return an argument that must be a whole number within bounds; 640.0 is one, too.

    Args:
        name: The argument's name.
        value: The argument.
        least: The smallest value that may be.
        most: The largest; ``None``: there is none.
        unit: What is counted, for the error.
    """
    number = plain_number(value)
    whole = isinstance(number, int) or (
        number is not None and math.isfinite(number) and number == int(number)
    )
    if number is None or not whole or number < least or (most is not None and number > most):
        wanted = "whole number" + (f" of {unit}" if unit else "")
        if least == 1 and most is None:
            wanted = f"positive {wanted}"
        else:
            wanted += f" from {least} up" if most is None else f" from {least} to {most}"
        raise ValueError(f"{name} must be a {wanted}, not {shown(value)}")
    return int(number)


def check_number(
    name: str,
    value: object,
    least: float = 0.0,
    most: float = math.inf,
    *,
    above: bool = False,
    infinite: bool = False,
    unit: str = "",
) -> float:
    """Return an argument that must be a number within bounds, as Python's own.

    Args:
        name: The argument's name.
        value: The argument.
        least: The smallest value that may be.
        most: The largest.
        above: Whether it must be above ``least``.
        infinite: Whether it may be infinite.
        unit: What is counted, for the error.
    """
    number = plain_number(value)
    within = number is not None and least <= number <= most
    if (
        number is None
        or not within
        or (above and number == least)
        or (number == math.inf and not infinite)
    ):
        wanted = "number" if infinite or most < math.inf else "finite number"
        wanted += f" of {unit}" if unit else ""
        if above:
            wanted += f" above {least:g}" + ("" if most == math.inf else f" and at most {most:g}")
        else:
            wanted += f" from {least:g} " + ("up" if most == math.inf else f"to {most:g}")
        raise ValueError(f"{name} must be a {wanted}, not {shown(value)}")
    return number


def check_choice(name: str, value: T, choices: Sequence[T]) -> T:
    """Return an argument that must be one of a few values."""
    if not (isinstance(value, Hashable) and value in choices):
        texts = [f'"{choice}"' if isinstance(choice, str) else repr(choice) for choice in choices]
        listed = f"{', '.join(texts[:-1])} or {texts[-1]}"
        raise ValueError(f"{name} must be {listed}, not {shown(value)}")
    return value


def check_function(
    name: str, function: object, *, arguments: int | None = None
) -> Callable[..., Any]:
    """Return an argument that must be a plain function: one that runs when it is called.

    Args:
        name: The argument's name.
        function: The argument.
        arguments: How many it is called with, if it is to be checked that it takes them.

    Raises:
        TypeError: It cannot be called; or calling it runs nothing, because it is an
            ``async def`` or a generator function, also within a ``functools.partial``, a
            bound method or an object's ``__call__``; or it is sure not to take the arguments.
    """
    if not callable(function):
        kind = type(function).__name__
        del function  # it may be a secret in the wrong place: neither text nor traceback shows it
        raise TypeError(f"{name} must be callable, not {kind}")
    inner: Any = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    if not inspect.isroutine(inner) and not inspect.isclass(inner):
        # (An object that says of itself what it is, as mocks do, is believed.)
        inner = inner if _deferred(inner) else type(inner).__call__
    deferred = _deferred(inner)
    if deferred is not None:
        raise TypeError(
            f"{name}: {_brief(function)} is {deferred}, which nothing here runs: {_REMEDY}"
        )
    if arguments is not None and not _takes(function, arguments):
        wanted = "one argument" if arguments == 1 else f"{arguments} arguments"
        raise TypeError(
            f"{name}: {_brief(function)} is called with {wanted} here, and cannot be: have it take "
            f"{wanted}, no fewer and no more that must be given"
        )
    return function


def _takes(function: Any, count: int) -> bool:
    """Return whether a function may take so many arguments; no only where that is certain.

    Of what is written in C, and of what gives itself a signature, nothing is.
    """
    given: list[Any] = [None] * count
    named: dict[str, Any] = {}
    while not isinstance(function, FunctionType):
        if isinstance(function, functools.partial):
            given[:0], named = function.args, {**function.keywords, **named}
            function = function.func
        elif isinstance(function, MethodType):
            given.insert(0, function.__self__)
            function = function.__func__
        else:
            given.insert(0, function)
            function = inspect.getattr_static(type(function), "__call__", None)
            if not isinstance(function, FunctionType):
                return True
    placeholder = getattr(functools, "Placeholder", given)  # (from Python 3.14 on)
    if "__signature__" in vars(function) or any(one is placeholder for one in given):
        return True
    try:  # (a decorated function's own parameters count, not those of what it has wrapped)
        inspect.Signature.from_callable(function, follow_wrapped=False).bind(*given, **named)
    except TypeError:
        return False
    return True


def unrun_result(result: object) -> str | None:
    """Say why a function's work has not been done, by what it returned; close that."""
    if inspect.iscoroutine(result) or inspect.isgenerator(result):
        result.close()  # (it would warn that it was never awaited)
        kind = "a coroutine" if inspect.iscoroutine(result) else "a generator"
    elif inspect.isasyncgen(result):
        kind = "an asynchronous generator"
    else:
        return None
    return f"it returned {kind}, which nothing here runs: {_REMEDY}"


_REMEDY = (
    "pass a plain function that does its work before it returns; to run a coroutine, let it hand "
    "that to your own loop with asyncio.run_coroutine_threadsafe(…), or call asyncio.run(…)"
)


def _deferred(function: Any) -> str | None:
    """Say of a function whose call runs nothing what it is; ``None`` for any other."""
    if inspect.iscoroutinefunction(function):
        return "an async function"
    if inspect.isasyncgenfunction(function):
        return "an async generator function"
    return "a generator function" if inspect.isgeneratorfunction(function) else None


def _brief(value: object) -> str:
    """Return a short text for a value that may be anything."""
    name = getattr(value, "__qualname__", None)
    return str(name) if isinstance(name, str) else type(value).__name__
