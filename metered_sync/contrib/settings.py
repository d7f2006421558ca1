"""Read a web application's settings, the environment behind them, and say what is wrong."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from metered_sync.wire.arguments import check_function
from metered_sync.wire.secrets import (
    check_api_key,
    check_key_pair,
    check_sfu_app,
    hides_arguments,
    scrub,
)
from metered_sync.wire.urls import as_scheme, check_origin

__all__ = [
    "VARIABLES",
    "SettingProblem",
    "WebSettings",
    "name_problems",
    "read_settings",
    "token_function",
    "value_problems",
]

VARIABLES = {
    "KEY_ID": "METERED_KEY_ID",
    "KEY_SECRET": "METERED_KEY_SECRET",
    "KEY": "METERED_KEY",
    "URL": "METERED_URL",
    "SFU_APP_ID": "METERED_SFU_APP_ID",
    "SFU_SECRET": "METERED_SFU_SECRET",
    "SFU_URL": "METERED_SFU_URL",
}
"""The settings, and the variable of the environment that stands in for each."""
TOKEN = "TOKEN"
"""The setting that names the function which decides about tokens; it has no variable."""
NAMES = (*VARIABLES, TOKEN)
HALVES = (("KEY_ID", "KEY_SECRET"), ("SFU_APP_ID", "SFU_SECRET"))


@dataclass(frozen=True)
class SettingProblem:
    """What is wrong with the settings, without any of their values."""

    code: str
    """``"E…"`` keeps something from working; ``"W…"`` may be meant."""
    text: str
    remedy: str | None = None

    def __str__(self) -> str:
        return self.text if self.remedy is None else f"{self.text}: {self.remedy}"


@dataclass(frozen=True)
class WebSettings:
    """What a web application is set to use. No ``repr`` shows it."""

    owner: str
    """What errors begin with."""
    values: Mapping[str, Any] = field(repr=False)
    """What is set, by the names in :data:`VARIABLES`, and ``TOKEN``."""
    written: Mapping[str, str] = field(repr=False)
    """How the application, or its environment, writes each of them."""
    unknown: tuple[str, ...] = ()
    """Names that were set, and mean nothing."""

    def get(self, name: str) -> Any:
        """Return a setting; ``None`` where it is not there."""
        return self.values.get(name)

    def has(self, *names: str) -> bool:
        """Say whether all of these are set."""
        return all(name in self.values for name in names)


@hides_arguments
def read_settings(owner: str, given: Mapping[str, Any], prefix: str = "") -> WebSettings:
    """Return the settings: those given first, then the environment's.

    Args:
        owner: What errors begin with.
        given: The settings, by their names behind the prefix; empty ones are as if not there.
        prefix: What the names of this library's settings begin with among others.
    """
    values: dict[str, Any] = {}
    written: dict[str, str] = {}
    for name in NAMES:
        value = given.get(prefix + name)
        written[name] = prefix + name
        if value in (None, "") and name in VARIABLES:
            value = os.environ.get(VARIABLES[name])
            if value:
                written[name] = VARIABLES[name]
        if value not in (None, ""):
            values[name] = value
    names = (str(name) for name in given if str(name).startswith(prefix))
    unknown = tuple(name for name in names if name.removeprefix(prefix) not in NAMES)
    return WebSettings(owner, values, written, unknown)


def name_problems(settings: WebSettings) -> Iterator[SettingProblem]:
    """Yield what is wrong with the names of settings."""
    for name in settings.unknown:
        known = [settings.written[each] for each in NAMES]
        near = difflib.get_close_matches(name.upper(), known, 1)
        remedy = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        yield SettingProblem("E002", f"{settings.owner}: there is no setting {name}", remedy)


def value_problems(settings: WebSettings, *, functions: bool = True) -> Iterator[SettingProblem]:
    """Yield what is wrong with the values of settings, judged by their form.

    Args:
        settings: The settings.
        functions: Whether ``TOKEN`` is looked at, too, for which its module is imported.
    """
    texts = {name for name in VARIABLES if isinstance(settings.get(name), str)}
    for name in VARIABLES:
        if settings.has(name) and name not in texts:
            kind = type(settings.get(name)).__name__
            yield SettingProblem("E003", f"{_place(settings, name)} must be a text, not {kind}")
    for halves in HALVES:
        there = [name for name in halves if settings.has(name)]
        if len(there) == 1:
            (lacking,) = set(halves).difference(there)
            yield SettingProblem(
                "E004",
                f"{_place(settings, there[0])} is set, but {settings.written[lacking]} is not",
                f"the two belong together; the environment's {VARIABLES[lacking]} will do",
            )
    for code, names, check in _CHECKS:
        if texts.issuperset(names):
            try:
                check(settings)
            except (TypeError, ValueError) as error:
                yield SettingProblem(code, str(error))
    if settings.has(TOKEN):
        if not settings.has("KEY_ID") and not settings.has("KEY_SECRET"):
            yield SettingProblem(
                "E007",
                f"{_place(settings, TOKEN)} is set, but no key that could sign tokens",
                f"set {settings.written['KEY_ID']} and {settings.written['KEY_SECRET']}",
            )
        if functions:
            try:
                token_function(settings)
            except (TypeError, ValueError) as error:
                yield SettingProblem("E008", str(error))
    if not settings.has("KEY") and not settings.has("KEY_ID") and not settings.has("KEY_SECRET"):
        pair = f"{settings.written['KEY_ID']} and {settings.written['KEY_SECRET']}"
        yield SettingProblem(
            "W001",
            f"{settings.owner}: there is no key to connect with",
            f"set {pair}, or {settings.written['KEY']}, here or in the environment (METERED_…)",
        )


@hides_arguments
def token_function(settings: WebSettings) -> Callable[..., Any]:
    """Return the function that ``TOKEN`` names.

    Raises:
        ValueError: It is not set, or cannot be imported.
        TypeError: It is no plain function.
    """
    place, named = _place(settings, TOKEN), settings.get(TOKEN)
    if named is None:
        raise ValueError(
            f"{place} must name the function that returns mint_token's keyword arguments"
        )
    found = _imported(place, named) if isinstance(named, str) else named
    if not callable(found):
        raise TypeError(f"{place} must be or name a function, not {type(found).__name__}")
    return check_function(place, found)


def _imported(place: str, named: str) -> Any:
    """Return what a dotted path names.

    The path may be a secret in the wrong place: errors show as much of it as has been found.
    """
    path, _, rest = named.partition(":")
    names = path.split(".")
    found, known = None, 0
    while known < len(names) and (found is None or hasattr(found, "__path__")):
        module = ".".join(names[: known + 1])
        if not _is_module(module):
            break
        try:
            found, known = importlib.import_module(module), known + 1
        except Exception as error:
            text = scrub(str(error)) or type(error).__name__
            raise ValueError(f"{place}: {module!r} cannot be imported: {text}") from error
    complete = known == len(names) or (known and not rest)
    for name in names[known:] + (rest.split(".") if rest else []):
        if not complete or not hasattr(found, name):
            seen = ".".join(names[:known])
            what = f"there is {seen!r}, but not what follows" if seen else "there is no such module"
            raise ValueError(
                f"{place} cannot be imported: {what}; it takes a path like shop.tokens.decide"
            )
        found = getattr(found, name)
    return found


def _is_module(name: str) -> bool:
    """Say whether there is a module of this name, whose parents are imported."""
    if name in sys.modules:
        return True
    return name.rpartition(".")[2].isidentifier() and importlib.util.find_spec(name) is not None


def _place(settings: WebSettings, name: str) -> str:
    return f"{settings.owner}: {settings.written[name]}"


def _check_pair(settings: WebSettings) -> None:
    names = settings.written["KEY_ID"], settings.written["KEY_SECRET"]
    check_key_pair(settings.owner, settings.get("KEY_ID"), settings.get("KEY_SECRET"), names)


def _check_key(settings: WebSettings) -> None:
    check_api_key(settings.owner, settings.written["KEY"], settings.get("KEY"))


def _check_sfu(settings: WebSettings) -> None:
    names = settings.written["SFU_APP_ID"], settings.written["SFU_SECRET"]
    check_sfu_app(settings.owner, settings.get("SFU_APP_ID"), settings.get("SFU_SECRET"), names)


def _check_url(settings: WebSettings) -> None:
    url = as_scheme(settings.get("URL"), "ws")
    check_origin(url, secure="wss", name=_place(settings, "URL"))


def _check_sfu_url(settings: WebSettings) -> None:
    check_origin(settings.get("SFU_URL"), secure="https", name=_place(settings, "SFU_URL"))


_CHECKS: tuple[tuple[str, tuple[str, ...], Callable[[WebSettings], None]], ...] = (
    ("E005", ("KEY_ID", "KEY_SECRET"), _check_pair),
    ("E005", ("KEY",), _check_key),
    ("E005", ("SFU_APP_ID", "SFU_SECRET"), _check_sfu),
    ("E006", ("URL",), _check_url),
    ("E006", ("SFU_URL",), _check_sfu_url),
)
"""A problem's code, the settings that must be there, and what judges them."""
