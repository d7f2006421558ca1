"""Read a token as the service would, and say what is wrong with it: no clock, no network.

Source: docs/protocol/signalling.md#tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jwt

from metered_sync.wire.fields import is_number
from metered_sync.wire.limits import ACTIONS
from metered_sync.wire.secrets import scrubbed
from metered_sync.wire.tokens import Claims, check_claims

__all__ = ["TokenReport", "read_token"]

CLOCK_TOLERANCE = 5.0
"""Seconds that a token's ``nbf`` may be ahead of the service's clock."""


@dataclass(frozen=True)
class TokenReport:
    """What a token says, and whether the service would accept it."""

    key_id: str | None
    """The public id of the key that signed it."""
    claims: dict[str, Any]
    """Its payload as it stands, with secrets cut out."""
    expires_in: float | None
    """Seconds from now on, negative once it has expired; ``None`` where it does not say."""
    signature: str
    """``"good"``, ``"wrong"``, or ``"not checked"`` where the secret is not at hand."""
    problems: tuple[str, ...]
    """Why it would be refused: sentences."""
    notes: tuple[str, ...]
    """What it does not grant, and what was not checked."""

    @property
    def accepted(self) -> bool:
        """Whether nothing was found that the service would refuse it for."""
        return not self.problems


def read_token(
    token: str, now: float, *, key_id: str | None = None, secret: str | None = None
) -> TokenReport:
    """Read a token, and judge it.

    Args:
        token: The token.
        now: The time, in unix seconds.
        key_id: The public id of the key pair that is at hand.
        secret: Its secret, to check the signature with.

    Raises:
        ValueError: It is no token at all.
    """
    header, payload = _decoded(token)
    named = header.get("kid")
    problems: list[str] = []
    notes: list[str] = []
    if header.get("alg") != "HS256":
        problems.append(f"it is signed by {header.get('alg')!r}: the service takes HS256 alone")
    if not isinstance(named, str) or not named:
        problems.append("its header names no key (kid): sign it with mint_token()")
        named = None
    signature = _signature(token, secret)
    if named is not None and key_id is not None and named != key_id:
        notes.append(f"it is of the key {named}, and the key at hand is {key_id}")
        if signature == "wrong":
            signature = "not checked"
    if signature == "wrong":
        problems.append("its signature is wrong: it was signed with another secret, or changed")
    elif signature == "not checked":
        notes.append(
            "its signature was not checked: that takes the key's secret (METERED_KEY_SECRET, or "
            "--key-secret-file)"
        )
    problems += _claims_problems(payload)
    expires_at, not_before = payload.get("exp"), payload.get("nbf")
    if is_number(expires_at) and expires_at <= now:
        problems.append("it has expired: make a new one")
    if is_number(not_before) and not_before > now + CLOCK_TOLERANCE:
        problems.append(
            f"it is not valid before {not_before - now:.0f} s from now (nbf): is the clock of the "
            "machine that made it right?"
        )
    notes += _rights(payload)
    return TokenReport(
        named,
        scrubbed(payload),
        expires_at - now if is_number(expires_at) else None,
        signature,
        tuple(problems),
        tuple(notes),
    )


def _decoded(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and payload; ``ValueError`` for what is no token."""
    try:
        decoded = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise ValueError(
            "this is no token: those are three parts of letters and digits (eyJ…), with dots in "
            "between; was it copied whole?"
        ) from None
    return decoded["header"], decoded["payload"]


def _signature(token: str, secret: str | None) -> str:
    if secret is None:
        return "not checked"
    try:
        jwt.decode(
            token,
            secret,
            algorithms=["HS256"],
            options={
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_aud": False,
                "verify_iss": False,
                "verify_sub": False,
            },
        )
    except (jwt.PyJWTError, ValueError):
        return "wrong"
    return "good"


def _claims_problems(payload: dict[str, Any]) -> list[str]:
    """Say what is wrong with the claims, whatever the time."""
    problems = [
        f"the claim {name} ({meaning}) is missing"
        for name, meaning in (("sub", "who its bearer is"), ("exp", "when it expires"))
        if name not in payload
    ]
    problems += [
        f"the claim {name} is no number"
        for name in ("exp", "nbf")
        if payload.get(name) is not None and not is_number(payload[name])
    ]
    if "sub" in payload:
        permissions: Any = payload.get("permissions")
        channels: Any = payload.get("channels")
        if isinstance(permissions, list):  # those of a newer service are ignored there
            permissions = [one for one in permissions if one in ACTIONS]
        try:
            check_claims(
                Claims(
                    payload["sub"],
                    0.0,
                    channels,
                    permissions,
                    payload.get("metadata"),
                    payload.get("peerMetadata"),
                )
            )
        except ValueError as error:
            problems.append(str(error).removeprefix("a token cannot be made so: "))
    return problems


def _rights(payload: dict[str, Any]) -> list[str]:
    """Say what the token does not grant, that people wonder about."""
    notes = []
    permissions, channels = payload.get("permissions"), payload.get("channels")
    if isinstance(permissions, list):
        if lacking := [action for action in ACTIONS if action not in permissions]:
            remedy = "; rooms need send" if "send" in lacking else ""
            notes.append(f"it does not grant {', '.join(lacking)}{remedy}")
        if unknown := [one for one in permissions if one not in ACTIONS]:
            notes.append(f"permissions that are not known: {unknown}")
    if channels == []:
        notes.append("its list of channels is empty: it grants none")
    return notes
