"""Check the options that a messaging connection is made with, and fill in what they leave out."""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from metered_sync.engine.messaging.options import ReconnectOptions, SignallingOptions
from metered_sync.engine.network.certificates import check_ca_file
from metered_sync.wire.arguments import (
    check_choice,
    check_function,
    check_number,
    plain_number,
    shown,
)
from metered_sync.wire.secrets import check_api_key, check_token
from metered_sync.wire.urls import check_origin

if TYPE_CHECKING:
    from metered_sync.wire.control import Token

__all__ = [
    "During",
    "DuringOutage",
    "ReconnectOptions",
    "check_during_outage",
    "signalling_options",
    "token_function",
]

MESSAGING_URL = "wss://rms.metered.ca"
DuringOutage = Literal["wait", "fail"]
"""What a call does while the connection is lost."""
During = DuringOutage
"""Another name of :data:`DuringOutage`."""


def signalling_options(
    who: str,
    *,
    api_key: str | None,
    token_provider: Callable[[], str | Token] | Token | str | None,
    url: str | None,
    reconnect: bool | ReconnectOptions,
    inactivity_timeout: float,
    token_provider_timeout: float,
    auto_resubscribe: bool,
    rate_limit: tuple[float, float] | None,
    ca_file: str | os.PathLike[str] | None = None,
) -> SignallingOptions:
    """Check what a client is made with; the environment fills in key and address."""
    key_name, url_name = "api_key", "url"
    if api_key is None and token_provider is None:
        key_name, api_key = "METERED_KEY", os.environ.get("METERED_KEY") or None
        if api_key is None:
            raise ValueError(
                f"{who} needs api_key=… (pk_live_…) or token_provider=…, "
                "or METERED_KEY in the environment"
            )
    if url is None and os.environ.get("METERED_URL"):
        url_name, url = "METERED_URL", os.environ["METERED_URL"]
    try:
        if api_key is not None and token_provider is not None:
            raise ValueError(f"{who} takes api_key or token_provider, not both")
        if api_key is not None:
            check_api_key(who, key_name, api_key)
        provider = None if token_provider is None else token_function(who, token_provider)
        origin = check_origin(
            url if url is not None else MESSAGING_URL, secure="wss", name=url_name
        )
    except BaseException:
        del api_key, token_provider  # no frame of the traceback shows them
        raise
    return SignallingOptions(
        url=origin,
        api_key=api_key,
        token_provider=provider,
        renewable=callable(token_provider),
        token_provider_timeout=_seconds("token_provider_timeout", token_provider_timeout),
        reconnect=_reconnect(reconnect),
        inactivity_timeout=_seconds("inactivity_timeout", inactivity_timeout),
        auto_resubscribe=bool(auto_resubscribe),
        rate_limit=_rate_limit(rate_limit),
        ca_file=check_ca_file(ca_file),
    )


def check_during_outage(during_outage: DuringOutage) -> DuringOutage:
    """Return the argument if it is one of its two values; ``ValueError`` where not."""
    return check_choice("during_outage", during_outage, ("wait", "fail"))


def _seconds(name: str, value: float) -> float:
    """Return a positive number of seconds; ``ValueError`` where it is none."""
    return float(check_number(name, value, above=True, infinite=True, unit="seconds"))


def token_function(who: str, provider: object) -> Callable[[], str | Token]:
    """Return a function that gives the token, in the caller's context."""
    if callable(provider):
        function, context = check_function("token_provider", provider), contextvars.copy_context()
        # A copy for each call: a context cannot be entered twice, and a call may be abandoned.
        return lambda: context.copy().run(function)
    from metered_sync.wire.control import Token  # only whoever has one needs its module

    if not isinstance(provider, (str, Token)):
        raise TypeError(
            f"{who}: token_provider must be a callable that returns a token, or a token, not "
            f"{type(provider).__name__}"
        )
    try:
        token = check_token(provider.token if isinstance(provider, Token) else provider)
    except ValueError as error:
        del provider  # no frame of the traceback shows it
        raise ValueError(f"{who}: token_provider {error}") from None
    return lambda: token


def _reconnect(reconnect: bool | ReconnectOptions) -> ReconnectOptions | None:
    """Return how a lost connection is made again; ``None`` for never."""
    if reconnect is True or reconnect is False:
        return ReconnectOptions() if reconnect else None
    if not isinstance(reconnect, ReconnectOptions):
        raise TypeError("reconnect must be True, False or ReconnectOptions(…)")
    return reconnect


def _rate_limit(limit: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return frames per second and burst; ``ValueError`` where they are no such numbers."""
    if limit is None:
        return None
    try:
        rate, burst = (plain_number(value) for value in limit)
    except (TypeError, ValueError):
        rate = burst = None
    if rate is None or burst is None or not (rate > 0 and burst >= 1):
        raise ValueError(
            f"rate_limit must be (frames per second, burst) or None, not {shown(limit)}"
        )
    return float(rate), float(burst)
