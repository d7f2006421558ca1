"""List the service's limits, its codes of refusals, and its close codes.

Sources: docs/protocol/signalling.md#limits-and-quotas,
docs/protocol/signalling.md#error-codes and docs/protocol/signalling.md#close-codes.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

__all__ = [
    "ACTIONS",
    "CLOSE_ABNORMAL",
    "CLOSE_ADMIN_DISCONNECT",
    "CLOSE_CHANNEL_NOT_AUTHORIZED",
    "CLOSE_GOING_AWAY",
    "CLOSE_INACTIVITY",
    "CLOSE_INVALID_TOKEN",
    "CLOSE_MESSAGE_RATE",
    "CLOSE_NORMAL",
    "CLOSE_OVER_LIMIT",
    "CLOSE_SUSPENDED",
    "CLOSE_TOKEN_EXPIRED",
    "CLOSE_TOO_BIG",
    "DEFAULT_TOKEN_TTL",
    "ErrorCode",
    "FREE_CONNECTIONS",
    "FREE_MESSAGES",
    "MAX_ATTEMPTS",
    "MAX_CHANNEL",
    "MAX_CHANNELS",
    "MAX_FRAME",
    "MAX_INBOUND_FRAME",
    "MAX_METADATA",
    "MAX_PEER_ID",
    "MAX_PEER_METADATA",
    "MAX_PERMISSIONS",
    "MAX_REQUEST_ID",
    "MAX_REST_BODY",
    "MAX_TOKEN_TTL",
    "MESSAGE_BURST",
    "MESSAGE_RATE",
    "RESERVED_PREFIXES",
    "TERMINAL_CLOSES",
    "WsCloseCode",
]

# Sizes, in bytes of UTF-8.
MAX_FRAME = 65536
MAX_INBOUND_FRAME = 1 << 20
"""The largest frame that a client accepts from the server."""
MAX_REST_BODY = 32768
MAX_CHANNEL = 256
MAX_PEER_ID = 128
MAX_REQUEST_ID = 128
MAX_METADATA = 8192
MAX_PEER_METADATA = 4096

# Counts.
MAX_CHANNELS = 100
"""Subscriptions of one connection, and entries of a token's ``channels``."""
MAX_PERMISSIONS = 16

# Lifetime of a token that the service signs, in seconds.
DEFAULT_TOKEN_TTL = 3600
MAX_TOKEN_TTL = 86400

# The token bucket of one connection: frames per second, and the burst.
MESSAGE_RATE = 100
MESSAGE_BURST = 200

MAX_ATTEMPTS = 60
"""Attempts to connect that one address may make in ``Timings.attempt_window``."""

# The free plan.
FREE_CONNECTIONS = 100
FREE_MESSAGES = 100_000

ACTIONS = ("publish", "subscribe", "presence", "send")
RESERVED_PREFIXES = ("_metered/", "_internal/", "_system/")

CLOSE_NORMAL = 1000
CLOSE_GOING_AWAY = 1001
CLOSE_ABNORMAL = 1006
"""It stands for a connection lost without a close frame (RFC 6455, 7.4.1)."""
CLOSE_TOO_BIG = 1009
CLOSE_INACTIVITY = 4000
CLOSE_INVALID_TOKEN = 4001
CLOSE_TOKEN_EXPIRED = 4002
CLOSE_CHANNEL_NOT_AUTHORIZED = 4003
CLOSE_OVER_LIMIT = 4010
CLOSE_MESSAGE_RATE = 4011
CLOSE_SUSPENDED = 4012
CLOSE_ADMIN_DISCONNECT = 4020

TERMINAL_CLOSES = {
    CLOSE_INVALID_TOKEN: "the key or token is not valid: check it",
    CLOSE_CHANNEL_NOT_AUTHORIZED: "the key or token does not cover the channel",
    CLOSE_SUSPENDED: "the account is suspended: see the service's dashboard",
    CLOSE_ADMIN_DISCONNECT: "an administrator disconnected this peer",
}
"""Close codes after which a client must not reconnect by itself, with what to tell its user."""

ErrorCode = Literal[
    "malformed_message",
    "unknown_type",
    "invalid_channel",
    "invalid_peer_id",
    "channel_not_authorized",
    "channel_reserved",
    "channel_limit_exceeded",
    "peer_not_found",
    "missing_data",
    "action_not_permitted",
    "over_message_quota",
    "backend_error",
    "internal_error",
]
"""The codes of refused requests that are known: a newer service may have others.

So ``ServerRequestError.code`` and ``ServerError.code`` are strings.
"""


class WsCloseCode(IntEnum):
    """The codes with which the service, or the client, closes a connection."""

    NORMAL = CLOSE_NORMAL
    """The client was closed."""
    GOING_AWAY = CLOSE_GOING_AWAY
    """The server restarts."""
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = CLOSE_TOO_BIG
    CLIENT_INACTIVITY = CLOSE_INACTIVITY
    """The client has heard nothing for ``inactivity_timeout``, and connects again."""
    INVALID_TOKEN = CLOSE_INVALID_TOKEN
    TOKEN_EXPIRED = CLOSE_TOKEN_EXPIRED
    CHANNEL_NOT_AUTHORIZED = CLOSE_CHANNEL_NOT_AUTHORIZED
    OVER_CONCURRENT_LIMIT = CLOSE_OVER_LIMIT
    """The plan's connections are used up."""
    OVER_MESSAGE_RATE = CLOSE_MESSAGE_RATE
    ACCOUNT_SUSPENDED = CLOSE_SUSPENDED
    ADMIN_DISCONNECT = CLOSE_ADMIN_DISCONNECT
    """An administrator, or :meth:`ControlPlane.disconnect`, has disconnected the peer."""
