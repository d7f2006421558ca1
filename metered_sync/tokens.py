"""Tokens for other people's clients, signed on your server."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from metered_sync.wire.tokens import Claims, sign_claims

__all__ = ["mint_token"]


def mint_token(
    key_id: str,
    secret: str,
    *,
    peer_id: str,
    channels: Iterable[str] | None = None,
    permissions: Iterable[str] | None = None,
    ttl: float = 3600,
    metadata: dict[str, Any] | None = None,
    peer_metadata: dict[str, Any] | None = None,
) -> str:
    """Sign a token that lets one peer connect; nothing is sent anywhere.

    Args:
        key_id: The pair's public id (``sk_id_…``).
        secret: The pair's secret (``sk_secret_…``). It stays here.
        peer_id: Who the bearer will be: 1 to 128 characters of printable ASCII.
        channels: Channel names or patterns (``*``, ``**``); at most 100, and within the
            key's own patterns. ``None`` grants all that the key has.
        permissions: Out of ``publish``, ``subscribe``, ``presence``, ``send``.
            ``None`` grants all that the key has. WebRTC needs ``send``.
        ttl: Seconds until the token expires.
        metadata: Handed to the bearer alone on connecting; at most 8 KB as JSON.
        peer_metadata: Shown to other peers; at most 4 KB as JSON.

    Returns:
        The token, to be given to a client.

    Raises:
        ValueError: A cap of the service is exceeded; nothing has been signed.
    """
    for name, value in (("key_id", key_id), ("secret", secret)):
        if not isinstance(value, str) or not value:
            raise ValueError(f"{name} must be a non-empty string (from the service's dashboard)")
    for name, names in (("channels", channels), ("permissions", permissions)):
        if isinstance(names, str):
            raise TypeError(f"{name} must be a list of strings, not one string")
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)) or not 0 < ttl < float("inf"):
        raise ValueError("ttl must be a positive number of seconds")
    now = time.time()
    claims = Claims(
        peer_id,
        now + ttl,
        None if channels is None else tuple(channels),
        None if permissions is None else tuple(permissions),
        metadata,
        peer_metadata,
    )
    return sign_claims(claims, key_id, secret, issued_at=now)
