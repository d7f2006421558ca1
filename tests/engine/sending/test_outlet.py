"""Hand a sender frames over every kind of swap between tracks, up to the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from aiortc.mediastreams import MediaStreamError

from metered_sync.engine.sending import outlet as outlet_module
from metered_sync.engine.sending.local_track import LocalTrack
from tests.support.connections import until
from tests.support.local_tracks import (
    Scripted,
    beep,
    links,
    picture,
    plain,
    rising,
    run,
    take,
    taking,
    times,
    together,
    tone,
)


def test_a_slow_outlet_holds_up_nothing_and_counts_what_it_drops() -> None:
    async def test() -> None:
        for kind, make, most in (("video", plain, 1), ("audio", beep, outlet_module.SOUND_QUEUE)):
            local = LocalTrack(Scripted(kind, make))
            slow, quick = local.outlet(), local.outlet()
            await take(slow, 1)
            frames = await take(quick, 30)
            assert rising(frames)
            assert len(slow._items) <= most
            assert slow.dropped >= 30 - most - 3
            late = await take(slow, 1)
            # Video: the newest one. Audio: the oldest of a few.
            assert times(late)[0] >= times(frames)[-most - 1]
            local.close()

    run(test())


def test_an_outlet_outlives_its_source_and_ends_when_closed() -> None:
    async def test() -> None:
        local = LocalTrack(Scripted("video", plain, count=3))
        outlet = local.outlet()
        before = await take(outlet, 3)
        waiting = asyncio.ensure_future(outlet.recv())
        await until(lambda: local.ended)
        assert not waiting.done()
        other = LocalTrack(Scripted("video", plain))
        outlet.switch(other)
        after = [await asyncio.wait_for(waiting, 20), *await take(outlet, 2)]
        assert rising(before + after)
        other.close()
        with suppress(asyncio.TimeoutError):  # at most what was read already
            await take(outlet, 1, timeout=0.2)
        with pytest.raises(asyncio.TimeoutError):
            await take(outlet, 1, timeout=0.2)
        waiting = asyncio.ensure_future(outlet.recv())
        await asyncio.sleep(0)
        outlet.close()
        with pytest.raises(MediaStreamError):
            await asyncio.wait_for(waiting, 20)
        assert outlet.readyState == "ended"
        local.close()

    run(test())


SWAPS: dict[str, tuple[str, Callable[[int], Any], Callable[[int], Any]]] = {
    "video, another time base and size": (
        "video",
        lambda n: plain(n, start=900_000, rate=90_000),
        lambda n: plain(n, rate=1000, size=48),
    ),
    "audio, another rate and layout": (
        "audio",
        lambda n: beep(n, rate=44100, layout="stereo"),
        lambda n: beep(n, rate=8000),
    ),
}


@pytest.mark.parametrize("name", SWAPS)
@pytest.mark.parametrize("how", ["switch", "restart"])
def test_timestamps_go_on_over_a_swap(name: str, how: str) -> None:
    kind, one, other = SWAPS[name]

    async def test() -> None:
        local = LocalTrack(Scripted(kind, one))
        second = LocalTrack(Scripted(kind, other))
        outlet, bystander = local.outlet(), second.outlet()
        await take(bystander, 5)  # it has been running, from another moment on
        got = await take(outlet, 10)
        for _ in range(3):
            if how == "restart":
                outlet.switch(None)
                await asyncio.sleep(0.3)
            outlet.switch(second)
            got += await take(outlet, 10)
            outlet.switch(local)
            got += await take(outlet, 10)
        assert rising(got)
        if kind == "audio":
            assert {frame.sample_rate for frame in got} == {48000}
            assert {(frame.layout.name, frame.samples) for frame in got} == {("stereo", 960)}
        local.close()
        second.close()

    run(test())


SEAMS = {
    # The clock at the end of what came before, at the beginning of what follows; the latter sent.
    "sound goes on a little later": ("audio", 96_000, 98_000, 96_000),
    "sound goes on from before": ("audio", 96_000, 90_000, 96_000),
    "sound was silent": ("audio", 96_000, 192_000, 192_000),
    "a picture comes later": ("video", 90_001, 95_000, 95_000),
}


@pytest.mark.parametrize("name", SEAMS)
def test_the_seam_between_two_tracks(name: str) -> None:
    kind, end, start, sent = SEAMS[name]
    content: Any = plain(0) if kind == "video" else bytes(960 * 4)
    length, rate = (1, 90_000) if kind == "video" else (960, 48_000)

    async def test() -> None:
        one, other = (LocalTrack(Scripted(kind, plain, count=0)) for _ in range(2))
        outlet = one.outlet()
        outlet.asked = True
        outlet.put(end - length, content)
        assert times(await take(outlet, 1)) == [(end - length) / rate]
        outlet.switch(other)
        for pts in (start, start + 5000):
            outlet.put(pts, content)
            assert times(await take(outlet, 1)) == [(pts - start + sent) / rate]
        one.close()
        other.close()

    run(test())


def test_a_picture_of_a_track_whose_clock_is_behind() -> None:
    async def test() -> None:
        one, other = (LocalTrack(Scripted("video", plain, count=0)) for _ in range(2))
        outlet = one.outlet()
        outlet.asked = True
        outlet.put(90_000, plain(0))
        got = await take(outlet, 1)
        outlet.switch(other)
        await asyncio.sleep(0.1)
        outlet.put(9_000, plain(0))
        got += await take(outlet, 1)
        outlet.put(12_000, plain(0))
        got += await take(outlet, 1)
        first, second, third = times(got)
        assert 0.05 < second - first < 5  # what has passed
        assert third - second == pytest.approx(3000 / 90_000)
        one.close()
        other.close()

    run(test())


def test_kinds_do_not_mix() -> None:
    async def test() -> None:
        local = LocalTrack(Scripted("video", plain))
        other = LocalTrack(Scripted("audio", beep))
        with pytest.raises(ValueError, match="'video' cannot go on with 'audio'"):
            local.outlet().switch(other)

    run(test())


def test_two_receivers_go_on_over_every_kind_of_swap() -> None:
    async def test() -> None:
        video, audio = LocalTrack(picture()), LocalTrack(tone(440))
        small, high = LocalTrack(picture(10, 128, 96)), LocalTrack(tone(1000))
        async with links(2) as (one, two):
            outlets = [(video.outlet(), audio.outlet()) for _ in range(2)]
            for link, pair in zip((one, two), outlets, strict=True):
                await link.open(*pair)

            async def both(width: int, frequency: float) -> None:
                await together(*(link.numbers(width) for link in (one, two)))
                await together(*(link.hears(frequency) for link in (one, two)))

            await both(160, 440)
            for pictures, sound in outlets:  # another track
                pictures.switch(small)
                sound.switch(high)
            await both(128, 1000)
            for pictures, sound in outlets:  # none, and then the first one again
                pictures.switch(None)
                sound.switch(None)
            sent = [outlet.frames for pair in outlets for outlet in pair]
            await asyncio.sleep(0.3)
            assert [outlet.frames for pair in outlets for outlet in pair] == sent
            for pictures, sound in outlets:
                pictures.switch(video)
                sound.switch(audio)
            await both(160, 440)
            for link in (one, two):
                link.assert_rising()
        for local in (video, audio, small, high):
            local.close()

    run(test())


def test_removing_and_adding_goes_on_too() -> None:
    async def test() -> None:
        first, second = LocalTrack(picture()), LocalTrack(picture(10, 128, 96))
        async with links() as (link,):
            outlet = first.outlet()
            await link.open(outlet)
            await link.numbers(160)
            outlet.switch(None)
            (transceiver,) = link.near.getTransceivers()
            transceiver.direction = "inactive"
            await link.negotiate()
            outlet.switch(second)
            transceiver.direction = "sendonly"
            await link.negotiate()
            await link.numbers(128)
            link.assert_rising()
        first.close()
        second.close()

    run(test())


def test_not_being_allowed_to_send_for_a_while_goes_on_too() -> None:
    async def test() -> None:
        local = LocalTrack(picture())
        async with links() as (link,):
            outlet = local.outlet()
            await link.open(outlet)
            await link.numbers(160)
            (transceiver,) = link.near.getTransceivers()
            transceiver.direction = "inactive"
            await link.negotiate()
            await asyncio.sleep(0.5)
            link.received["video"].clear()
            transceiver.direction = "sendonly"
            await link.negotiate()
            await link.numbers(160)
            assert outlet.encoder is not None
        local.close()

    run(test())


def test_closing_late_leaves_nothing() -> None:
    async def test() -> None:
        local = LocalTrack(picture())
        async with links() as (link,):
            outlet = local.outlet()
            await link.open(outlet)
            await link.numbers(160)
            local.close()
            await asyncio.sleep(0.1)
            assert outlet.readyState == "live"
        assert outlet.readyState == "ended"
        outlet.close()
        outlet.switch(local)
        local.close()

    run(test())


def test_a_sender_that_sends_already_is_attached() -> None:
    async def test() -> None:
        local, other = LocalTrack(picture()), LocalTrack(picture(10, 128, 96))
        async with links() as (link,):
            outlet = local.outlet()
            link.near.addTransceiver(outlet, "sendonly")
            await link.negotiate()
            await link.numbers(160)
            assert not local.encoders
            (sender,) = link.near.getSenders()
            for _ in range(2):
                outlet.attach(sender)
            await link.wait(lambda: local.encoders)
            await link.more("video", 10)
            # The sender may be given another outlet as well, attached at once or later.
            later = other.outlet()
            sender.replaceTrack(later)
            outlet.switch(other)  # lets go of its present recv()
            await link.numbers(128)
            later.attach(sender)
            await link.wait(lambda: later.encoder is not None)
            await link.more("video", 10)
            link.assert_rising()
            outlet.close()
        local.close()
        other.close()

    run(test())


def test_a_sender_that_is_stuck_goes_on_with_a_key_frame() -> None:
    async def test() -> None:
        local = LocalTrack(Scripted("video", lambda n: plain(n, rate=90_000)))
        stuck, quick = taking(local), taking(local)
        await take(stuck, 1)
        await take(quick, outlet_module.ENCODED_QUEUE + 20)
        assert stuck.dropped >= outlet_module.ENCODED_QUEUE
        assert len(stuck._items) <= outlet_module.ENCODED_QUEUE
        assert (await take(stuck, 1))[0].key
        local.close()

    run(test())
