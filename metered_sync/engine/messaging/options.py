"""Hold the options of a messaging connection, and time the attempts to make it again."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from metered_sync.wire.arguments import check_number
from metered_sync.wire.limits import CLOSE_TOKEN_EXPIRED, TERMINAL_CLOSES

if TYPE_CHECKING:
    from metered_sync.wire.control import Token

__all__ = ["ReconnectOptions", "SignallingOptions"]

_random = random.Random()
"""Draws the jitter. Not the module's own: a program that seeds that one wants its numbers."""


@dataclass(frozen=True)
class ReconnectOptions:
    """The attempts to make a lost connection again, and the pauses before them.

    Before attempt *n* the client waits ``initial_delay * multiplier ** (n - 1)`` seconds,
    at most ``max_delay``, give or take ``jitter_ratio``. After ``max_attempts`` failures in
    a row it gives up (``math.inf``: never).
    """

    initial_delay: float = 0.5
    multiplier: float = 2.0
    max_delay: float = 30.0
    jitter_ratio: float = 0.2
    max_attempts: float = 100

    def __post_init__(self) -> None:
        for name, low, high in (
            ("initial_delay", 0.0, math.inf),
            ("multiplier", 1.0, math.inf),
            ("max_delay", 0.0, math.inf),
            ("jitter_ratio", 0.0, 1.0),
            ("max_attempts", 0.0, math.inf),
        ):
            number = check_number(name, getattr(self, name), low, high, infinite=True)
            object.__setattr__(self, name, number)

    def delay(self, attempt: int, floor: float = 0.0) -> float:
        """Return the seconds to wait before an attempt (the first is 1), with jitter.

        The jitter of a ``floor`` goes upwards: clients that a server has sent away all at once
        must not come back all at once.
        """
        try:
            delay = self.initial_delay * float(self.multiplier) ** min(attempt - 1, 64)
        except OverflowError:
            delay = math.inf if self.initial_delay else 0.0
        delay = min(self.max_delay, delay) * (1 + self.jitter_ratio * _random.uniform(-1, 1))
        return max(delay, floor * (1 + self.jitter_ratio * _random.random()))


@dataclass(frozen=True)
class SignallingOptions:
    """The checked options of one messaging connection."""

    url: str
    """The origin."""
    api_key: str | None = field(default=None, repr=False)
    token_provider: Callable[[], str | Token] | None = None
    renewable: bool = True
    """Whether the provider may return a new token the next time."""
    token_provider_timeout: float = 10.0
    reconnect: ReconnectOptions | None = None
    inactivity_timeout: float = 60.0
    auto_resubscribe: bool = True
    rate_limit: tuple[float, float] | None = (90, 180)
    """Frames per second, and the burst."""
    ca_file: str | None = None
    """The certificates that are trusted; else the environment's."""

    def why_final(self, code: int) -> str | None:
        """Say why a connection that ended with a close code must not be made again."""
        if code == CLOSE_TOKEN_EXPIRED and not self.renewable:
            return "the token has expired; pass a token_provider to renew it"
        if code in (401, 403) and not self.renewable:
            return "the server refuses the key or token"
        return TERMINAL_CLOSES.get(code)
