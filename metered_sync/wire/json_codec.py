"""Encode and decode JSON text.

``orjson`` is used where it is installed, and changes nothing but the speed: what the two
libraries see differently is left to the standard one.
"""

from __future__ import annotations

import enum
import json
import uuid
from typing import Any

try:
    import orjson as _orjson

    orjson: Any = _orjson
except ImportError:
    orjson = None

__all__ = ["decode", "encode"]


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
    except TypeError as error:
        raise TypeError(f"the data cannot be sent as JSON: {error}") from error
    except ValueError as error:
        raise ValueError(f"the data cannot be sent as JSON: {error}") from error
    return text


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
