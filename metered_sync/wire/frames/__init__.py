"""Parse and build the frames of Realtime Messaging: JSON text in, frozen values out, and back.

======= =========================================================================
server  the frames that a server sends
client  the frames that a client sends
bulk    those of a server that come in bulk, decoded by their types
text    a frame's text, its type and its fields; what is wrong with it
======= =========================================================================

Each frame is one JSON object with a string ``type``. ``parse_server_frame`` is the
client's side, ``parse_client_frame`` the server's; the ``build_…`` functions make what
the other side parses. Sources: docs/protocol/signalling.md#frames-from-the-server and
docs/protocol/signalling.md#frames-from-a-client.

What cannot be parsed raises :class:`FrameError` and nothing else. It carries
the code that the server answers with, and the request's id where there is one.

Messages and presence are parsed into the events that users get.
"""

from __future__ import annotations

from metered_sync.wire.frames.client import (
    ClientFrame,
    build_ping,
    build_publish,
    build_send,
    build_subscribe,
    build_unsubscribe,
    parse_client_frame,
)
from metered_sync.wire.frames.server import (
    Ack,
    ErrorFrame,
    GoingAwayFrame,
    Pong,
    ServerFrame,
    Welcome,
    acknowledged,
    build_ack,
    build_direct,
    build_error,
    build_going_away,
    build_message,
    build_pong,
    build_presence,
    build_welcome,
    parse_server_frame,
)
from metered_sync.wire.frames.text import MISSING, FrameError

__all__ = [
    "Ack",
    "ClientFrame",
    "ErrorFrame",
    "FrameError",
    "GoingAwayFrame",
    "MISSING",
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
