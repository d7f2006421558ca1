"""Fail tests that leave something of this library open (pytest's option ``--metered-leaks``).

What is open is compared before a test's own fixtures are made and after they are gone: what
belongs to a module or a session may stay. What ends by itself gets a moment.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from metered_sync.bridge import guard
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.facade import on_forgotten
from metered_sync.bridge.link import Link
from metered_sync.bridge.loop import Engine, running
from metered_sync.errors import MeteredError

__all__: list[str] = []

GRACE = 2.0
"""Seconds in which what has been closed must be gone: sockets and threads end a little later."""
POLL = 0.02
LASTING = ("metered-sync", "metered-sync-worker")
"""The names of threads that stay: the event loop's, and those that wait for the next job."""


@dataclass
class _Open:
    """What is open at one moment."""

    links: set[Link]
    threads: set[threading.Thread]
    sockets: dict[int, asyncio.BaseTransport]
    """The transports of the loop that all clients share, by identity."""

    @classmethod
    def now(cls) -> _Open:
        engines = [
            engine
            for engine in tuple(running)
            if engine.born == guard.generation() and engine.error is None
        ]
        return cls(
            {link for engine in engines for link in tuple(engine.links)},
            {
                thread
                for thread in threading.enumerate()
                if thread.name.startswith("metered-sync") and thread.name not in LASTING
            },
            {id(one): one for engine in engines for one in _transports(engine)},
        )

    def beyond(self, before: _Open) -> list[str]:
        """Return what is open now and was not before, in words."""
        found = [link.label for link in self.links - before.links]
        found += [f"thread {thread.name}" for thread in self.threads - before.threads]
        for key in self.sockets.keys() - before.sockets.keys():
            found.append(f"socket {self.sockets[key].get_extra_info('sockname')}")
        return sorted(found)


def _transports(engine: Engine) -> list[asyncio.BaseTransport]:
    """Return the open transports of the clients' loop, where the loop knows them (uvloop does not).

    Those of a local cloud are its clients' other ends.
    """

    async def look() -> list[asyncio.BaseTransport]:
        known = getattr(asyncio.get_running_loop(), "_transports", {})
        return [one for one in list(known.values()) if not one.is_closing()]

    if engine.name != "metered-sync":
        return []
    try:
        return engine.call(look, deadline=Deadline(GRACE), what="look for leaks")
    except MeteredError:  # it has just ended
        return []


@pytest.fixture(autouse=True)
def _metered_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    if "local_cloud" in request.fixturenames:
        request.getfixturevalue("_metered_shared_cloud").get()  # it outlasts the test
    before = _Open.now()
    lost: list[Link] = []
    on_forgotten.append(lost.append)
    yield
    deadline = time.monotonic() + GRACE
    left = _Open.now().beyond(before)
    while left and time.monotonic() < deadline:
        time.sleep(POLL)
        left = _Open.now().beyond(before)
    on_forgotten.remove(lost.append)
    left += [
        f"{link.label} (collected while it was open)" for link in lost if link not in before.links
    ]
    if left:
        pytest.fail(
            f"the test left open: {', '.join(left)}; use `with`, close(), or the fixtures that "
            "close what they make",
            pytrace=False,
        )
