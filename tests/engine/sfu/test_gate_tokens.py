"""Tokens for a gate: held until they expire, and why there is none."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import jwt
import pytest

from metered_sync.engine.sfu import gate_tokens
from metered_sync.engine.sfu.gate_tokens import GateTokens
from metered_sync.errors import SfuAuthError


def token(lives: float) -> str:
    return jwt.encode({"exp": time.time() + lives}, "secret" * 6, algorithm="HS256")


def test_a_token_is_held_until_it_is_about_to_expire() -> None:
    asked = []

    def provide(lives: float) -> Callable[[], str]:
        def made() -> str:
            asked.append(lives)
            return token(lives)

        return made

    async def test() -> None:
        for lives, calls in ((600, 1), (5, 3)):
            tokens = GateTokens("client", provide(lives))
            asked.clear()
            for _ in range(3):
                assert await tokens.token()
            assert len(asked) == calls

    asyncio.run(test())


def test_an_error_of_the_provider_is_told_as_its_own() -> None:
    def provide() -> str:
        raise TimeoutError("the vault slept")

    async def test() -> None:
        with pytest.raises(SfuAuthError, match=r"client: .* failed: TimeoutError.*vault slept"):
            await GateTokens("client", provide).token()

    asyncio.run(test())


def test_a_provider_that_hangs_is_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_tokens, "PROVIDER_TIMEOUT", 0.05)
    release, calls = threading.Event(), []

    def provide() -> str:
        calls.append(1)
        if len(calls) == 1:
            release.wait(20)
        return "a.b.c"

    async def test() -> None:
        tokens = GateTokens("client", provide)
        with pytest.raises(SfuAuthError, match=r"took too long, longer than 0\.05 s"):
            await tokens.token()
        monkeypatch.setattr(gate_tokens, "PROVIDER_TIMEOUT", 20)
        assert await tokens.token() == "a.b.c"
        release.set()

    asyncio.run(test())
