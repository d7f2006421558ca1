"""Functions of users that return tokens: asked once at a time, and told of in words."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from metered_sync.engine.messaging.token_provider import TokenProvider, reason
from metered_sync.wire.control import Token


def test_a_token_comes_as_text() -> None:
    async def test() -> None:
        assert await TokenProvider(lambda: "a.b.c").token(20, "20 s") == "a.b.c"
        assert await TokenProvider(lambda: Token("a.b.c", 0)).token(20, "20 s") == "a.b.c"

    asyncio.run(test())


def test_a_call_that_hangs_is_asked_once_until_it_is_given_up() -> None:
    release, calls = threading.Event(), []

    def provide() -> str:
        calls.append(1)
        release.wait(20)
        return "a.b.c"

    async def test() -> None:
        provider = TokenProvider(provide)
        for _ in range(2):
            with pytest.raises(Exception, match="took too long, longer than a blink"):
                await provider.token(0.05, "a blink")
        assert len(calls) == 1
        provider.stop()
        release.set()
        assert await provider.token(20, "20 s") == "a.b.c"
        assert len(calls) == 2

    asyncio.run(test())


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (TimeoutError("the vault slept"), "TimeoutError('the vault slept')"),
        (OSError("eyJhbGciOi.eyJzdWIiOi.c2lnbmF0 is refused"), "OSError"),
        (b"eyJhbGciOi.eyJzdWIiOi.c2lnbmF0", "it returned bytes"),
        ("", "it returned str"),
    ],
)
def test_why_there_is_none(outcome: Any, words: str) -> None:
    def provide() -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def test() -> None:
        with pytest.raises(Exception) as caught:
            await TokenProvider(provide).token(20, "20 s")
        assert words in reason(caught.value)
        assert ".eyJ" not in reason(caught.value)

    asyncio.run(test())
