"""Share between the stages what is examined: settings, time that is left, one connection."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any, TypeVar

from metered_sync.bridge import engines
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.workers import run_in_worker
from metered_sync.client import SignallingClient
from metered_sync.doctor.outcome import Trouble, skipped
from metered_sync.doctor.refusals import no_welcome, refusal
from metered_sync.doctor.settings import MESSAGING, Settings
from metered_sync.engine.messaging.link import SignallingLink
from metered_sync.errors import MeteredTimeoutError, SignallingError
from metered_sync.events import Connected, IceServer

__all__ = ["Patient", "ScratchClient"]

T = TypeVar("T")
CONNECTING = 6.0
"""Seconds that connecting to messaging may take."""


class ScratchClient(SignallingClient):
    """A client whose connection can be lost on purpose."""

    def lose_connection(self) -> None:
        """Reset the connection, as a network would; the client makes it again."""
        link = self._link
        if isinstance(link, SignallingLink):
            self._start().post(link.lose_connection)


class Patient:
    """What all stages of one examination share."""

    def __init__(self, settings: Settings, deadline: Deadline, channel: str | None) -> None:
        self.settings = settings
        self.deadline = deadline
        self.channel = channel or f"doctor/{secrets.token_hex(6)}"
        """The channel that is tried."""
        self.welcome: Connected | None = None
        self.arrived = 0.0
        """The wall clock's time at which the welcome came, unix seconds."""
        self.servers: tuple[IceServer, ...] | None = None
        """The ICE servers in use, once they have been looked for."""
        self.lacking: list[str] = []
        """The permissions that the key has turned out to lack."""
        self._client: ScratchClient | Trouble | None = None
        self._open = ExitStack()

    def __enter__(self) -> Patient:
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    def within(self, seconds: float) -> float:
        """Return the seconds that something may take: so many, or what is left of them all."""
        return max(0.1, min(seconds, self.deadline.left()))

    def run(
        self, what: str, seconds: float, function: Callable[..., Awaitable[T]], *args: Any
    ) -> T:
        """Run a coroutine function on the engine; ``MeteredTimeoutError`` where it takes longer."""
        deadline = Deadline(self.within(seconds))
        with engines.in_use() as engine:
            return engine.call(function, *args, deadline=deadline, what=f"doctor: {what}")

    def in_worker(self, what: str, seconds: float, function: Callable[..., T], *args: Any) -> T:
        """Run a function that blocks on a thread of its own, for so long at most."""

        async def work() -> T:
            return await run_in_worker(function, *args)

        return self.run(what, seconds, work)

    def check_key(self) -> dict[str, Any]:
        """Return what a client connects with; ends the stage where no usable key is there."""
        problem = self.settings.problem(self.settings.messaging_group)
        if problem is not None:
            raise Trouble(skipped(f"not run, because of the keys: {problem.what}"))
        options = self.settings.connection()
        if not options:
            raise Trouble(skipped(f"there is no key ({MESSAGING})"))
        return options

    @property
    def client(self) -> ScratchClient:
        """The client that the stages of messaging share; connected by the first of them."""
        if isinstance(self._client, Trouble):
            raise self._client
        if self._client is None:
            try:
                self._client = self._connect()
            except Trouble as trouble:
                self._client = trouble
                raise
        return self._client

    def try_to_connect(self) -> None:
        """Connect, where nothing is amiss; else leave that to the stage of the welcome."""
        try:
            self.client  # noqa: B018 - connects
        except Trouble:
            pass

    def _connect(self) -> ScratchClient:
        client = ScratchClient(**self.check_key(), timeout=self.within(CONNECTING))
        self._open.callback(client.close, timeout=2)
        with client.events(Connected) as welcomes:
            try:
                client.connect()
                self.arrived = time.time()
                self.welcome = welcomes.get(timeout=1)
            except MeteredTimeoutError:
                raise Trouble(no_welcome(self.settings.url, CONNECTING)) from None
            except SignallingError as error:
                raise Trouble(refusal(error, self.settings.url)) from None
        return client
