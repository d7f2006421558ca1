"""Check keys and secrets by their form, and cut them out of whatever is shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

__all__ = [
    "ScrubbedError",
    "check_key_pair",
    "check_secret",
    "scrub",
    "scrubbed",
    "scrubbed_cause",
]

MAX_CAUSE = 500
"""Characters of another library's error that the cause of ours shows."""
_SECRETS = re.compile(
    r"""(?ix)
    ( [?&](?:key|token|apiKey|secretKey|projectApiKey)= ) [^&\s"'\\]+      # query parameters
  | ( \b(?:Bearer|Basic)\s+ ) [^\s"',}\\]+                                 # Authorization
  | ( \b(?:pk_live_|sk_secret_|sk_live_) ) \w+                             # keys by their form
  | ( \ba=ice-pwd: ) [^\s\\]+                                              # SDP
  | ( :// ) [^/@\s]+ (?=@)                                                 # user:password@host
    """
)


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


def scrubbed(value: Any) -> Any:
    """Return decoded JSON with :func:`scrub` applied to every text in it."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, list):
        return [scrubbed(item) for item in value]
    if isinstance(value, dict):
        return {key: scrubbed(item) for key, item in value.items()}
    return value


def scrub(text: str) -> str:
    """Return ``text`` with keys, tokens, passwords and Authorization values cut out."""
    return _SECRETS.sub(lambda match: next(g for g in match.groups() if g is not None) + "…", text)


class ScrubbedError(Exception):
    """Stands for another library's error as the cause of ours: its class and text, scrubbed."""


def scrubbed_cause(error: BaseException, hide: Callable[[str], str] = str) -> ScrubbedError:
    """Return what can be shown of an error, to be the cause of another.

    The error itself would carry URLs, headers and frames, in its attributes and in the local
    variables of its traceback.

    Args:
        error: The error.
        hide: Cuts out of its text what :func:`scrub` does not recognise.
    """
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return ScrubbedError(f"{name}: {scrub(hide(str(error)))[:MAX_CAUSE]}")
