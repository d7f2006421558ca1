"""Make, replace and close local tracks; look for what they leave."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from typing import Any

import pytest
from aiortc.mediastreams import MediaStreamError

from metered_sync.bridge import engines
from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.engine.webrtc.encoding import Encoding
from tests.rules.test_leaks import check
from tests.support.local_tracks import (
    Scripted,
    beep,
    links,
    picture,
    plain,
    run,
    take,
    taking,
)


def test_the_users_source_is_never_stopped() -> None:
    async def test() -> None:
        source = Scripted("video", plain)
        local = LocalTrack(source, encoding=Encoding(max_framerate=20))
        outlet = local.outlet()
        await take(outlet, 2)
        outlet.stop()
        local.close()
        assert source.readyState == "live"
        assert await source.recv()

    run(test())


def test_nothing_is_held_after_the_end() -> None:
    async def test() -> None:
        held: list[weakref.ref[Any]] = []

        async def once() -> None:
            local = LocalTrack(picture())
            async with links(2) as made:
                for link in made:
                    outlet = local.outlet()
                    await link.open(outlet)
                    await link.numbers(160)
                    assert outlet.encoder is not None
                    held.extend(map(weakref.ref, (outlet, outlet.encoder, link.near)))
            held.append(weakref.ref(local))
            local.close()

        threads = set(threading.enumerate())
        for _ in range(3):
            await once()
        deadline = time.monotonic() + 10
        while True:
            gc.collect()
            left = sum(ref() is not None for ref in held)
            names = {thread.name for thread in {*threading.enumerate()} - threads}
            if not left and all("asyncio" in name for name in names):  # the executor's stay
                break
            assert time.monotonic() < deadline, (left, names)
            await asyncio.sleep(0.05)

    run(test())


def test_nothing_leaks() -> None:
    async def round_() -> None:
        local, other = (LocalTrack(Scripted("video", plain, interval=0.001)) for _ in range(2))
        sound = LocalTrack(Scripted("audio", beep, interval=0.001))
        outlets = [taking(local), taking(local, "h264"), local.outlet(), sound.outlet()]
        await asyncio.gather(*(take(outlet, 2) for outlet in outlets))
        for outlet in outlets[:3]:
            outlet.switch(other)
        await asyncio.gather(*(take(outlet, 1) for outlet in outlets))
        waiting = [asyncio.ensure_future(take(outlet, 10**6)) for outlet in outlets]
        await asyncio.sleep(0)
        for closable in (local, *outlets, other, sound):
            closable.close()
        await asyncio.wait(waiting, timeout=20)
        assert all(isinstance(task.exception(), MediaStreamError) for task in waiting)

    async def fill_executor() -> None:  # its threads come one by one, and stay
        running = asyncio.get_running_loop()
        await asyncio.gather(*(running.run_in_executor(None, time.sleep, 0.1) for _ in range(40)))

    engine = engines.current()
    engine.call(fill_executor, deadline=Deadline(30), what="executor")
    check(lambda: engine.call(round_, deadline=Deadline(30), what="round"), rounds=25)


def test_a_successor_goes_on_with_stream_metadata_and_encoding() -> None:
    encoding = Encoding(codec="h264")
    first = LocalTrack(
        Scripted("video", plain), stream_id="desk", metadata={"a": 1}, encoding=encoding
    )
    second = first.successor(Scripted("video", plain))
    third = second.successor(Scripted("video", plain))
    assert (third.stream_id, third.metadata, third.encoding) == ("desk", {"a": 1}, encoding)
    assert third.ids == (first.id, second.id, third.id)
    for _ in range(100):
        third = third.successor(Scripted("video", plain))
    assert len(third.ids) == 32
    assert third.ids[-1] == third.id


def test_a_source_that_was_replaced_is_sent_elsewhere_under_another_id() -> None:
    first, other = (LocalTrack(Scripted("video", plain)) for _ in range(2))
    second = first.successor(Scripted("video", plain))
    again = LocalTrack(first.source)
    again.set_apart([other, second])  # which is known by the first one's
    assert again.ids == (again.id,)
    assert again.id not in (first.id, second.id, other.id)
    swapped = other.successor(first.source)
    swapped.set_apart([second])
    assert swapped.ids == (other.id, swapped.id)
    assert swapped.id not in (first.id, again.id)
    back = second.successor(first.source)
    back.set_apart([other])
    assert (back.id, back.ids) == (first.id, (first.id, second.id))


def test_outlets_have_the_tracks_id_or_their_own() -> None:
    async def test() -> None:
        local, other = (LocalTrack(Scripted("video", plain)) for _ in range(2))
        shared, own, another = local.outlet(), local.outlet(own_id=True), local.outlet(own_id=True)
        assert shared.id == local.id
        assert len({own.id, another.id, local.id}) == 3
        id_ = own.id
        for outlet in (shared, own):
            outlet.switch(other)
        assert (shared.id, own.id) == (other.id, id_)
        local.close()
        other.close()

    run(test())


def test_a_track_that_is_closed_feeds_nobody() -> None:
    async def test() -> None:
        local = LocalTrack(Scripted("video", plain))
        outlet = local.outlet()
        await take(outlet, 1)
        local.close()
        late = local.outlet()
        for each in (outlet, late):
            with pytest.raises(asyncio.TimeoutError):
                await take(each, 1, timeout=0.1)
        assert local.encoders == []
        local.close()

    run(test())
