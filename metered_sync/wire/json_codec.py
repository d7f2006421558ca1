"""Encode and decode JSON text.

``orjson`` is used where it is installed, and changes nothing but the speed: what the two
libraries see differently is left to the standard one.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import math
import uuid
from collections.abc import Iterator, Set
from typing import Any, TypeVar

try:
    import orjson as _orjson

    orjson: Any = _orjson
except ImportError:
    orjson = None

__all__ = ["copied", "decode", "encode"]

T = TypeVar("T")


def _json_form(value: Any) -> Any:
    """Return the JSON form of what ``orjson`` writes by itself, lest it make a difference."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, uuid.UUID):
        return str(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


_encoder = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_json_form
)
_LIKE_JSON = (
    0
    if orjson is None
    else orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
MAX_SEARCHED = 100_000
"""Values that are looked at to find the one that cannot be sent."""
_DIGIT_MASK = bytes(0x30 if chr(byte).isdecimal() and byte < 0x80 else 0x20 for byte in range(256))
_LONG_NUMBER = b"0" * 19
"""A whole number that may not fit into 64 bits: ``orjson`` would make it a float."""


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)


def _plain_encode(value: Any) -> str:
    try:
        text = _encoder.encode(value)
        text.isascii() or text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("the data contains a lone surrogate, which UTF-8 cannot carry") from error
    except RecursionError:
        raise ValueError("the data is nested too deeply to be sent as JSON") from None
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        words = f"the data cannot be sent as JSON: {error}{_culprit(value)}"
        raise kind(words) from error
    return text


def _culprit(value: Any) -> str:
    """Say where in the data the value is that JSON has no form for, and what to do about it."""
    left = MAX_SEARCHED
    todo = [("data", value)]
    while todo and left > 0:
        left -= 1
        path, inner = todo.pop()
        if isinstance(inner, float):
            if not math.isfinite(inner):
                return f" (at {path}: JSON has no NaN and no infinity; send None, or a text)"
        elif isinstance(inner, dict):
            for key in inner:
                if not isinstance(key, (str, int, float, bool, type(None))):
                    return f" (a key of {path} is a {type(key).__name__}: make it a text)"
            todo += [(f"{path}[{_shown(key)}]", each) for key, each in reversed(inner.items())]
        elif isinstance(inner, (list, tuple)):
            some = list(enumerate(inner[:left]))
            todo += [(f"{path}[{at}]", each) for at, each in reversed(some)]
        elif not isinstance(inner, (str, int, type(None))):
            try:
                _json_form(inner)
            except TypeError:
                return f" (at {path}: {_remedy(inner)})"
    return ""


def _shown(key: object) -> str:
    text = repr(key)
    return text if len(text) <= 40 else f"{text[:37]}…"


def _remedy(value: Any) -> str:
    """Say how a value that JSON has no form for can be sent."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "base64.b64encode(…).decode() makes text of it, and a data channel takes bytes"
    if isinstance(value, (datetime.date, datetime.time)):
        return "send .isoformat(), or .timestamp()"
    if hasattr(value, "tolist"):  # numpy's arrays and numbers, pandas' series
        return "send .tolist(); large arrays as bytes on a data channel"
    if dataclasses.is_dataclass(value):
        return "send dataclasses.asdict(…)"
    if isinstance(value, (Set, Iterator)):
        return "send list(…)"
    return "send text, numbers, True, False, None, lists and dicts of these; str(…) makes a text"


def _plain_decode(text: str | bytes) -> Any:
    if not isinstance(text, str):
        text = text.decode()
    try:
        value, end = _decoder.raw_decode(text)
    except ValueError:
        end = -1
    # (The public way looks for white space on both sides, which takes as long again.)
    return value if end == len(text) else _decoder.decode(text)


def encode(value: Any) -> str:
    """Return ``value`` as JSON text that can be sent as UTF-8.

    Raises ``TypeError`` for what JSON has no form for, and ``ValueError`` for NaN
    and infinities, circular or too deeply nested data and lone surrogates.
    """
    if orjson is not None:
        try:
            text: bytes = orjson.dumps(value, option=_LIKE_JSON)
        except TypeError:  # keys that are no strings, subclasses, large numbers: or no JSON
            pass
        else:
            if b"null" not in text:  # that may be a NaN
                return text.decode()
    return _plain_encode(value)


def decode(text: str | bytes) -> Any:
    """Return the value of JSON text, or of its UTF-8.

    Raises ``ValueError`` for what is not JSON (NaN and infinities are not), and
    ``RecursionError`` for what is nested too deeply.
    """
    if orjson is not None:
        raw = text.encode() if isinstance(text, str) else text
        if _LONG_NUMBER not in raw.translate(_DIGIT_MASK):
            try:
                return orjson.loads(raw)
            except ValueError:  # a lone surrogate, escaped: or no JSON
                pass
    return _plain_decode(text)


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
