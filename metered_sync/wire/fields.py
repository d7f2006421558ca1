"""Read decoded JSON field by field, copy it, and build and read the bodies of refusals.

A reader takes the fields that it uses and ignores the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from sys import float_info
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = [
    "FieldError",
    "Fields",
    "JsonObject",
    "copied",
    "each",
    "error_body",
    "is_number",
    "parse_error",
]

JsonObject = dict[str, Any]
T = TypeVar("T")


class FieldError(ValueError):
    """Decoded JSON is not what its reader takes; the message names the field."""

    def __init__(self, problem: str, field: str = "") -> None:
        super().__init__(f'"{field}" {problem}' if field else problem)
        self.field = field
        """The path of the field, for instance ``tracks[1].mid``; empty for the whole."""


class Fields:
    """The fields of one JSON object.

    Args:
        value: The decoded JSON; :class:`FieldError` unless it is an object.
        path: Where it is inside the whole, for errors.
    """

    __slots__ = ("_path", "_values")

    def __init__(self, value: object, path: str = "") -> None:
        if not isinstance(value, Mapping):
            raise FieldError("must be an object" if path else "the body must be an object", path)
        self._values: Mapping[str, Any] = value
        self._path = path

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def get(self, name: str) -> Any:
        """Return a field as it is; ``None`` where it is missing."""
        return self._values.get(name)

    def error(self, name: str, problem: str) -> FieldError:
        """Return the error that says what is wrong with a field."""
        return FieldError(problem, f"{self._path}.{name}" if self._path else name)

    # --- fields that must be there ---

    def text(self, name: str, *, most: int | None = None) -> str:
        """Return a field that must be a string, of at most so many characters."""
        value = self._values.get(name)
        if not isinstance(value, str):
            raise self.error(name, "must be a string")
        if most is not None and len(value) > most:
            raise self.error(name, f"must have at most {most} characters")
        return value

    def filled(self, name: str, *, most: int | None = None) -> str:
        """Return a field that must be a string, and not an empty one."""
        value = self._values.get(name)
        if not isinstance(value, str) or not value:
            raise self.error(name, "must be a non-empty string")
        return self.text(name, most=most)

    def number(self, name: str) -> float:
        """Return a field that must be a number which a float can hold."""
        value = self._values.get(name)
        if not is_number(value):
            raise self.error(name, "must be a number")
        return value

    def whole(self, name: str) -> int:
        """Return a field that must be a whole number."""
        value = self._values.get(name)
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(name, "must be a whole number")
        return value

    def flag(self, name: str) -> bool:
        """Return a field that must be ``true`` or ``false``."""
        value = self._values.get(name)
        if not isinstance(value, bool):
            raise self.error(name, "must be true or false")
        return value

    def object(self, name: str) -> Fields:
        """Return the fields of a field that must be an object."""
        return Fields(self._values.get(name), self.error(name, "").field)

    def each(self, name: str, parse: Callable[[Fields], T]) -> tuple[T, ...]:
        """Return what ``parse`` makes of each object in a field that must be a list of them."""
        return each(self._values.get(name), parse, self.error(name, "").field)

    # --- fields that may be missing ---

    def optional_text(self, name: str, *, most: int | None = None) -> str | None:
        """Return a field that may be a string, ``null`` or missing."""
        return None if self._values.get(name) is None else self.text(name, most=most)

    def optional_filled(self, name: str, *, most: int | None = None) -> str | None:
        """Return a field that may be a string with something in it, ``null`` or missing."""
        return None if self._values.get(name) is None else self.filled(name, most=most)

    def optional_texts(self, name: str) -> tuple[str, ...] | None:
        """Return a field that may be a list of strings, ``null`` or missing."""
        values = self._values.get(name)
        if values is None:
            return None
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise self.error(name, "must be a list of strings")
        return tuple(values)

    def optional_number(self, name: str) -> float | None:
        """Return a field that may be a number, ``null`` or missing."""
        return None if self._values.get(name) is None else self.number(name)

    def optional_whole(self, name: str) -> int | None:
        """Return a field that may be a whole number, ``null`` or missing."""
        return None if self._values.get(name) is None else self.whole(name)

    def optional_object(self, name: str) -> JsonObject | None:
        """Return a field that may be an object, ``null`` or missing, as a dict."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.error(name, "must be an object")
        return value

    # --- fields that count as missing where they are of another type ---

    def text_or_none(self, name: str, *, most: int | None = None) -> str | None:
        """Return a field if it is a string of at most so many characters."""
        value = self._values.get(name)
        fits = isinstance(value, str) and (most is None or len(value) <= most)
        return value if fits else None

    def whole_or_none(self, name: str) -> int | None:
        """Return a field if it is a whole number from 0."""
        value = self._values.get(name)
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        return value if fits else None

    def object_or_none(self, name: str) -> JsonObject | None:
        """Return a field if it is an object, as a dict."""
        value = self._values.get(name)
        return value if isinstance(value, dict) else None


def each(value: object, parse: Callable[[Fields], T], path: str = "") -> tuple[T, ...]:
    """Return what ``parse`` makes of each object in a decoded list of them."""
    if not isinstance(value, list):
        raise FieldError("must be a list" if path else "the body must be a list", path)
    return tuple(parse(Fields(item, f"{path}[{index}]")) for index, item in enumerate(value))


def is_number(value: object) -> TypeIs[int | float]:
    """Return whether a decoded value is a number which a float can hold."""
    # The decoder refuses NaN and Infinity by name, but 1e999 is read as infinity, and a
    # whole number of 400 digits as one that no float can hold.
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) <= float_info.max
    )


def copied(value: T) -> T:
    """Return equal data that shares no list and no dict with it; it may be nested at will."""
    if not isinstance(value, (dict, list)):
        return value
    copy: Any = value.copy()
    todo = [copy]
    while todo:
        outer = todo.pop()
        for key, inner in outer.items() if isinstance(outer, dict) else enumerate(outer):
            if isinstance(inner, (dict, list)):
                outer[key] = inner.copy()  # (no key is new: the loop may go on)
                todo.append(outer[key])
    return copy  # type: ignore[no-any-return]


# --- refusals -------------------------------------------------------------------------


def error_body(code: str, message: str) -> JsonObject:
    """Return the body of a refusal."""
    return {"error": code, "message": message}


def parse_error(body: object) -> tuple[str | None, str | None]:
    """Return code and message of a refusal's body, each ``None`` where it has none."""
    if not isinstance(body, Mapping):
        return None, None
    fields = Fields(body)
    return fields.text_or_none("error"), fields.text_or_none("message")
