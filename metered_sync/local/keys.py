"""Hold the keys of the local cloud's app, and identify connections by them."""

from __future__ import annotations

import hmac
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from metered_sync.local.rest import Refusal
from metered_sync.wire.limits import CLOSE_INVALID_TOKEN, CLOSE_TOKEN_EXPIRED
from metered_sync.wire.tokens import Claims, Grant, key_id, parse_claims

__all__ = ["Identity", "KeyRing", "PublishableKey", "SecretKey", "TurnedAway"]

NBF_LEEWAY = 5.0
"""Seconds by which the clock that set a token's ``nbf`` may be ahead of ours."""


@dataclass(frozen=True)
class PublishableKey:
    """A key that is its own credential."""

    id: str = field(repr=False)
    grant: Grant = field(default_factory=Grant)
    allowed_origins: tuple[str, ...] = ()
    """Browser origins that may use it; none named: all."""


@dataclass(frozen=True)
class SecretKey:
    """A key pair that signs tokens, and opens the control plane."""

    id: str
    secret: str = field(repr=False)
    grant: Grant = field(default_factory=Grant)


@dataclass(frozen=True)
class Identity:
    """The peer behind a connection, and its rights."""

    peer_id: str
    grant: Grant
    expires_at: float | None = None
    metadata: dict[str, Any] | None = None
    peer_metadata: dict[str, Any] | None = None


class TurnedAway(Exception):  # noqa: N818 - it is an answer, not a failure
    """A connection is accepted only to be closed with a code.

    ``why`` is for the developer at this machine: a client gets the reason alone.
    """

    def __init__(self, code: int, reason: str, why: str | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.why = why or reason


class KeyRing:
    """All keys of one app."""

    def __init__(
        self, publishable: Iterable[PublishableKey] = (), secret: Iterable[SecretKey] = ()
    ) -> None:
        self._publishable = {key.id: key for key in publishable}
        self._secret = {key.id: key for key in secret}

    def add(self, key: PublishableKey | SecretKey) -> None:
        """Accept one more key."""
        if isinstance(key, PublishableKey):
            self._publishable[key.id] = key
        else:
            self._secret[key.id] = key

    def bearer(self, authorization: str) -> SecretKey:
        """Return the pair that an ``Authorization`` header shows, ``Bearer id:secret``.

        Whatever is wrong with it, the answer is the same: it tells nobody which ids exist.
        """
        scheme, _, credential = authorization.partition(" ")
        pair_id, _, secret = credential.strip(" ").partition(":")
        key = self._secret.get(pair_id)
        # A header's bytes that are no UTF-8 were decoded with surrogates.
        given = secret.encode("utf-8", "surrogatepass")
        good = hmac.compare_digest(given, b"" if key is None else key.secret.encode())
        if key is None or not good or scheme.lower() != "bearer":
            why = (
                "there is no Authorization header"
                if not authorization
                else "the header is not of the form: Bearer KEY_ID:SECRET"
                if scheme.lower() != "bearer" or not secret
                else f"this cloud has no key pair {pair_id!r}; it has {self._pairs()}"
                if key is None
                else f"the secret is not that of {pair_id!r}"
            )
            message = "the key pair is missing, malformed or wrong"
            raise Refusal(401, "unauthorized", message, why)
        return key

    def identify(self, key: str | None, token: str | None, origin: str | None) -> Identity:
        """Return the peer that connects with a key, or with a token (which wins over a key).

        Raises:
            Refusal: Not even the upgrade is granted: there is no credential, the token is
                none, or the key is not for a page of this origin.
            TurnedAway: The credential is unknown, forged, revoked or expired.
        """
        if token is not None:
            return self._of_token(token)
        if key is None:
            raise Refusal(401, "unauthorized", "neither key nor token")
        known = self._publishable.get(key)
        if known is None:
            why = f"this cloud has no publishable key that ends with {key[-4:]!r}"
            if len(key) < 12 or not key.startswith("pk_"):
                why = "this is no publishable key: those begin with pk_live_"
            raise TurnedAway(CLOSE_INVALID_TOKEN, "invalid key", why)
        # Without the header it is not a browser; those are served whatever the list says.
        if origin is not None and known.allowed_origins and origin not in known.allowed_origins:
            raise Refusal(401, "origin_not_allowed", "the key is not for this origin")
        return Identity(str(uuid.uuid4()), known.grant)

    def _of_token(self, token: str) -> Identity:
        try:
            pair = self._secret.get(key_id(token))
        except ValueError as error:
            raise Refusal(401, "invalid_token", str(error)) from None
        if pair is None:
            why = f"it names the key pair {key_id(token)!r}; this cloud has {self._pairs()}"
            raise TurnedAway(CLOSE_INVALID_TOKEN, "invalid token", why)
        try:
            claims = parse_claims(token, pair.secret)
        except ValueError as error:
            why = f"{error}; the secret of {pair.id!r} has to sign it"
            raise TurnedAway(CLOSE_INVALID_TOKEN, "invalid token", why) from None
        now = time.time()
        if claims.expires_at <= now:
            why = f"the token of {claims.peer_id!r} expired {now - claims.expires_at:.0f} s ago"
            raise TurnedAway(CLOSE_TOKEN_EXPIRED, "token expired", why)
        if claims.not_before is not None and claims.not_before > now + NBF_LEEWAY:
            ahead = claims.not_before - now
            why = f"the token of {claims.peer_id!r} counts only in {ahead:.0f} s (nbf)"
            raise TurnedAway(CLOSE_INVALID_TOKEN, "token not valid yet", why)
        return _of_claims(claims, pair.grant)

    def _pairs(self) -> str:
        return ", ".join(map(repr, self._secret)) or "none"


def _of_claims(claims: Claims, grant: Grant) -> Identity:
    return Identity(
        claims.peer_id,
        grant.narrowed(claims),
        claims.expires_at,
        claims.metadata,
        claims.peer_metadata,
    )
