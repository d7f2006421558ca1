"""Make connections: the token, the proxy, what a server refuses."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import socket
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from metered_sync import SignallingConnectError, Token
from metered_sync.engine.messaging.handshake import REPORTED_FAILURES, Connector
from metered_sync.engine.messaging.options import SignallingOptions
from metered_sync.wire import frames
from metered_sync.wire.events import Event, TokenProviderError
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.support.scripted_service import WELCOME, ScriptedServer
from tests.support.seen import frames_of

TIMINGS = dataclasses.replace(DEFAULT_TIMINGS, welcome=0.2)


class Attempts:
    """Attempts to connect, one after the other, and the events they make."""

    def __init__(self, url: str = "ws://127.0.0.1:9", **options: Any) -> None:
        self.events: list[Event] = []
        if "token_provider" not in options:
            options["api_key"] = "pk_live_x"
        self.connector = Connector(self, SignallingOptions(url, **options), "a test", TIMINGS)

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def end(self, error: BaseException | None = None) -> None:
        pass

    async def open(self) -> frames.Welcome:
        connection, welcome = await self.connector.open(within=math.inf)
        connection.abort()
        await connection.wait_closed()
        return welcome

    async def refused(self) -> SignallingConnectError:
        with pytest.raises(SignallingConnectError) as caught:
            await self.open()
        return caught.value


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))


# --- the token ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (OSError("no answer from /mint?token=abc"), "/mint?token=…"),
        (None, "NoneType, not a non-empty str"),
        ("", "str, not a non-empty str"),
        (b"h.p.s", "bytes, not a non-empty str"),
        ({"token": "h.p.s"}, "dict, not a non-empty str"),
        ("sk_secret_x", "a text that is the secret of a secret key"),
        (Token("pk_live_x", 0.0), "a text that is a publishable key"),
        ("h.p.s\n", "a text that contains a line break"),
        ("Bearer h.p.s", "pass the token alone"),
        (TimeoutError("the database"), "TimeoutError('the database')"),
    ],
)
def test_a_provider_that_fails_is_told_of_after_some_times(outcome: object, words: str) -> None:
    def provide() -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def test() -> None:
        attempts = Attempts(token_provider=provide)
        for number in range(1, REPORTED_FAILURES + 2):
            error = await attempts.refused()
            assert words in str(error)
            assert (error.close_code, error.close_reason) == (1006, "token_provider failed")
            assert len(attempts.events) == max(0, number - REPORTED_FAILURES + 1)
        first = attempts.events[0]
        assert isinstance(first, TokenProviderError)
        assert first.consecutive_failures == REPORTED_FAILURES

    run(test)


def test_a_provider_that_succeeds_is_forgiven() -> None:
    outcomes = iter([None, None, "h.p.s", None])

    async def test() -> None:
        attempts = Attempts(token_provider=lambda: next(outcomes))  # type: ignore[arg-type]
        for _ in range(4):  # (nobody listens there)
            await attempts.refused()
        assert attempts.events == []

    run(test)


def test_a_secret_that_a_provider_returns_goes_nowhere() -> None:
    outcomes: Iterator[Any] = iter(["sk_secret_HUSH", Token("pk_live_HUSH", 0), "HUSH"])

    async def test() -> None:
        attempts = Attempts(server.url, token_provider=lambda: next(outcomes))
        for _ in range(3):
            assert "HUSH" not in frames_of(await attempts.refused())
        assert server.upgrades == []

    with ScriptedServer() as server:
        run(test)


def test_a_provider_may_return_a_token_of_the_control_plane() -> None:
    async def test() -> None:
        await Attempts(server.url, token_provider=lambda: Token("h.p.s", 0)).open()
        assert server.upgrades == ["/v1?token=h.p.s"]

    with ScriptedServer() as server:
        run(test)


def test_a_provider_that_returns_a_coroutine() -> None:
    async def provide() -> str:
        return "h.p.s"

    async def test() -> None:
        attempts = Attempts(token_provider=lambda: provide())  # type: ignore[arg-type, return-value]
        assert "it returned a coroutine" in str(await attempts.refused())

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(test)


def test_a_provider_that_hangs_is_asked_once() -> None:
    release, calls = threading.Event(), []

    def provide() -> str:
        calls.append(1)
        release.wait(20)
        return "token"

    async def test() -> None:
        attempts = Attempts(token_provider=provide, token_provider_timeout=0.05)
        for _ in range(2):
            error = await attempts.refused()
            assert "took too long, longer than token_provider_timeout=0.05 s" in str(error)
        assert len(calls) == 1
        attempts.connector.stop()
        release.set()

    run(test)


# --- the server -----------------------------------------------------------------------


def test_a_connection_has_its_welcome() -> None:
    async def test() -> None:
        welcome = await Attempts(server.url).open()
        assert (welcome.peer_id, welcome.max_message_size) == ("me", WELCOME["maxMessageSize"])
        assert server.upgrades == ["/v1?key=pk_live_x"]

    with ScriptedServer() as server:
        run(test)


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "check the key"), (404, "does not lead to"), (429, "wait a minute"), (503, "status")],
)
def test_a_server_that_refuses_the_upgrade(status: int, words: str) -> None:
    async def test() -> None:
        error = await Attempts(server.url).refused()
        assert words in str(error)
        assert f"(HTTP {status}) refused by the script" in str(error)
        assert (error.close_code, error.close_reason) == (status, "handshake rejected")

    with ScriptedServer(status=lambda number: status) as server:
        run(test)


def test_a_name_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    async def test() -> None:
        error = await Attempts("wss://no-such-host.invalid").refused()
        assert "; check the url and this machine's network" in str(error)
        assert "Errno" not in str(error)

    run(test)


def test_a_server_that_closes_instead_of_welcoming() -> None:
    async def test() -> None:
        refused = asyncio.create_task(Attempts(server.url).refused())
        scripted = await asyncio.to_thread(server.accept)
        await asyncio.to_thread(scripted.close, 4010, "full")
        error = await refused
        assert "limit of concurrent connections" in str(error)
        assert (error.close_code, error.close_reason) == (4010, "full")

    with ScriptedServer(welcome=lambda number: None) as server:
        run(test)


def test_a_server_that_says_nothing() -> None:
    async def test() -> None:
        error = await Attempts(server.url).refused()
        assert (error.close_code, error.close_reason) == (1006, "no welcome")

    with ScriptedServer(welcome=lambda number: None) as server:
        run(test)
        assert server.accept().ended() == (1000, "no welcome")


def test_nobody_there() -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            url = f"ws://127.0.0.1:{taken.getsockname()[1]}"
        error = await Attempts(url).refused()
        assert (error.close_code, error.close_reason) == (1006, "ConnectionRefusedError")

    run(test)
