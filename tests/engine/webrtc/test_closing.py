"""Close peer connections at each moment of their making: nothing is left, and nothing is logged."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from aiortc import VideoStreamTrack

from metered_sync.engine.webrtc.peer_connection import (
    close_quietly,
    gather_on,
    peer_connection,
)
from tests.support.peer_connections import negotiate

PAIRS = 60
"""One is closed after each of the loop's first turns; all are connected in some fifty."""


class CountingLoop(asyncio.SelectorEventLoop):
    """A loop that runs functions when it has taken so many turns."""

    turns = 0

    def __init__(self) -> None:
        super().__init__()
        self.due: dict[int, list[Callable[[], object]]] = {}
        self.told: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.told.append(context))

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]
        self.turns += 1
        for function in self.due.pop(self.turns, ()):
            self.call_soon(function)


async def closed_while_connecting(number: int, turn: int) -> None:
    """Connect two, one of a few kinds, and close one of them, or both, after a turn of the loop."""
    loop: Any = asyncio.get_running_loop()
    ends = peer_connection(()), peer_connection(())
    kind, who = number % 3, number // 3 % 3
    if kind != 2:
        ends[0].addTransceiver(VideoStreamTrack(), "sendrecv")
        ends[0].addTransceiver("audio", "recvonly")
    if kind != 0:
        ends[0].createDataChannel("x")
    closed = asyncio.Event()
    closers = []

    async def close() -> None:
        for pc in (ends[:1], ends[1:], ends)[who]:
            await close_quietly(pc, 20)
        closed.set()

    loop.due.setdefault(turn, []).append(lambda: closers.append(loop.create_task(close())))
    try:
        await negotiate(*ends)
    except Exception:
        if not closers:
            raise
    await closed.wait()
    for pc in ends:
        await close_quietly(pc, 20)


async def close_all() -> list[str]:
    """Return what is left of many that were closed, one at each turn of the loop."""
    gather_on.set("127.0.0.1")
    loop: Any = asyncio.get_running_loop()
    base = loop.turns + 5
    ticking = loop.create_task(_tick())
    pairs = (closed_while_connecting(number, base + number) for number in range(PAIRS))
    await asyncio.wait_for(asyncio.gather(*pairs), 60)
    ticking.cancel()
    await asyncio.wait([ticking])
    for _ in range(3):  # (what has just ended is taken off in the next turn)
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    return [repr(task) for task in left]


async def _tick() -> None:
    while True:  # (the loop goes on turning when all wait for each other)
        await asyncio.sleep(0.005)


def test_closing_at_each_moment_of_connecting(caplog: pytest.LogCaptureFixture) -> None:
    gc.collect()  # what other tests have left
    threads = threading.active_count()
    loop = CountingLoop()
    with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.WARNING):
        warnings.simplefilter("always")
        left = loop.run_until_complete(close_all())
        gc.collect()  # of tasks whose errors nobody has retrieved
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        gc.collect()  # of sockets that are open
    assert left == []
    assert [context.get("exception", context["message"]) for context in loop.told] == []
    assert [str(one.message) for one in warned if one.category is ResourceWarning] == []
    assert caplog.messages == []
    assert threading.active_count() <= threads
