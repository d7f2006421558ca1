"""Rule 9: nothing leaks."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import threading
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from metered_sync import (
    AudioSource,
    Message,
    MeteredError,
    MeteredPeer,
    SignallingClient,
    VideoSource,
)
from metered_sync.bridge import engines
from metered_sync.bridge.deadline import Deadline
from metered_sync.local import LocalCloud
from metered_sync.testing import ToneSource
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.conftest import wait_until

ROUNDS = 200
CACHES = 1_000_000
"""Bytes for what fills up once and is bounded: caches of URLs, of regular expressions, of sizes."""


def census() -> dict[str, int]:
    """Count what an object that was closed must have given back."""

    async def tasks() -> int:
        return len(asyncio.all_tasks())

    engine = engines.current()
    # Workers idle out; the loop's pool, for codecs, grows to its bound when it is needed.
    not_held = ("metered-sync-worker", "asyncio_", "uvloop_")
    ours = [t for t in threading.enumerate() if not t.name.startswith(not_held)]
    counted = {
        "threads": len(ours),
        "tasks": engine.call(tasks, deadline=Deadline(5), what="census"),
        "links": len(engine.links),
    }
    if os.path.isdir("/proc/self/fd"):
        counted["files"] = len(os.listdir("/proc/self/fd"))
    return counted


def check(round_: Callable[[], object], rounds: int = ROUNDS, per_round: int = 500) -> None:
    """Run a function many times; afterwards everything must be as it was."""
    for _ in range(5):
        round_()
    gc.collect()
    before: dict[str, int] = {}

    def settled() -> bool:
        # What ends after close() - a dispatcher's thread, a socket's last task - gets a moment.
        nonlocal before
        last, before = before, census()
        time.sleep(0.05)
        return before == last

    wait_until(settled, 20)
    tracemalloc.start()
    try:
        memory = tracemalloc.get_traced_memory()[0]
        for _ in range(rounds):
            round_()

        most = CACHES + per_round * rounds
        grown: list[int] = []

        def back() -> bool:
            # (A request that was given up is held by its thread for a while.)
            gc.collect()
            counted = census()
            grown.append(tracemalloc.get_traced_memory()[0] - memory)
            is_back = all(counted[name] <= count for name, count in before.items())
            return is_back and grown[-1] < most

        try:
            wait_until(back, 30)
        except pytest.fail.Exception:
            pytest.fail(f"was {before}, is {census()}; {grown[-1]} bytes after {rounds} rounds")
    finally:
        tracemalloc.stop()


@pytest.fixture
def options(served_cloud: dict[str, str]) -> dict[str, Any]:
    """A cloud in another process: what it holds is not ours."""
    return {"api_key": served_cloud["publishable_key"], "url": served_cloud["url"]}


def test_clients(options: dict[str, Any]) -> None:
    def round_() -> None:
        with SignallingClient(**options, rate_limit=None) as client:
            inbox = client.subscribe("leak")
            client.on(Message, print)
            with client.events(Message):
                client.publish("leak", 1)
            assert len(inbox) == 0

    check(round_)


def test_clients_that_fail_to_connect(options: dict[str, Any]) -> None:
    def round_() -> None:
        client = SignallingClient(api_key="pk_live_wrong", url=options["url"])
        with pytest.raises(MeteredError):
            client.connect()
        client.close()

    check(round_)


def test_blocks_that_fail_to_connect_with_callbacks(options: dict[str, Any]) -> None:
    def round_() -> None:
        client = SignallingClient(api_key="pk_live_wrong", url=options["url"])
        client.on(Message, print)
        with pytest.raises(MeteredError), client:
            pass

    check(round_, rounds=50)


def test_clients_that_run_out_of_time(options: dict[str, Any]) -> None:
    def round_() -> None:
        client = SignallingClient(**options)
        with suppress(MeteredError):
            client.connect(timeout=0.002)
        client.close()

    check(round_)


def test_subscriptions_and_queues_of_one_client(options: dict[str, Any]) -> None:
    with SignallingClient(**options, rate_limit=None) as client:

        def round_() -> None:
            client.subscribe("one").close()
            client.subscribe("two")
            client.unsubscribe("two")
            client.events(Message)
            client.on(Message, print)
            client.off(Message, print)
            with pytest.raises(MeteredError):
                client.wait_for(Message, timeout=0)
            with suppress(MeteredError):  # the acknowledgement may be that quick
                client.publish("one", 1, timeout=0)

        check(round_)
        client.publish("one", 1)  # all the forgotten requests have been dealt with
        link: Any = client._link
        assert not link.outbox._pending
        assert not link.outbox._queue
        assert not link.subscriptions._channels


def test_tracks_whose_sources_end(options: dict[str, Any]) -> None:
    timings = dataclasses.replace(DEFAULT_TIMINGS, last_frames=0.0)
    with MeteredPeer(**options, _timings=timings) as peer, ToneSource() as stays:
        peer.join("leak/ends")
        peer.add_track(stays)

        def round_() -> None:
            sources: list[Any] = [ToneSource(), AudioSource(), VideoSource(64, 64)]
            for source in sources:
                peer.add_track(source, metadata={"n": 1})
            sources[0].stop()
            sources[1].end()
            sources[2].track.stop()
            wait_until(lambda: peer._sent.tracks == [stays.track])

        check(round_, rounds=50, per_round=2000)


def test_local_clouds() -> None:
    def round_() -> None:
        with LocalCloud() as cloud, SignallingClient(**cloud.client_options()) as client:
            client.publish("x", 1)

    check(round_, rounds=40)
