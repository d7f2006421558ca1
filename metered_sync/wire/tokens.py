"""Sign and read tokens: claims that let a peer connect.

A token is a JWT, signed with HMAC-SHA256 over the bytes of an ``sk_secret_…``
string; its header names the key pair's public id (``kid``).
Source: docs/protocol/signalling.md#tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from metered_sync.wire.arguments import shown
from metered_sync.wire.fields import is_number
from metered_sync.wire.json_codec import encode
from metered_sync.wire.limits import (
    ACTIONS,
    MAX_CHANNELS,
    MAX_METADATA,
    MAX_PEER_METADATA,
    MAX_PERMISSIONS,
)
from metered_sync.wire.names import covers_any, matches_any, peer_id_problem, utf8_size
from metered_sync.wire.secrets import scrubbed_cause

__all__ = [
    "Claims",
    "Grant",
    "check_claims",
    "key_id",
    "object_problem",
    "parse_claims",
    "sign_claims",
]


@dataclass(frozen=True)
class Claims:
    """The claims of a token: whose it is, until when, and what it grants."""

    peer_id: str
    expires_at: float
    """Unix seconds."""
    channels: tuple[str, ...] | None = None
    """Names and patterns; ``None`` inherits the key's, ``()`` grants none."""
    permissions: tuple[str, ...] | None = None
    metadata: dict[str, Any] | None = None
    """Handed to the connecting peer alone, in its welcome."""
    peer_metadata: dict[str, Any] | None = None
    """Shown to other peers."""
    not_before: float | None = None
    """Unix seconds before which it does not count yet; this library never sets them."""


@dataclass(frozen=True)
class Grant:
    """The rights of a connection: its key's, narrowed by its token's."""

    patterns: tuple[tuple[str, ...], ...] = (("**",),)
    """A channel must match at least one pattern of every group."""
    actions: frozenset[str] = frozenset(ACTIONS)

    def covers(self, channel: str) -> bool:
        """Return whether the connection may use the channel."""
        return all(matches_any(group, channel) for group in self.patterns)

    def covers_pattern(self, pattern: str) -> bool:
        """Return whether the connection may use every channel of a pattern."""
        return all(covers_any(group, pattern) for group in self.patterns)

    def narrowed(self, claims: Claims) -> Grant:
        """Return what is left of a key's rights under a token's claims."""
        patterns, actions = self.patterns, self.actions
        if claims.channels is not None:
            patterns += (claims.channels,)
        if claims.permissions is not None:
            actions &= frozenset(claims.permissions)
        return Grant(patterns, actions)


def object_problem(name: str, value: object, cap: int) -> str | None:
    """Say what is wrong with metadata of at most ``cap`` bytes of JSON, or return ``None``."""
    if value is None:
        return None
    if not isinstance(value, dict):
        return f"{name} is not a mapping"
    size = utf8_size(encode(value, name))
    return f"{name} is {size} bytes of JSON; the limit is {cap}" if size > cap else None


def _texts_problem(name: str, value: object, cap: int) -> str | None:
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
        return f"{name} is not a list of strings"
    return f"{name} has {len(value)} entries; the limit is {cap}" if len(value) > cap else None


def check_claims(claims: Claims) -> Claims:
    """Return the claims; ``ValueError`` where a cap of the service is exceeded."""
    problem = (
        (f"the peer id {p}" if (p := peer_id_problem(claims.peer_id)) else None)
        or _texts_problem("channels", claims.channels, MAX_CHANNELS)
        or _texts_problem("permissions", claims.permissions, MAX_PERMISSIONS)
        or object_problem("metadata", claims.metadata, MAX_METADATA)
        or object_problem("peer_metadata", claims.peer_metadata, MAX_PEER_METADATA)
    )
    if problem is None:
        unknown = set(claims.permissions or ()) - set(ACTIONS)
        if not unknown:
            return claims
        problem = f"permissions has {shown(sorted(unknown))}; known are {', '.join(ACTIONS)}"
    raise ValueError(f"a token cannot be made so: {problem}")


def sign_claims(claims: Claims, key_id: str, secret: str, *, issued_at: float) -> str:
    """Return the signed token. ``ValueError`` where a cap of the service is exceeded."""
    import jwt  # here: it loads cryptography, and most programs make no tokens

    check_claims(claims)
    payload: dict[str, Any] = {
        "sub": claims.peer_id,
        "iat": int(issued_at),
        "exp": int(claims.expires_at),
    }
    for name, value in (
        ("channels", _list(claims.channels)),
        ("permissions", _list(claims.permissions)),
        ("metadata", claims.metadata),
        ("peerMetadata", claims.peer_metadata),
    ):
        if value is not None:
            payload[name] = value
    return jwt.encode(payload, secret, algorithm="HS256", headers={"kid": key_id})


def _list(values: Iterable[str] | None) -> list[str] | None:
    return None if values is None else list(values)


def key_id(token: str) -> str:
    """Return the id of the key that a token names; ``ValueError`` for what is no token."""
    import jwt

    try:
        header = jwt.get_unverified_header(token)
        jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise ValueError("not a token") from scrubbed_cause(error)
    kid = header.get("kid")
    if not isinstance(kid, str) or not kid:
        raise ValueError("the token names no key")
    return kid


def parse_claims(token: str, secret: str) -> Claims:
    """Return the claims of a token; ``ValueError`` unless ``secret`` signed it.

    Expiry and ``nbf`` are read, not judged: that takes a clock.
    """
    import jwt

    try:
        payload = jwt.decode(
            token,
            secret,
            algorithms=["HS256"],
            options={
                "require": ["sub", "exp"],
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
                "verify_aud": False,
                "verify_iss": False,
            },
        )
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        problem = "the signature or a required claim is wrong"
        raise ValueError(problem) from scrubbed_cause(error)
    expires_at, not_before = payload["exp"], payload.get("nbf")
    if not is_number(expires_at):
        raise ValueError("the expiry is not a number")
    if not_before is not None and not is_number(not_before):
        raise ValueError("the time before which it is not valid is no number")
    channels, permissions = payload.get("channels"), payload.get("permissions")
    claims = Claims(
        payload["sub"],
        expires_at,
        tuple(channels) if isinstance(channels, list) else channels,
        tuple(permissions) if isinstance(permissions, list) else permissions,
        payload.get("metadata"),
        payload.get("peerMetadata"),
        not_before,
    )
    if isinstance(claims.permissions, tuple):
        # Actions that a newer service knows are no reason to refuse the rest.
        known = tuple(p for p in claims.permissions if p in ACTIONS)
        claims = Claims(**(vars(claims) | {"permissions": known}))
    return check_claims(claims)
