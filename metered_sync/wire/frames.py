"""Parse and build the frames of Realtime Messaging: JSON text in, frozen values out, and back.

Each frame is one JSON object with a string ``type``. ``parse_server_frame`` is the
client's side, ``parse_client_frame`` the server's; the ``build_…`` functions make what
the other side parses. Sources: docs/protocol/signalling.md#frames-from-the-server and
docs/protocol/signalling.md#frames-from-a-client.

What cannot be parsed raises :class:`FrameError` and nothing else. It carries
the code that the server answers with, and the request's id where there is one.

Messages and presence are parsed into the events that users get. ``orjson`` is used
where it is installed, and changes nothing but the speed: what the two libraries
see differently is left to the standard one.
"""

from __future__ import annotations

import enum
import json
import sys
import uuid
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from metered_sync.wire.events import Direct, IceServer, Message, Presence, PresencePeer
from metered_sync.wire.limits import MAX_REQUEST_ID
from metered_sync.wire.names import name_problem

try:
    import orjson as _orjson

    orjson: Any = _orjson
except ImportError:
    orjson = None

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = [
    "MISSING",
    "Ack",
    "ClientFrame",
    "ErrorFrame",
    "FrameError",
    "GoingAwayFrame",
    "Pong",
    "ServerFrame",
    "Welcome",
    "acknowledged",
    "build_ack",
    "build_direct",
    "build_error",
    "build_going_away",
    "build_message",
    "build_ping",
    "build_pong",
    "build_presence",
    "build_publish",
    "build_send",
    "build_subscribe",
    "build_unsubscribe",
    "build_welcome",
    "encode",
    "is_number",
    "parse_client_frame",
    "parse_ice_servers",
    "parse_server_frame",
]


