"""Hold the token that a gate is called with, and ask for a new one before it expires."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import jwt

from metered_sync.engine.messaging.token_provider import TokenProvider, reason
from metered_sync.errors import SfuAuthError
from metered_sync.wire.control import Token

__all__ = ["GateTokens"]

RENEW_BEFORE = 10.0
"""Seconds before its expiry from which a token is not used any more."""
PROVIDER_TIMEOUT = 10.0
"""Seconds that the token provider may take."""


class GateTokens:
    """The tokens of one client, one after the other."""

    def __init__(self, label: str, provider: Callable[[], str | Token]) -> None:
        """Prepare; ``provider`` is the user's function, run on a worker thread."""
        self._label = label
        self._provider = TokenProvider(provider)
        self._held: Callable[[], str] | None = None
        self._expires_at = 0.0
        self._turn = asyncio.Lock()

    async def token(self) -> str:
        """Return a token that is valid for a while yet; ``SfuAuthError`` where there is none."""
        async with self._turn:
            if self._held is None or time.time() > self._expires_at - RENEW_BEFORE:
                await self._renew()
            assert self._held is not None
            return self._held()

    async def _renew(self) -> None:
        try:
            text = await self._provider.token(PROVIDER_TIMEOUT, f"{PROVIDER_TIMEOUT:g} s")
        except Exception as error:
            raise SfuAuthError(
                f"{self._label}: the token_provider failed: {reason(error)}"
            ) from None
        finally:
            self._provider.stop()  # one that hangs is asked anew the next time
        self._held, self._expires_at = (lambda: text), _expiry(text)


def _expiry(token: str) -> float:
    """Return the expiry of a token, which its gate will judge; infinite where it has none."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
        return float(claims["exp"])
    except (jwt.PyJWTError, KeyError, TypeError, ValueError, RecursionError):
        return float("inf")
