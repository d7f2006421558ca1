"""Parse and build the frames that a client sends."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from metered_sync.wire.frames.text import MISSING, FrameError, fields_of, head
from metered_sync.wire.json_codec import encode
from metered_sync.wire.limits import MAX_REQUEST_ID
from metered_sync.wire.names import name_problem

__all__ = [
    "ClientFrame",
    "build_ping",
    "build_publish",
    "build_send",
    "build_subscribe",
    "build_unsubscribe",
    "parse_client_frame",
]


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
    kind, fields = fields_of(text)
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


def build_subscribe(
    channel: str, request_id: str | None = None, *, include_sender_metadata: bool = False
) -> str:
    """Return the text of a ``subscribe``."""
    fields = head("subscribe", request_id) | {"channel": channel}
    if include_sender_metadata:
        fields["includeSenderMetadata"] = True
    return encode(fields)


def build_unsubscribe(channel: str, request_id: str | None = None) -> str:
    """Return the text of an ``unsubscribe``."""
    return encode(head("unsubscribe", request_id) | {"channel": channel})


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
    return encode(head("ping", request_id))
