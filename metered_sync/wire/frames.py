"""Parse and build the frames of Realtime Messaging: JSON text in, frozen values out, and back.

Each frame is one JSON object with a string ``type``. ``parse_server_frame`` is the
client's side, ``parse_client_frame`` the server's; the ``build_…`` functions make what
the other side parses. Sources: docs/protocol/signalling.md#frames-from-the-server and
docs/protocol/signalling.md#frames-from-a-client.

What cannot be parsed raises :class:`FrameError` and nothing else. It carries
the code that the server answers with, and the request's id where there is one.

Messages and presence are parsed into the events that users get.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from metered_sync.wire.events import Direct, Message, Presence, PresencePeer
from metered_sync.wire.fields import FieldError, Fields, is_number
from metered_sync.wire.json_codec import decode, encode
from metered_sync.wire.limits import MAX_REQUEST_ID
from metered_sync.wire.names import name_problem
from metered_sync.wire.secrets import scrubbed_cause

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
    "parse_client_frame",
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


def _object(text: str | bytes) -> tuple[str, dict[str, Any]]:
    """Return the type and the fields of a frame."""
    try:
        value = decode(text)
    except (ValueError, RecursionError) as error:
        raise FrameError("not JSON") from scrubbed_cause(error)
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


def _peer(entry: Fields) -> PresencePeer:
    return PresencePeer(entry.text("peerId"), entry.object_or_none("metadata"))


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
        metadata = fields.get("fromMetadata")
        values["sender_metadata"] = metadata if isinstance(metadata, dict) else None
        values["frame_size"] = len(text)
        return message
    try:
        frame = _read(kind, Fields(fields))
    except FieldError as error:
        raise FrameError(f"{kind}: {error}") from None
    return frame.sized(len(text)) if isinstance(frame, Direct | Presence) else frame


def _read(kind: str, fields: Fields) -> ServerFrame | None:
    if kind == "direct":
        if "data" not in fields:
            raise fields.error("data", "is missing")
        sender = fields.text("from")
        # Metadata that is not an object counts as absent (both published clients).
        return Direct(sender, fields.get("data"), fields.object_or_none("fromMetadata"))
    if kind == "ack":
        return Ack(fields.text("requestId"))
    if kind == "presence":
        return Presence(
            fields.text("channel"), fields.each("joined", _peer), fields.each("left", _peer)
        )
    if kind == "error":
        return ErrorFrame(
            fields.filled("code"), fields.text_or_none("message"), fields.text_or_none("requestId")
        )
    if kind == "pong":
        return Pong(fields.text_or_none("requestId"))
    if kind == "going_away":
        delay = fields.get("retryAfterMs")
        return GoingAwayFrame(int(delay) if is_number(delay) and delay >= 0 else None)
    if kind == "welcome":
        size = fields.number("maxMessageSize")
        if size <= 0:
            raise fields.error("maxMessageSize", "must be a positive number")
        return Welcome(
            fields.text("peerId"),
            fields.optional_number("expiresAt"),
            fields.number("serverTime"),
            int(size),
            fields.object_or_none("metadata"),
        )
    return None


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
