"""Say what a refused messaging connection means, and what to do about it."""

from __future__ import annotations

from metered_sync.doctor.outcome import Outcome, failed, words
from metered_sync.errors import SignallingConnectError, SignallingError
from metered_sync.wire.limits import (
    CLOSE_INVALID_TOKEN,
    CLOSE_OVER_LIMIT,
    CLOSE_SUSPENDED,
    CLOSE_TOKEN_EXPIRED,
)

__all__ = ["PLAN_REMEDY", "no_welcome", "refusal"]

PLAN_REMEDY = "wait for the next period, or take a larger plan (or overages) in the dashboard"

_REFUSALS: dict[int, tuple[str, str]] = {
    CLOSE_INVALID_TOKEN: (
        "the service does not accept the key or token (code 4001)",
        "it is wrong, of another app, or revoked: copy it again from the dashboard, or make a new "
        "one there",
    ),
    CLOSE_TOKEN_EXPIRED: (
        "the token has expired (code 4002)",
        "mint a new one; if it is new, set this machine's clock",
    ),
    CLOSE_OVER_LIMIT: (
        "the plan is used up: its messages, or its concurrent connections (code 4010)",
        f"close connections, {PLAN_REMEDY}",
    ),
    CLOSE_SUSPENDED: (
        "the account is suspended (code 4012)",
        "see the service's dashboard, or ask its support",
    ),
    401: (
        "the service refused the key or token (HTTP 401)",
        "check that it is whole, and the key's allowed origins in the dashboard",
    ),
    404: (
        "there is no messaging service at this address (HTTP 404)",
        "check METERED_URL: an origin like wss://host",
    ),
    429: (
        "too many attempts to connect from this address (HTTP 429)",
        "wait a minute, and look for a program that connects again and again",
    ),
}
"""What a close code or an HTTP status means, and the remedy."""


def refusal(error: SignallingError, url: str) -> Outcome:
    """Return the outcome of an attempt to connect that was refused."""
    if not isinstance(error, SignallingConnectError):
        return failed(words(error), "try again, and see the service's status")
    known = _REFUSALS.get(error.close_code)
    if known is not None:
        return failed(f"{url}: {known[0]}", known[1])
    if error.close_reason == "token_provider failed":
        remedy = "mend the token_provider: it has to return a token, and soon"
        return failed(words(error).removeprefix("SignallingClient: "), remedy)
    what, _, remedy = words(error).removeprefix("SignallingClient: ").rpartition("; ")
    if not what:
        what, remedy = remedy, "check METERED_URL, and the service's status"
    return failed(what, remedy)


def no_welcome(url: str, seconds: float) -> Outcome:
    """Return the outcome of a connection on which the server stays silent."""
    return failed(
        f"{url} sent no welcome within {seconds:g} s",
        "check that METERED_URL leads to a messaging service, and whether a firewall or proxy "
        "holds WebSockets up",
    )
