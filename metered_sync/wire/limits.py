"""List the service's limits and its close codes.

Sources: docs/protocol/signalling.md#limits-and-quotas and
docs/protocol/signalling.md#close-codes.
"""

from __future__ import annotations

__all__ = [
    "ACTIONS",
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
