"""Send pictures that are encoded already to several senders, and again to those who ask."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiortc.codecs.vpx import VpxPayloadDescriptor

from metered_sync import (
    BitrateWanted,
    EncodedSource,
    KeyFrameWanted,
    MeteredTimeoutError,
    from_file,
)
from metered_sync.engine.sending import kept_group
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.engine.sending.outlet import ENCODED_QUEUE, Outlet
from metered_sync.engine.sending.shared_encoder import Encoded
from tests.support.encoded import units, write
from tests.support.local_tracks import Link, links, run, take, taking
from tests.support.media_files import number_of

SIZE = (160, 96)


def push(source: EncodedSource, *access_units: bytes) -> None:
    """Write pictures without waiting in between."""
    for unit in access_units:
        with suppress(MeteredTimeoutError):
            source.write(unit, timeout=0)


def seen(link: Link) -> list[int]:
    return [number_of(frame) for frame in link.received["video"]]


async def shows(link: Link, number: int) -> None:
    await link.wait(lambda: number in seen(link))


async def paced(source: EncodedSource, access_units: Iterable[bytes], pause: float = 0.01) -> None:
    for unit in access_units:
        push(source, unit)
        await asyncio.sleep(pause)


@asynccontextmanager
async def showing(count: int) -> AsyncIterator[tuple[Link, Outlet]]:
    """Send pictures to one receiver, which has shown all but the last: that waits for the next."""
    made = units("h264", count, size=SIZE)
    source = EncodedSource("h264", 240)
    local = LocalTrack(source.track)
    async with links(1) as (link,):
        push(source, made[0])
        outlet = local.outlet()
        await link.open(outlet, codec="h264")
        await paced(source, made[1:])
        await shows(link, count - 2)
        yield link, outlet
    local.close()
    source.stop()


@pytest.mark.parametrize("codec", ["h264", "vp8"])
def test_receivers_see_the_pictures_and_late_ones_the_newest_at_once(codec: Any) -> None:
    made = units(codec, 18, size=SIZE)

    async def test() -> None:
        source = EncodedSource(codec, 240)
        local = LocalTrack(source.track)
        async with links(2) as (early, late):
            push(source, made[0])
            await early.open(local.outlet(), codec=codec)
            await paced(source, made[1:15])
            # (aiortc's receiver shows a picture when the next one comes.)
            await shows(early, 13)
            assert list(dict.fromkeys(seen(early))) == list(range(14))
            count = len(seen(early))
            outlet = local.outlet()
            await late.open(outlet, codec=codec)
            await shows(late, 13)  # though nothing is written
            assert seen(late)[:4] == list(range(10, 14))
            assert len(seen(early)) == count  # it has not asked
            await paced(source, made[15:])
            for link in (early, late):
                await shows(link, 16)
                link.assert_rising()
            assert outlet.dropped == 0
        local.close()
        source.stop()

    run(test())


@pytest.mark.parametrize("codec", ["h264", "vp8"])
def test_who_sends_it_when_others_do_no_more_begins_with_the_latest_group(codec: Any) -> None:
    made = units(codec, 20, gop=20, size=SIZE)

    async def test() -> None:
        source = EncodedSource(codec, 240)
        async with links(2) as (early, late):
            local = LocalTrack(source.track)
            push(source, made[0])
            await early.open(local.outlet(), codec=codec)
            await paced(source, made[1:10])
            await shows(early, 8)
            local.close()
            push(source, *made[10:15])  # nobody takes them
            again = LocalTrack(source.track)
            await late.open(again.outlet(), codec=codec)
            await shows(late, 13)  # though nothing is written
            assert list(dict.fromkeys(seen(late))) == list(range(14))
            again.close()
        source.stop()

    run(test())


def test_a_film_that_nobody_sends_for_a_while_goes_on_without_another_key_frame(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "film.mkv", count=250, gop=1000, size=SIZE)

    async def test() -> None:
        source = await asyncio.to_thread(from_file, path, encoded=True)
        track: Any = source.video
        local = LocalTrack(track)
        await take(taking(local, "h264"), 5)
        local.close()
        while len(track._queue._group.pictures) < 20:  # more than is read ahead
            await asyncio.sleep(0.01)
        again = LocalTrack(track)
        outlet = taking(again, "h264")
        got = await take(outlet, 1)
        while got[-1].again:
            got += await take(outlet, 1)
        assert [one.key for one in got] == [True] + [False] * (len(got) - 1)
        assert len(got) >= 20
        again.close()
        source.stop()

    run(test())


def test_a_group_that_did_not_leave_is_sent_where_that_is_asked_for() -> None:
    """It was not to be sent then: no second has to pass before it may."""

    async def test() -> None:
        async with showing(5) as (link, outlet):
            (transceiver,) = link.near.getTransceivers()
            transceiver.direction = "inactive"
            await link.negotiate()
            outlet.wants_key()
            transceiver.direction = "sendonly"
            await link.negotiate()
            assert not outlet._items
            outlet.wants_key()
            assert len(outlet._items) == 5  # at once
            await link.wait(lambda: outlet.frames == 10)

    run(test())


def test_who_asks_is_sent_the_group_again_once_a_second() -> None:
    async def test() -> None:
        async with showing(15) as (link, outlet):
            before = len(seen(link))
            began = asyncio.get_running_loop().time()
            for _ in range(5):
                outlet.wants_key()
            await link.wait(lambda: seen(link)[before:].count(13) == 1)
            for _ in range(5):
                outlet.wants_key()
            await link.wait(lambda: seen(link)[before:].count(13) == 2)
            assert asyncio.get_running_loop().time() - began > 0.9
            assert seen(link)[before:] == [14, *range(10, 15), *range(10, 14)]
            link.assert_rising()

    run(test())


def test_small_pictures_are_not_sent_again_faster_than_they_are_decoded() -> None:
    made = units("h264", 30, gop=30, size=SIZE)

    async def test() -> None:
        source = EncodedSource("h264", 240)
        local = LocalTrack(source.track)
        push(source, made[0])
        early = taking(local, "h264")
        await take(early, 1)
        await paced(source, made[1:])
        await take(early, 27)
        late = taking(local, "h264")
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert all(encoded.again for encoded in await take(late, 28))
        assert loop.time() - began > 0.1
        local.close()
        source.stop()

    run(test())


def test_a_slow_sender_goes_on_from_a_key_frame() -> None:
    made = units("h264", 95)

    async def test() -> None:
        source = EncodedSource("h264", 240)
        local = LocalTrack(source.track)
        push(source, made[0])
        outlet = taking(local, "h264")
        first: Encoded
        (first,) = await take(outlet, 1)
        assert first.key
        for unit in made[1:]:  # and nothing is taken
            push(source, unit)
            while outlet._items and outlet._items[-1][0] < 0:
                await asyncio.sleep(0)
            await asyncio.sleep(0.002)
        assert len(outlet._items) <= ENCODED_QUEUE + 10
        assert outlet.dropped > 0
        waiting = [content for _, content in outlet._items]
        assert isinstance(waiting[0], Encoded)
        assert waiting[0].key
        got = await take(outlet, len(waiting))
        stamps = [first.pts, *(encoded.pts for encoded in got)]
        assert all(a < b for a, b in itertools.pairwise(stamps))
        local.close()
        source.stop()

    run(test())


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    made = units("h264", 21)
    monkeypatch.setattr(kept_group, "MAX_GROUP_BYTES", sum(map(len, made[:5])))

    async def test() -> None:
        source = EncodedSource("h264", 240)
        local = LocalTrack(source.track)
        push(source, made[0])
        early = taking(local, "h264")
        await take(early, 1)
        await paced(source, made[1:9], 0.003)
        await take(early, 8)
        late = taking(local, "h264")
        taken = asyncio.ensure_future(take(late, 2))
        await paced(source, made[9:12], 0.003)
        await take(early, 3)
        assert [one.key for one in await taken] == [True, False]
        local.close()
        source.stop()

    run(test())


def test_pictures_of_vp8_are_counted_on_when_they_are_sent_again() -> None:
    made = units("vp8", 5)

    async def test() -> None:
        source = EncodedSource("vp8", 240)
        local = LocalTrack(source.track)
        push(source, made[0])
        outlet = taking(local, "vp8")
        got = await take(outlet, 1)
        await paced(source, made[1:], 0.003)
        got += await take(outlet, 4)
        outlet.wants_key()
        got += await take(outlet, 5)
        assert [one.again for one in got[5:]] == [True] * 5
        packing = outlet._packing
        assert packing is not None
        payloads = [packing.pack(one)[0][0] for one in got]
        ids = [VpxPayloadDescriptor.parse(payload)[0].picture_id for payload in payloads]
        assert all(b == a + 1 for a, b in itertools.pairwise(ids))  # type: ignore[operator]
        local.close()
        source.stop()

    run(test())


def test_the_encoder_is_told_what_receivers_ask_for() -> None:
    async def test() -> None:
        source = EncodedSource("h264", 240)
        feedback = source.feedback()
        local = LocalTrack(source.track)
        outlets = [taking(local, "h264") for _ in range(2)]
        assert isinstance(feedback.get_nowait(), KeyFrameWanted)
        outlets[0].wants_key()
        outlets[1].wants_key()  # within a second: told then
        outlets[0].wishes(800_000)
        outlets[1].wishes(500_000)
        outlets[1].wishes(500_000)
        assert list(feedback._items) == [BitrateWanted(800_000), BitrateWanted(500_000)]
        feedback._items.clear()
        for _ in range(500):
            if feedback._items:
                break
            await asyncio.sleep(0.01)
        assert list(feedback._items) == [KeyFrameWanted()]
        local.close()
        source.stop()
        assert feedback.ended

    run(test())


def test_a_sender_with_another_codec_gets_nothing() -> None:
    made = units("h264", 3)

    async def test() -> None:
        source = EncodedSource("h264", 240)
        local = LocalTrack(source.track)
        other, right = taking(local, "vp8"), taking(local, "h264")
        taken = asyncio.ensure_future(take(right, 3))
        none = asyncio.ensure_future(other.recv())
        await paced(source, made)
        assert [type(one) for one in await taken] == [Encoded] * 3
        assert not none.done()
        none.cancel()
        local.close()
        source.stop()

    run(test())
