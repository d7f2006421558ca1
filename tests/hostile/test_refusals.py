"""Refuse what we offer: each refusal is remembered, and nothing is offered again and again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from metered_sync import MeteredError, MeteredPeer, NegotiationFailedError
from metered_sync.engine.webrtc.sdp_repair import reject
from metered_sync.engine.webrtc.stats import Received
from metered_sync.local import LocalCloud
from metered_sync.wire import sdp
from metered_sync.wire.signals import SessionDescription, build_signal
from tests.support.connections import FAST, Side, picture, run, tone, until
from tests.support.raw_client import raw
from tests.support.refusing_member import RefusingMember

SETTLED = 0.2
"""Seconds in which a storm has dozens of offers."""


@contextlib.asynccontextmanager
async def refused(local_id: str = "a") -> AsyncIterator[tuple[Side, RefusingMember]]:
    """Make one of us, and a member that refuses everything."""
    side = Side(local_id, "m", timings=replace(FAST, first_offer=0.05))
    member = RefusingMember(side)
    try:
        yield side, member
    finally:
        await asyncio.gather(side.link.aclose(), member.close())


async def rests(side: Side, offers: int) -> None:
    """Wait for that many offers; there are no more of them, and nothing is waited for."""
    await until(lambda: side.offers() >= offers, what=f"{offers} offers")
    await asyncio.sleep(SETTLED)
    assert side.offers() == offers


@pytest.mark.parametrize(("id_", "bare"), [("a", True), ("z", False)])
def test_all_is_refused(id_: str, bare: bool) -> None:
    async def test() -> None:
        async with refused(id_) as (side, member):
            member.bare = bare
            video, audio = picture(), tone()
            side.link.set_tracks([video, audio])
            await rests(side, 1)
            assert (side.link.state, side.errors, side.resets) == ("idle", [], 0)
            side.link.set_tracks([video, audio])  # as they were
            await rests(side, 1)
            side.link.set_tracks([video])
            await rests(side, 2)
            side.link.replace_track(video, picture())
            await rests(side, 3)
            assert len(member.offers[-1].sections) == 2
            # Another mind, and all is well.
            member.refuses = lambda _: False
            side.link.set_tracks([audio])
            await until(lambda: side.link.state == "connected", what="connected")
            await rests(side, 4)
            assert (side.errors, side.resets) == ([], 0)

    run(test())


def test_one_kind_is_refused() -> None:
    """Sound plays on, and each change of our tracks is one offer more, of no more sections."""

    async def test() -> None:
        async with refused() as (side, member):
            member.refuses = lambda section: section.kind == "video"
            audio = tone()
            side.link.set_tracks([picture(metadata={"n": 0}), audio])
            await until(lambda: side.link.state == "connected", what="connected")
            await rests(side, 1)
            for number in range(1, 4):
                side.link.set_tracks([picture(metadata={"n": number}), audio])
                await rests(side, number + 1)
                offer = member.offers[-1]
                assert [s.kind for s in offer.sections] == ["video", "audio"]
                assert not offer.sections[0].rejected  # in the place of the one given up
            mids = [offer.sections[0].mid for offer in member.offers]
            assert len(set(mids)) == len(mids)  # RFC 9429, section 5.2.2
            member.refuses = lambda _: False
            side.link.set_tracks([picture(), audio])
            await rests(side, 5)
            receivers = {t.kind: t.receiver for t in member.pc.getTransceivers() if t.mid}
            seen = Received()
            seen.watch(receivers["video"], ())
            await until(lambda: seen.packets > 3, what="pictures")
            assert (side.errors, side.resets) == ([], 0)

    run(test())


def test_a_section_of_the_other_side_with_room_takes_what_was_refused() -> None:
    async def test() -> None:
        async with refused() as (side, member):
            side.link.set_tracks([tone()])
            await rests(side, 1)
            member.pc.addTransceiver("audio", direction="recvonly")
            await member.offer()
            await until(lambda: side.link.state == "connected", what="connected")
            await rests(side, 1)
            assert [s.direction for s in member.answers[-1].sections] == ["sendonly"]

    run(test())


@pytest.mark.parametrize("then", ["refused", "taken"])
def test_sections_are_stopped_by_an_offer(then: str) -> None:
    """Their tracks move to other sections, once."""

    async def test() -> None:
        async with refused() as (side, member):
            member.refuses = lambda _: False
            side.link.set_tracks([picture(), tone()])
            await until(lambda: side.link.state == "connected", what="connected")
            await rests(side, 1)
            member.refuses, member.bare = lambda _: then == "refused", False
            for count in range(1, 4):
                await member.offer_to_stop()
                await until(lambda n=count: len(member.answers) == n, what="an answer")
                await rests(side, 2)
            assert side.errors == []
            assert len(member.offers[-1].sections) == 4

    run(test())


@pytest.mark.parametrize("beside", [True, False])
def test_data_channels_are_refused(beside: bool) -> None:
    async def test() -> None:
        async with refused() as (side, member):
            member.refuses = lambda section: section.kind == "application"
            if beside:
                side.link.set_tracks([tone()])
            raw = await side.link.open_channel("chat", {})
            problems: list[MeteredError] = []
            raw.on("error", problems.append)
            await rests(side, 1)
            assert side.link.state == ("connected" if beside else "idle")
            assert raw.readyState == "closed"
            assert ["refuses data channels" in str(problem) for problem in problems] == [True]
            if beside:
                with pytest.raises(NegotiationFailedError, match="refuses data channels"):
                    await side.link.open_channel("again", {})
            else:  # then it is offered once more
                assert (await side.link.open_channel("again", {})).readyState == "connecting"
                await rests(side, 2)

    run(test())


@pytest.mark.parametrize("wait", [True, False])
def test_whoever_waits_for_a_refused_data_channel_is_told_at_once(
    shared_cloud: LocalCloud, wait: bool
) -> None:
    room = f"refused-{wait}"
    with (
        MeteredPeer(**shared_cloud.token_options("a"), ice_servers=[]) as peer,
        raw(shared_cloud, "z") as member,
        ThreadPoolExecutor(1) as pool,
    ):
        peer.join(room)
        member.ask(type="subscribe", channel=room)
        remote = peer.wait_for_peer("z", timeout=20)
        opened = pool.submit(remote.create_data_channel, "chat", wait=wait, timeout=30)
        while True:
            frame = member.receive()
            data = frame.get("data") if frame["type"] == "direct" else None
            if isinstance(data, dict) and data.get("type") == "rtc-description":
                break
        offer = sdp.parse(data["description"]["sdp"])
        answer = reject(offer, {section.mid for section in offer.sections})
        signal = build_signal(SessionDescription("answer", sdp.build(answer)))
        member.ask(type="send", to="a", data=signal)
        if wait:
            with pytest.raises(NegotiationFailedError, match="refuses data channels"):
                opened.result(10)
        else:
            channel = opened.result(10)
            with pytest.raises(NegotiationFailedError, match="refuses data channels"):
                channel.get(timeout=20)
            assert channel.state == "closed"
