"""Encode and decode JSON text.

``msgspec`` is used where it is installed, and changes nothing but the speed: what the two
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
from typing import Any

try:
    import msgspec as _msgspec

    msgspec: Any = _msgspec
except ImportError:
    msgspec = None

__all__ = ["REFUSALS", "decode", "encode", "msgspec"]


def _json_form(value: Any) -> Any:
    """Return the JSON form of values that the standard library has none for."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, uuid.UUID):
        return str(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


_encoder = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_json_form
)
MAX_SEARCHED = 100_000
"""Values that are looked at to find the one that cannot be sent."""
MAX_PATH = 4000
"""Characters of the way to such a value: in data that contain themselves there is no end to it."""


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)
_quick_encoder: Any = None if msgspec is None else msgspec.json.Encoder()
_quick_decoder: Any = None if msgspec is None else msgspec.json.Decoder()
REFUSALS: tuple[type[Exception], ...] = (
    (ValueError, RecursionError)
    if msgspec is None
    else (ValueError, RecursionError, msgspec.MsgspecError)  # (before 0.23 it is no ValueError)
)
"""The errors by which a decoder of ``msgspec`` leaves text to the plain way."""
_SCALARS = frozenset((str, int, float, bool, type(None)))


def _plain_encode(value: Any, name: str = "data") -> str:
    try:
        text = _encoder.encode(value)
        text.isascii() or text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the {name} contains a lone surrogate, which UTF-8 cannot carry"
        ) from error
    except RecursionError:
        raise ValueError(f"the {name} is nested too deeply to be sent as JSON") from None
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        words = f"the {name} cannot be sent as JSON: {error}{_culprit(value, name)}"
        raise kind(words) from error
    return text


def _culprit(value: Any, name: str) -> str:
    """Say where in the data the value is that JSON has no form for, and what to do about it."""
    left = MAX_SEARCHED
    todo = [(name, value)]
    while todo and left > 0:
        left -= 1
        path, inner = todo.pop()
        if len(path) > MAX_PATH:
            continue
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


def encode(value: Any, name: str = "data") -> str:
    """Return ``value`` as JSON text that can be sent as UTF-8; errors call it by ``name``.

    Raises ``TypeError`` for what JSON has no form for, and ``ValueError`` for NaN
    and infinities, circular or too deeply nested data and lone surrogates.
    """
    if _quick_encoder is not None:
        try:
            if _is_exact(value):
                text: bytes = _quick_encoder.encode(value)
                if b"null" not in text:  # that may be a NaN
                    return text.decode()
        except (RuntimeError, ValueError, OverflowError):  # too deep, changed, no UTF-8, too large
            pass
    return _plain_encode(value, name)


def _is_exact(value: Any) -> bool:
    """Say whether data are of JSON's own types, and of no subclass: ``msgspec`` writes more."""
    kind = type(value)
    if kind is dict:
        for key in value:
            if type(key) is not str:
                return False
        inner = value.values()
    elif kind is list or kind is tuple:
        inner = value
    else:
        return kind in _SCALARS
    for each in inner:
        if type(each) in _SCALARS:
            continue
        if not _is_exact(each):
            return False
    return True


def decode(text: str | bytes) -> Any:
    """Return the value of JSON text, or of its UTF-8.

    Raises ``ValueError`` for what is not JSON (NaN and infinities are not), and
    ``RecursionError`` for what is nested too deeply.
    """
    if _quick_decoder is not None:
        try:
            return _quick_decoder.decode(text)
        except REFUSALS:  # 1e999, a lone surrogate, escaped: or no JSON
            pass
    return _plain_decode(text)
