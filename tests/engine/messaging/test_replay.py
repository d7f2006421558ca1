from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from metered_sync import AckTimeoutError, ServerRequestError
from metered_sync.bridge.reader import Reader
from metered_sync.engine.messaging.outbox import Outbox
from metered_sync.engine.messaging.replay import REPLAY_ATTEMPTS, Replay
from metered_sync.engine.messaging.request import Request
from metered_sync.engine.messaging.subscriptions import Subscriptions
from metered_sync.wire.events import Event, Message, ServerError
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.support.open_websocket import json_in, upgraded

TIMINGS = dataclasses.replace(DEFAULT_TIMINGS, replay_retry=0.02)
PATIENT = dataclasses.replace(DEFAULT_TIMINGS, replay_retry=60.0)


class Events:
    """The sink of a link's events."""

    def __init__(self) -> None:
        self.seen: list[Event] = []

    def emit(self, event: Event) -> None:
        self.seen.append(event)

    def end(self, error: BaseException | None = None) -> None:
        pass


class Reconnected:
    """A client that was subscribed to some channels, on a new connection."""

    def __init__(self, *names: str, timings: Any = TIMINGS) -> None:
        self.outbox = Outbox(None, [].append)
        self.subscriptions = Subscriptions(self.outbox)
        self.events = Events()
        self.readers: dict[str, Reader[Message]] = {}
        for name in names:
            self.readers[name] = Reader(f"reader of {name}")
            request = self.subscriptions.subscribe(name, self.readers[name], False)
            assert request is not None
            self.outbox.withdraw(request)
            request.finish()
        self.connection, self.transport = upgraded()
        self.outbox.up(self.connection)
        self.replay = Replay(self.outbox, self.subscriptions, self.events, "a test", timings)

    def asked(self) -> list[dict[str, Any]]:
        """Return what has been written since the last time."""
        self.outbox.flush()
        frames, self.transport.written = json_in(self.transport.written), b""
        return frames

    def answer(self, frame: dict[str, Any], code: str | None = None) -> None:
        request = self.outbox.take(frame["requestId"])
        assert request is not None
        request.finish(None if code is None else ServerRequestError("no", code=code))

    async def next_round(self) -> list[dict[str, Any]]:
        """Wait until something is asked for again."""
        for _ in range(5000):
            if self.transport.written:
                return self.asked()
            await asyncio.sleep(0.001)
        raise AssertionError("nothing was asked for again")


async def finished(replay: Replay) -> None:
    await asyncio.wait_for(replay.run(), 20)


def test_it_ends_once_all_are_acknowledged() -> None:
    async def run() -> None:
        client = Reconnected("a", "b", timings=PATIENT)
        client.outbox.put(Request("x", '{"channel": "x"}', "a publish"))
        client.replay.begin()
        frames = client.asked()
        assert [frame["channel"] for frame in frames] == ["a", "b", "x"]  # before all others
        running = asyncio.create_task(client.replay.run())
        client.answer(frames[1])
        await asyncio.sleep(0)
        assert not running.done()
        client.answer(frames[0])
        await asyncio.wait_for(running, 20)
        assert client.events.seen == []
        assert client.asked() == []

    asyncio.run(run())


def test_nothing_to_repeat() -> None:
    async def run() -> None:
        client = Reconnected(timings=PATIENT)
        client.replay.begin()
        await finished(client.replay)
        assert client.asked() == []

    asyncio.run(run())


def test_one_that_is_refused_ends_its_readers_and_is_told_of() -> None:
    async def run() -> None:
        client = Reconnected("a", "b", timings=PATIENT)
        client.replay.begin()
        first, second = client.asked()
        client.answer(first, "channel_not_authorized")
        client.answer(second)
        await finished(client.replay)
        assert [type(event) for event in client.events.seen] == [ServerError]
        assert client.readers["a"].ended
        assert not client.readers["b"].ended
        assert client.subscriptions.acknowledged() == ["b"]

    asyncio.run(run())


def test_one_that_is_refused_in_passing_is_asked_for_again() -> None:
    async def run() -> None:
        client = Reconnected("a", "b")
        client.replay.begin()
        first, second = client.asked()
        running = asyncio.create_task(client.replay.run())
        client.answer(first, "backend_error")
        client.answer(second)
        (again,) = await client.next_round()
        assert again["channel"] == "a"
        assert again["requestId"] != first["requestId"]
        client.answer(again)
        await asyncio.wait_for(running, 20)
        assert client.events.seen == []
        assert not client.readers["a"].ended

    asyncio.run(run())


def test_one_that_is_never_answered_is_given_up() -> None:
    async def run() -> None:
        client = Reconnected("a")
        client.replay.begin()
        frames = client.asked()
        await finished(client.replay)
        frames += client.asked()
        assert [frame["channel"] for frame in frames] == ["a"] * REPLAY_ATTEMPTS
        (event,) = client.events.seen
        assert isinstance(event, ServerError)
        assert event.code == "subscription_lost"
        with pytest.raises(AckTimeoutError, match="subscribe again"):
            client.readers["a"].get_nowait()
        # A late answer belongs to nobody.
        assert all(client.outbox.take(frame["requestId"]) is None for frame in frames)

    asyncio.run(run())


def test_one_that_is_left_meanwhile_is_not_asked_for_again() -> None:
    async def run() -> None:
        client = Reconnected("a")
        client.replay.begin()
        client.asked()
        client.subscriptions.remove("a", client.readers["a"])
        await finished(client.replay)
        assert [frame["type"] for frame in client.asked()] == ["unsubscribe"]
        assert client.events.seen == []

    asyncio.run(run())
