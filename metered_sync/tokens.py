"""Sign tokens for other people's clients, on your server."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any

from metered_sync.wire.arguments import check_number, shown
from metered_sync.wire.names import is_reserved
from metered_sync.wire.secrets import check_key_pair, hides_arguments
from metered_sync.wire.tokens import Claims, sign_claims

__all__ = ["as_patterns", "as_texts", "check_ttl", "mint_token"]


@hides_arguments
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

    The service signs the same kind of token: :meth:`~metered_sync.ControlPlane.mint_token`.
    Whether the key covers what the token asks for is judged when the peer connects.

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
    check_key_pair("mint_token", key_id, secret)
    now = time.time()
    claims = Claims(
        peer_id,
        now + check_ttl(ttl),
        as_patterns(channels),
        as_texts("permissions", permissions),
        metadata,
        peer_metadata,
    )
    return sign_claims(claims, key_id, secret, issued_at=now)


def check_ttl(ttl: float, low: float = 0.0, high: float = math.inf) -> float:
    """Return a token's lifetime; ``ValueError`` where it is not a possible one."""
    return check_number("ttl", ttl, low, high, above=low == 0, unit="seconds")


def as_texts(name: str, values: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return a list of strings as a tuple; one string would be taken for its letters."""
    if isinstance(values, (str, bytes)) or not isinstance(values, (Iterable, type(None))):
        remedy = f": write [{shown(values)}]" if isinstance(values, str) else ""
        raise TypeError(f"{name} must be a list of strings, not {type(values).__name__}{remedy}")
    return None if values is None else tuple(values)


def as_patterns(channels: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return names and patterns as a tuple; ``ValueError`` for one that can grant nothing."""
    patterns = as_texts("channels", channels)
    for pattern in patterns or ():
        if pattern == "":
            raise ValueError("channels contains an empty string, which is no channel's name")
        if isinstance(pattern, str) and is_reserved(pattern):
            raise ValueError(
                f"channels contains {shown(pattern)}, whose prefix the service reserves for itself"
            )
    return patterns
