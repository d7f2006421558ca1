"""Paths between two connections that go dark: both ways, one way, for a moment, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from metered_sync.wire.signals import SessionDescription, Signal, build_signal
from metered_sync.wire.timings import DEFAULT_TIMINGS, Timings
from tests.support.connections import FAST, Pair, Side, frames, pair, picture, run, tone, until
from tests.support.detour import Detour, detour

QUICK = replace(FAST, path_silence=0.3, path_probe=0.3)
HUNDREDTH = replace(
    FAST,
    path_silence=DEFAULT_TIMINGS.path_silence / 100,
    path_probe=DEFAULT_TIMINGS.path_probe / 100,
)


@contextlib.asynccontextmanager
async def apart(timings: Timings = QUICK) -> AsyncIterator[tuple[Pair, Detour]]:
    """Make two sides whose media take a detour."""
    async with detour() as way, pair(timings=timings) as both:
        straight = both.carry

        async def carry(side: Side, data: dict[str, Any], signal: Signal) -> None:
            if isinstance(signal, SessionDescription):
                name = "polite" if side is both.polite else "impolite"
                signal = replace(signal, sdp=await way.lead(name, signal.sdp))
                data = build_signal(signal)
            await straight(side, data, signal)

        for side in both.sides:
            side.carry = carry
        yield both, way


async def made_anew(both: Pair, way: Detour, *senders: str) -> None:
    """Have a path lose what these send; see that both find another one, and go on."""
    generations = both.polite.link.generations
    way.darken(*senders)
    for side in both.sides:
        await until(lambda side=side: side.link.generations > generations, what="another path")
    await both.connected()
    assert [side.states for side in both.sides] == [
        ["connecting", "connected", "reconnecting", "connected"]
    ] * 2
    assert [side.link.generations for side in both.sides] == [generations + 1] * 2
    assert [side.errors for side in both.sides] == [[], []]


@pytest.mark.parametrize("senders", [("polite", "impolite"), ("polite",), ("impolite",)])
@pytest.mark.parametrize("sends", ["polite", "impolite"])
def test_a_path_that_goes_dark_is_made_anew(senders: tuple[str, ...], sends: str) -> None:
    async def test() -> None:
        async with apart() as (both, way):
            sender: Side = getattr(both, sends)
            receiver = both.other(sender)
            sender.link.set_tracks([picture()])
            await until(lambda: receiver.present, what="the track")
            (track,) = receiver.present
            await frames(track)
            await made_anew(both, way, *senders)
            await frames(track)
            assert receiver.present == [track]

    run(test())


def test_a_path_for_data_that_goes_dark_is_made_anew() -> None:
    """Nothing is sent over it: the answers of probes alone are missing."""

    async def test() -> None:
        async with apart() as (both, way):
            await both.impolite.link.open_channel("only", {})
            await until(lambda: both.polite.channels, what="the channel")
            await both.connected()
            await made_anew(both, way, "polite", "impolite")

    run(test())


def test_a_path_that_was_dark_for_a_moment_goes_on() -> None:
    async def test() -> None:
        async with apart(replace(QUICK, path_probe=20.0)) as (both, way):
            both.polite.link.set_tracks([picture(), tone()])
            await until(lambda: len(both.impolite.present) == 2, what="tracks")
            seen, heard = both.impolite.present
            await frames(seen)
            for _ in range(2):
                way.darken("polite", "impolite")
                # Long enough for probes, on both sides.
                await asyncio.sleep(QUICK.path_silence * 2)
                way.lighten()
                await asyncio.gather(frames(seen), frames(heard))
            for side in both.sides:
                assert (side.link.generations, side.errors) == (1, [])
                assert side.states == ["connecting", "connected"]

    run(test())


def test_a_path_that_dies_is_kept_until_signalling_is_back() -> None:
    """Nothing can be made anew before, and it may come back by itself."""

    async def test() -> None:
        async with apart() as (both, way):
            both.polite.link.set_tracks([picture()])
            await until(lambda: both.impolite.present, what="the track")
            (seen,) = both.impolite.present
            await frames(seen)
            for side in both.sides:
                side.signalling_is_up = False
            way.darken("polite", "impolite")
            for side in both.sides:
                await until(lambda side=side: side.link._generation.path_died, what="death")
            way.lighten()
            await frames(seen)
            assert [side.link.generations for side in both.sides] == [1, 1]
            for side in both.sides:
                assert (side.states, side.errors) == (["connecting", "connected"], [])
                side.signalling_is_up = True
            both.polite.link.rebuild(local_id="a")
            await until(lambda: seen.restarts >= 1, what="another path")
            await both.connected()
            await frames(seen)
            assert both.impolite.present == [seen]

    run(test())


async def quiet_for(seconds: float, timings: Timings) -> None:
    """See that a path over which nothing is sent for so long is left alone, and probed."""
    async with apart(timings) as (both, way):
        channel = await both.impolite.link.open_channel("quiet", {})
        await until(lambda: both.polite.channels, what="the channel")
        await both.connected()
        came: list[Any] = []
        both.polite.channels[0].on("message", came.append)
        checks, end = way.checks, time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(min(1.0, seconds / 10))
            assert channel.readyState == "open"
        channel.send("still here")
        await until(lambda: came, what="the message")
        assert [side.link.generations for side in both.sides] == [1, 1]
        assert [side.states for side in both.sides] == [["connecting", "connected"]] * 2
        assert way.checks - checks >= seconds / timings.path_silence / 10


def test_a_path_that_is_merely_quiet_is_left_alone() -> None:
    """Three minutes of silence, if all went by the usual intervals."""
    run(quiet_for(1.8, HUNDREDTH))


@pytest.mark.slow
def test_a_path_that_is_quiet_for_half_an_hour_is_left_alone() -> None:
    run(quiet_for(18.0, HUNDREDTH))


@pytest.mark.slow
@pytest.mark.timeout(2000)
def test_a_path_that_is_quiet_for_half_an_hour_in_real_time_is_left_alone() -> None:
    run(quiet_for(1800.0, DEFAULT_TIMINGS), timeout=1900)