class FrameError(ValueError):
    """A frame cannot be understood; it has the code that the server answers with."""

    def __init__(
        self, message: str, code: str = "malformed_message", request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id


MISSING: Final = object()
"""The value of a key that a frame does not have; ``null`` would be one."""

# --- JSON -----------------------------------------------------------------------------


def _also(value: Any) -> Any:
    """What ``orjson`` writes by itself, lest it make a difference."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, uuid.UUID):
        return str(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


_encoder = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_also
)
_AS_JSON_DOES = (
    0
    if orjson is None
    else orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_DIGITS = bytes(0x30 if chr(byte).isdecimal() and byte < 0x80 else 0x20 for byte in range(256))
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
            text: bytes = orjson.dumps(value, option=_AS_JSON_DOES)
        except TypeError:  # keys that are no strings, subclasses, large numbers: or no JSON
            pass
        else:
            if b"null" not in text:  # that may be a NaN
                return text.decode()
    return _plain_encode(value)


def _decode(text: str | bytes) -> Any:
    if orjson is not None:
        raw = text.encode() if isinstance(text, str) else text
        if _LONG_NUMBER not in raw.translate(_DIGITS):
            try:
                return orjson.loads(raw)
            except ValueError:  # a lone surrogate, escaped: or no JSON
                pass
    return _plain_decode(text)


def _object(text: str | bytes) -> tuple[str, dict[str, Any]]:
    """Return the type and the fields of a frame."""
    try:
        value = _decode(text)
    except (ValueError, RecursionError):
        raise FrameError("not JSON") from None
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str):
        raise FrameError('not a JSON object with a string "type"')
    return kind, value


# --- server to client -----------------------------------------------------------------


@dataclass(frozen=True)
class Welcome:
    """The first frame of a connection."""

    peer_id: str
    expires_at: float | None
    server_time: float
    max_message_size: int
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True)
class Ack:
    """A request was carried out."""

    request_id: str


@dataclass(frozen=True)
class ErrorFrame:
    """A request was refused, or something else went wrong."""

    code: str
    message: str | None = None
    request_id: str | None = None


@dataclass(frozen=True)
class GoingAwayFrame:
    """The server will close this connection."""

    retry_after_ms: int | None


@dataclass(frozen=True)
class Pong:
    """The answer to a ping."""

    request_id: str | None = None


ServerFrame = Welcome | Ack | ErrorFrame | Message | Direct | Presence | GoingAwayFrame | Pong


def is_number(value: Any) -> TypeIs[int | float]:
    """Whether a value that JSON gave is a number, and one that a float can hold."""
    # The decoder refuses NaN and Infinity by name, but 1e999 is read as infinity, and a
    # whole number of 400 digits as one that no float can hold.
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max
    )


def _text(fields: dict[str, Any], name: str, kind: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise FrameError(f'{kind}: "{name}" is not a string')
    return value


def _optional_text(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) else None


def _metadata(fields: dict[str, Any], name: str) -> dict[str, Any] | None:
    # Metadata that is not an object counts as absent (both published clients).
    value = fields.get(name)
    return value if isinstance(value, dict) else None


def _peers(fields: dict[str, Any], name: str) -> tuple[PresencePeer, ...]:
    entries = fields.get(name)
    if not isinstance(entries, list):
        raise FrameError(f'presence: "{name}" is not a list')
    peers = []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("peerId"), str):
            raise FrameError(f'presence: an entry of "{name}" has no "peerId"')
        peers.append(PresencePeer(entry["peerId"], _metadata(entry, "metadata")))
    return tuple(peers)


_new = object.__new__
_ACK, _ACK_END = b'{"type":"ack","requestId":"', b'"}'


def acknowledged(text: bytes) -> str:
    """Return the id of the request that a frame acknowledges, in the usual spelling.

    Anything else gives an id that nobody would choose, or ``""``. So a caller that finds the id
    among its own need not parse the frame.
    """
    if text.startswith(_ACK) and text.endswith(_ACK_END):
        return text[len(_ACK) : -len(_ACK_END)].decode("utf-8", "replace")
    return ""


def parse_server_frame(text: str | bytes) -> ServerFrame | None:
    """Return the frame that a server sent; ``None`` for a type this library does not know.

    ``text`` may be UTF-8. Binary frames are not for this function.
    """
    kind, fields = _object(text)
    if kind == "message":
        channel, sender = fields.get("channel"), fields.get("from")
        if not (isinstance(channel, str) and isinstance(sender, str) and "data" in fields):
            raise FrameError('message: "channel" or "from" is not a string, or "data" is missing')
        # In place of Message(...): a frozen dataclass takes twice as long to make the usual way.
        message = _new(Message)
        values = message.__dict__
        values["channel"] = channel
        values["sender_peer_id"] = sender
        values["data"] = fields["data"]
        values["sender_metadata"] = _metadata(fields, "fromMetadata")
        return message
    if kind == "direct":
        if "data" not in fields:
            raise FrameError('direct: "data" is missing')
        sender = _text(fields, "from", kind)
        return Direct(sender, fields["data"], _metadata(fields, "fromMetadata"))
    if kind == "ack":
        return Ack(_text(fields, "requestId", kind))
    if kind == "presence":
        channel = _text(fields, "channel", kind)
        return Presence(channel, _peers(fields, "joined"), _peers(fields, "left"))
    if kind == "error":
        code = _text(fields, "code", kind)
        if not code:
            raise FrameError('error: "code" is empty')
        return ErrorFrame(
            code, _optional_text(fields, "message"), _optional_text(fields, "requestId")
        )
    if kind == "pong":
        return Pong(_optional_text(fields, "requestId"))
    if kind == "going_away":
        delay = fields.get("retryAfterMs")
        return GoingAwayFrame(int(delay) if is_number(delay) and delay >= 0 else None)
    if kind == "welcome":
        return _welcome(fields)
    return None


def _welcome(fields: dict[str, Any]) -> Welcome:
    peer_id = _text(fields, "peerId", "welcome")
    expires_at, server_time = fields.get("expiresAt"), fields.get("serverTime")
    size = fields.get("maxMessageSize")
    if expires_at is not None and not is_number(expires_at):
        raise FrameError('welcome: "expiresAt" is neither a number nor null')
    if not is_number(server_time):
        raise FrameError('welcome: "serverTime" is not a number')
    if not is_number(size) or size <= 0:
        raise FrameError('welcome: "maxMessageSize" is not a positive number')
    return Welcome(peer_id, expires_at, server_time, int(size), _metadata(fields, "metadata"))


def parse_ice_servers(metadata: dict[str, Any] | None) -> tuple[IceServer, ...] | None:
    """Return ``iceServers`` of a welcome's metadata; ``None`` where there is no valid list.

    One bad entry drops the whole list (both published clients): at most 16 entries,
    addresses of 1 to 512 characters, credentials of at most 1,024.
    """
    entries = (metadata or {}).get("iceServers")
    if not isinstance(entries, list) or len(entries) > 16:
        return None
    servers = []
    for entry in entries:
        if not isinstance(entry, dict):
            return None
        urls = entry.get("urls")
        urls = [urls] if isinstance(urls, str) else urls
        username, credential = entry.get("username"), entry.get("credential")
        if not isinstance(urls, list) or not urls:
            return None
        for url in urls:
            schemes = ("stun:", "stuns:", "turn:", "turns:")
            if not isinstance(url, str) or len(url) > 512 or not url.startswith(schemes):
                return None
        for secret in (username, credential):
            if secret is not None and not (isinstance(secret, str) and len(secret) <= 1024):
                return None
        servers.append(IceServer(tuple(urls), username, credential))
    return tuple(servers)


def build_welcome(frame: Welcome) -> str:
    """Return the text of a ``welcome``."""
    fields: dict[str, Any] = {
        "type": "welcome",
        "peerId": frame.peer_id,
        "expiresAt": frame.expires_at,
        "serverTime": frame.server_time,
        "maxMessageSize": frame.max_message_size,
    }
    if frame.metadata is not None:
        fields["metadata"] = frame.metadata
    return encode(fields)


def build_ack(request_id: str) -> str:
    """Return the text of an ``ack``."""
    return encode({"type": "ack", "requestId": request_id})


def build_error(code: str, message: str | None = None, request_id: str | None = None) -> str:
    """Return the text of an ``error``."""
    fields: dict[str, Any] = {"type": "error"}
    if request_id is not None:
        fields["requestId"] = request_id
    fields["code"] = code
    if message is not None:
        fields["message"] = message
    return encode(fields)


def build_message(
    channel: str, sender: str, data: Any, metadata: dict[str, Any] | None = None
) -> str:
    """Return the text of a ``message``."""
    fields = {"type": "message", "channel": channel, "from": sender, "data": data}
    if metadata is not None:
        fields["fromMetadata"] = metadata
    return encode(fields)


def build_direct(sender: str, data: Any, metadata: dict[str, Any] | None = None) -> str:
    """Return the text of a ``direct``."""
    fields = {"type": "direct", "from": sender, "data": data}
    if metadata is not None:
        fields["fromMetadata"] = metadata
    return encode(fields)


def _entries(peers: tuple[PresencePeer, ...]) -> list[dict[str, Any]]:
    return [
        {"peerId": peer.peer_id}
        if peer.metadata is None
        else {"peerId": peer.peer_id, "metadata": peer.metadata}
        for peer in peers
    ]


def build_presence(
    channel: str, joined: tuple[PresencePeer, ...] = (), left: tuple[PresencePeer, ...] = ()
) -> str:
    """Return the text of a ``presence``; both lists are always there, clients insist on it."""
    return encode(
        {
            "type": "presence",
            "channel": channel,
            "joined": _entries(joined),
            "left": _entries(left),
        }
    )


def build_going_away(retry_after_ms: int) -> str:
    """Return the text of a ``going_away``."""
    return encode({"type": "going_away", "retryAfterMs": retry_after_ms})


def build_pong(request_id: str | None = None) -> str:
    """Return the text of a ``pong``, with the ping's id where it had one."""
    return encode({"type": "pong"} if request_id is None else _request("pong", request_id))


# --- client to server -----------------------------------------------------------------


@dataclass(frozen=True)
class ClientFrame:
    """A client's request. Fields that its type does not have keep their defaults."""

    type: str
    request_id: str | None = None
    channel: Any = MISSING
    to: Any = MISSING
    data: Any = MISSING
    include_sender_metadata: bool = False


_CLIENT_TYPES = frozenset(("subscribe", "unsubscribe", "publish", "send", "ping"))


def parse_client_frame(text: str | bytes) -> ClientFrame:
    """Return the request that a client sent.

    Checks the JSON, the type and the request's id; what depends on the
    connection's rights (channel, action, data) is the server's to check, in the
    order that the protocol fixes.
    """
    kind, fields = _object(text)
    request_id = fields.get("requestId")
    problem = None if request_id is None else name_problem(request_id, MAX_REQUEST_ID)
    if kind not in _CLIENT_TYPES:
        request_id = request_id if problem is None else None
        raise FrameError(f"unknown type {kind[:40]!a}", "unknown_type", request_id)
    if problem is not None:
        raise FrameError(f'"requestId" {problem}')
    return ClientFrame(
        kind,
        request_id,
        fields.get("channel", MISSING),
        fields.get("to", MISSING),
        fields.get("data", MISSING),
        fields.get("includeSenderMetadata") is True,
    )


def _request(kind: str, request_id: str | None) -> dict[str, Any]:
    return {"type": kind} if request_id is None else {"type": kind, "requestId": request_id}


def build_subscribe(
    channel: str, request_id: str | None = None, *, include_sender_metadata: bool = False
) -> str:
    """Return the text of a ``subscribe``."""
    fields = _request("subscribe", request_id) | {"channel": channel}
    if include_sender_metadata:
        fields["includeSenderMetadata"] = True
    return encode(fields)


def build_unsubscribe(channel: str, request_id: str | None = None) -> str:
    """Return the text of an ``unsubscribe``."""
    return encode(_request("unsubscribe", request_id) | {"channel": channel})


@lru_cache(maxsize=1024)
def _quoted(name: str) -> str:
    return encode(name)


def _with_data(kind: str, field: str, name: str, data: Any, request_id: str | None) -> str:
    # Put together by hand: nearly all frames of a busy client are made here.
    request = "" if request_id is None else f'"requestId":{encode(request_id)},'
    return f'{{"type":"{kind}",{request}"{field}":{_quoted(name)},"data":{encode(data)}}}'


def build_publish(channel: str, data: Any, request_id: str | None = None) -> str:
    """Return the text of a ``publish``."""
    return _with_data("publish", "channel", channel, data, request_id)


def build_send(to: str, data: Any, request_id: str | None = None) -> str:
    """Return the text of a ``send``."""
    return _with_data("send", "to", to, data, request_id)


def build_ping(request_id: str | None = None) -> str:
    """Return the text of a ``ping``."""
    return encode(_request("ping", request_id))
