"""Keys and secrets, judged by their form: what is told here need not be asked of a service."""

from __future__ import annotations

__all__ = ["check_key_pair", "check_secret"]


def check_secret(owner: str, name: str, value: object) -> str:
    """Return a key or secret if it could be one; ``ValueError``, without it, if not."""
    if not isinstance(value, str) or not value:
        raise ValueError(
            f"{owner}: {name} must be a non-empty string, from the service's dashboard"
        )
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError(
            f"{owner}: {name} contains a space, a line break or another character that keys do "
            "not have; was it copied whole, and nothing but it?"
        )
    return value


def check_key_pair(owner: str, key_id: object, secret: object) -> tuple[str, str]:
    """Return the id and the secret of a pair; ``ValueError``, without the secret, if it is none."""
    public, private = check_secret(owner, "key_id", key_id), check_secret(owner, "secret", secret)
    if public.startswith("pk_") or private.startswith("pk_"):
        raise ValueError(
            f"{owner} was given a publishable key (pk_live_…); it takes the two parts of a secret "
            "key, sk_id_… and sk_secret_…"
        )
    if public.startswith("sk_secret_") or private.startswith("sk_id_"):
        raise ValueError(f"{owner}: key_id (sk_id_…) and secret (sk_secret_…) are swapped")
    return public, private
