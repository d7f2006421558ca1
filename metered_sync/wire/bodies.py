"""What the JSON bodies of the REST calls share: reading decoded JSON, field by field.

Whoever receives a body checks what it uses and ignores the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from sys import float_info
from typing import Any

__all__ = [
    "BodyError",
    "error_body",
    "flag",
    "json_object",
    "number",
    "optional_object",
    "optional_text",
    "optional_whole",
    "parse_error",
    "text",
    "whole",
]

JsonObject = dict[str, Any]


class BodyError(ValueError):
    """A JSON body is not what its call takes or answers; the message names the field."""


def json_object(value: object, where: str = "the body") -> JsonObject:
    """Return ``value`` if it is a JSON object."""
    if not isinstance(value, dict):
        raise BodyError(f"{where} is not an object")
    return value


def text(fields: Mapping[str, Any], name: str) -> str:
    """Return a field that must be a string."""
    value = fields.get(name)
    if not isinstance(value, str):
        raise BodyError(f'"{name}" is not a string')
    return value


def optional_text(fields: Mapping[str, Any], name: str) -> str | None:
    """Return a field that may be a string, ``null`` or missing."""
    return None if fields.get(name) is None else text(fields, name)


def number(fields: Mapping[str, Any], name: str) -> float:
    """Return a field that must be a number."""
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BodyError(f'"{name}" is not a number')
    if not abs(value) <= float_info.max:  # (JSON has no bounds, and NaN compares with nothing)
        raise BodyError(f'"{name}" is not a number that can be used')
    return value


def whole(fields: Mapping[str, Any], name: str) -> int:
    """Return a field that must be a whole number."""
    value = fields.get(name)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BodyError(f'"{name}" is not a whole number')
    return value


def optional_whole(fields: Mapping[str, Any], name: str) -> int | None:
    """Return a field that may be a whole number, ``null`` or missing."""
    return None if fields.get(name) is None else whole(fields, name)


def flag(fields: Mapping[str, Any], name: str) -> bool:
    """Return a field that must be ``true`` or ``false``."""
    value = fields.get(name)
    if not isinstance(value, bool):
        raise BodyError(f'"{name}" is not a boolean')
    return value


def optional_object(fields: Mapping[str, Any], name: str) -> JsonObject | None:
    """Return a field that may be an object, ``null`` or missing."""
    value = fields.get(name)
    return None if value is None else json_object(value, f'"{name}"')


def error_body(code: str, message: str) -> JsonObject:
    """Return the body of a refusal."""
    return {"error": code, "message": message}


def parse_error(body: object) -> tuple[str | None, str | None]:
    """Return code and message of a refusal's body, each ``None`` where it has none."""
    fields = body if isinstance(body, dict) else {}
    code, message = fields.get("error"), fields.get("message")
    return (
        code if isinstance(code, str) else None,
        message if isinstance(message, str) else None,
    )
