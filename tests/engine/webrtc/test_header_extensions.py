"""Agree on the header extensions about pictures, under numbers that mean nothing else."""

from __future__ import annotations

import asyncio

from aiortc.rtp import RtpPacket

from metered_sync.engine.webrtc.aiortc_private.extensions import extensions_of
from metered_sync.engine.webrtc.header_extensions import PictureExtensions
from metered_sync.engine.webrtc.peer_connection import peer_connection
from metered_sync.engine.webrtc.picture_extensions import COLOR_SPACE, VIDEO_ORIENTATION
from metered_sync.wire import sdp

TURNED = bytes((0x90, 0x61)) + bytes(10) + bytes((0xBE, 0xDE, 0, 1, 0xD0, 3, 0, 0)) + b"data"
"""A packet with the orientation 3, under the number 13."""


async def offered(*kinds: str) -> sdp.Description:
    pc = peer_connection([])
    for kind in kinds:
        pc.addTransceiver(kind, "recvonly")
    offer = sdp.parse((await pc.createOffer()).sdp)
    await pc.close()
    return offer


def numbers(description: sdp.Description, section: int = 0) -> dict[str, int]:
    return {e.uri: e.id for e in description.sections[section].extensions}


def test_offers_and_answers() -> None:
    async def test() -> None:
        plain = await offered("video", "audio")
        offer = PictureExtensions().offer(plain)
        assert numbers(offer)[VIDEO_ORIENTATION] == 13
        assert numbers(offer)[COLOR_SPACE] == 8
        assert numbers(offer).items() >= numbers(plain).items()
        assert VIDEO_ORIENTATION not in numbers(offer, 1)
        assert PictureExtensions().answer(plain, plain) == plain  # what is not offered
        assert numbers(PictureExtensions().answer(plain, offer)).keys() == numbers(offer).keys()

    asyncio.run(test())


def test_numbers_of_the_other_side_are_kept() -> None:
    async def test() -> None:
        plain = await offered("video")
        text = sdp.build(PictureExtensions().offer(plain))
        theirs = sdp.parse(
            text.replace("extmap:13 ", "extmap:5 ").replace("extmap:8 ", "extmap:13 ")
        )
        pc = peer_connection([])
        pc.addTransceiver("video", "recvonly")
        extensions = PictureExtensions()
        extensions.learn(theirs, pc)
        assert numbers(extensions.offer(plain)) == numbers(theirs)
        await pc.close()

    asyncio.run(test())


def test_a_number_with_another_meaning_is_left_alone() -> None:
    async def test() -> None:
        text = sdp.build(await offered("video"))
        taken = sdp.parse(text.replace("extmap:3 ", "extmap:13 "))
        assert 13 in numbers(taken).values()
        assert VIDEO_ORIENTATION not in numbers(PictureExtensions().offer(taken))

    asyncio.run(test())


def test_packets_are_read_once_both_sides_have_agreed() -> None:
    async def test() -> None:
        pc = peer_connection([])
        transport = pc.addTransceiver("video", "recvonly").receiver.transport
        extensions = PictureExtensions()
        plain = await offered("video")
        for agreed, read in (
            (extensions.offer(plain), {VIDEO_ORIENTATION: b"\3"}),
            (plain, {}),
        ):
            extensions.learn(agreed, pc)
            packet = RtpPacket.parse(TURNED, transport._rtp_header_extensions_map)
            assert extensions_of(packet) == read
        assert extensions_of(RtpPacket()) == {}
        await pc.close()

    asyncio.run(test())
