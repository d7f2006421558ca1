"""Parse and build the frames that a server sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from metered_sync.wire.events import Direct, Message, Presence, PresencePeer, sized
from metered_sync.wire.fields import FieldError, Fields, is_number
from metered_sync.wire.frames import bulk
from metered_sync.wire.frames.text import FrameError, fields_of, head
from metered_sync.wire.json_codec import REFUSALS, encode

__all__ = [
    "Ack",
    "ErrorFrame",
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
    "build_pong",
    "build_presence",
    "build_welcome",
    "parse_server_frame",
]


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
    if bulk.decoder is not None:
        try:
            return bulk.decoder.decode(text).event(len(text))  # type: ignore[no-any-return]
        except REFUSALS:  # a rare frame, an odd one, or none
            pass
    kind, fields = fields_of(text)
    if kind == "message":
        channel, sender = fields.get("channel"), fields.get("from")
        if not (isinstance(channel, str) and isinstance(sender, str) and "data" in fields):
            raise FrameError('message: "channel" or "from" is not a string, or "data" is missing')
        metadata = fields.get("fromMetadata")
        metadata = metadata if isinstance(metadata, dict) else None
        return bulk.make_message(channel, sender, fields["data"], metadata, len(text))
    try:
        frame = _read(kind, Fields(fields))
    except FieldError as error:
        raise FrameError(f"{kind}: {error}") from None
    return sized(frame, len(text)) if isinstance(frame, Direct | Presence) else frame


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
    return encode(head("pong", request_id))
