"""Decode the frames that a server sends in bulk by their types, where ``msgspec`` is installed.

The decoder checks in one go what is checked by hand elsewhere: the JSON, the type, the fields. It
takes nothing that is refused there, and makes the same of what it takes; what it refuses is left
to the plain way, which says why, or knows better.
"""

from __future__ import annotations

import types
from typing import Any

from metered_sync.wire.events import Direct, Message, Presence, PresencePeer, sized
from metered_sync.wire.json_codec import msgspec

__all__ = ["decoder", "make_message"]

_new = object.__new__
_Object: Any = dict[str, Any] | None


def make_message(
    channel: str, sender: str, data: Any, metadata: dict[str, Any] | None, size: int
) -> Message:
    """Return a message, of a frame of so many bytes."""
    # In place of Message(...): a frozen dataclass takes twice as long to make the usual way.
    message = _new(Message)
    values = message.__dict__
    values["channel"] = channel
    values["sender_peer_id"] = sender
    values["data"] = data
    values["sender_metadata"] = metadata
    values["frame_size"] = size
    return message


def _message(frame: Any, size: int) -> Message:
    return make_message(frame.channel, frame.sender, frame.data, frame.metadata, size)


def _direct(frame: Any, size: int) -> Direct:
    return sized(Direct(frame.sender, frame.data, frame.metadata), size)


def _presence(frame: Any, size: int) -> Presence:
    return sized(Presence(frame.channel, _members(frame.joined), _members(frame.left)), size)


def _members(entries: list[Any]) -> tuple[PresencePeer, ...]:
    return tuple(PresencePeer(entry.peerId, entry.metadata) for entry in entries)


def _struct(name: str, *fields: tuple[Any, ...], **options: Any) -> Any:
    # It would pass over unknown fields, and over what is no JSON in them.
    return msgspec.defstruct(name, fields, forbid_unknown_fields=True, gc=False, **options)


def _frame(kind: str, event: Any, *fields: tuple[Any, ...]) -> Any:
    return _struct(kind, *fields, tag=kind, namespace={"event": event})


def _make_decoder() -> Any:
    field, channel, data = msgspec.field, ("channel", str), ("data", Any)
    sender = ("sender", str, field(name="from"))
    metadata = ("metadata", _Object, field(name="fromMetadata", default=None))
    member: Any = _struct("member", ("peerId", str), ("metadata", _Object, None))
    members = types.GenericAlias(list, (member,))
    message = _frame("message", _message, channel, sender, data, metadata)
    direct = _frame("direct", _direct, sender, data, metadata)
    presence = _frame("presence", _presence, channel, ("joined", members), ("left", members))
    return msgspec.json.Decoder(message | direct | presence)


decoder: Any = None if msgspec is None else _make_decoder()
"""``decode(text).event(size)`` is the event; ``REFUSALS``: that is not for it."""
