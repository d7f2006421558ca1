"""Encode pictures once for several senders: key frames, bit rates, codecs."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import Any

import pytest
from av import VideoFrame

from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.engine.sending.shared_encoder import (
    MIN_KEY_FRAME_INTERVAL,
    Encoded,
    SharedEncoder,
)
from metered_sync.engine.webrtc.aiortc_private import capabilities
from metered_sync.engine.webrtc.aiortc_private.capabilities import Capability
from metered_sync.engine.webrtc.encoding import Encoding
from metered_sync.testing import read_number
from tests.support.local_tracks import (
    FPS,
    Scripted,
    links,
    picture,
    plain,
    run,
    take,
    taking,
    together,
)


def test_what_several_send_is_encoded_once() -> None:
    async def test() -> None:
        local = LocalTrack(picture())
        async with links(3) as made:
            outlets = [local.outlet() for _ in made]
            for link, outlet in zip(made, outlets, strict=True):
                await link.open(outlet)
            await together(*(link.numbers(160) for link in made))
            await together(*(link.more("video", 2 * FPS) for link in made))
            (encoder,) = local.encoders
            assert encoder.consumers == 3
            assert all(outlet.encoder is encoder for outlet in outlets)
            assert encoder.pictures <= local._reader.frames
            assert sum(outlet.frames for outlet in outlets) > 2 * encoder.pictures
            for link in made:
                link.assert_rising()
                # A busy machine blurs a picture now and then; without the one before, all
                # that follow would be.
                seen = [read_number(f.to_ndarray(format="gray")) for f in link.received["video"]]
                assert seen.count(None) <= len(seen) / 4, seen
        local.close()

    run(test())


def test_two_codecs_and_a_swap() -> None:
    async def test() -> None:
        local, other = LocalTrack(picture()), LocalTrack(picture(10, 128, 96))
        async with links(2) as made:
            outlets = [local.outlet(), local.outlet()]
            for link, outlet, codec in zip(made, outlets, ("vp8", "h264"), strict=True):
                await link.open(outlet, codec=codec)
            await together(*(link.numbers(160) for link in made))
            assert {encoder.codec for encoder in local.encoders} == {"vp8", "h264"}
            for outlet in outlets:
                outlet.switch(other)
            await together(*(link.numbers(128) for link in made))
            assert not local.encoders
            assert {encoder.codec for encoder in other.encoders} == {"vp8", "h264"}
            for link in made:
                link.assert_rising()
        local.close()
        other.close()

    run(test())


@pytest.mark.parametrize("codec", ["vp8", "h264"])
def test_who_joins_late_begins_with_a_key_frame(codec: str) -> None:
    async def test() -> None:
        local = LocalTrack(picture())
        first = taking(local, codec)
        keys = [encoded.key for encoded in await take(first, 10)]
        assert keys == [True] + [False] * 9
        late = taking(local, codec)
        both = await asyncio.gather(take(first, 6), take(late, 3))
        assert both[1][0].key
        assert [encoded.pts for encoded in both[1]] == sorted({e.pts for e in both[1]})
        assert sum(encoded.key for encoded in both[0]) == 1
        local.close()

    run(test())


def test_a_late_receiver_sees_the_picture_without_asking() -> None:
    async def test() -> None:
        local = LocalTrack(picture())
        async with links(2) as (one, two):
            await one.open(local.outlet())
            await one.more("video", 10)
            late = local.outlet()
            await two.open(late)
            await two.numbers(160)
            seen = [read_number(f.to_ndarray(format="gray")) for f in two.received["video"]]
            assert any(number is not None for number in seen[:3]), seen  # not grey, not smeared
        local.close()

    run(test())


@pytest.mark.parametrize("codec", ["vp8", "h264"])
def test_a_receiver_that_asks_for_a_key_frame_gets_one(codec: str) -> None:
    async def test() -> None:
        local = LocalTrack(picture(15))
        probe = taking(local, codec)
        async with links() as (link,):
            await link.open(local.outlet(), codec=codec)
            await together(link.numbers(160), take(probe, 10))
            (encoder,) = local.encoders
            assert encoder.consumers == 2
            while any(encoded.key for encoded in await take(probe, 5)):
                pass
            (receiver,) = link.far.getReceivers()
            await receiver._send_rtcp_pli(link.senders[0]._ssrc)
            for _ in range(100):
                (encoded,) = await take(probe, 1)
                if encoded.key:
                    break
            assert encoded.key
        probe.close()
        local.close()

    run(test())


def test_any_size_can_be_encoded() -> None:
    async def test() -> None:
        sizes = [(33, 65), (64, 64), (1, 1)]
        local = LocalTrack(
            Scripted("video", lambda n: VideoFrame(*sizes[n // 5 % 3], ("rgb24", "yuv420p")[n % 2]))
        )
        for codec in ("vp8", "h264"):
            outlet = taking(local, codec)
            got = await take(outlet, 15)
            assert sum(encoded.key for encoded in got) >= 3
            outlet.close()
        local.close()

    run(test())


def test_pictures_that_cannot_be_encoded_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        # VP8 counts the width in 14 bits (RFC 6386, 9.1).
        local = LocalTrack(
            Scripted("video", lambda n: VideoFrame(16_386, 2, "yuv420p") if n < 3 else plain(n))
        )
        outlet = taking(local)
        assert [encoded.key for encoded in await take(outlet, 3)] == [True, False, False]
        local.close()

    run(test())
    assert caplog.text.count("pictures cannot be encoded as vp8") == 1


def test_many_who_ask_get_few_key_frames() -> None:
    async def test() -> None:
        local = LocalTrack(Scripted("video", plain))
        outlet = taking(local)
        began = time.monotonic()
        keys = 0
        while keys < 5:
            (encoded,) = await take(outlet, 1)
            keys += encoded.key
            outlet.wants_key()
        assert time.monotonic() - began >= 3 * MIN_KEY_FRAME_INTERVAL
        local.close()

    run(test())


def test_a_picture_that_stands_still_reaches_who_joins_late() -> None:
    class Still(Scripted):
        async def recv(self) -> Any:
            if self.reads:
                await asyncio.Event().wait()
            return await super().recv()

    async def test() -> None:
        local = LocalTrack(Still("video", plain))
        first = taking(local)
        got = await take(first, 1)
        late = taking(local)
        (shown,) = await take(late, 1)
        assert shown.key
        got += await take(first, 1)
        assert [encoded.pts for encoded in got] == sorted({encoded.pts for encoded in got})
        late.wants_key()
        while not (await take(late, 1))[0].key:  # (what was on its way comes first)
            pass
        local.close()  # nor is it shown when it is to be seen no more
        with pytest.raises(asyncio.TimeoutError):
            await take(taking(local), 1, timeout=0.6)

    run(test())


def test_a_picture_that_stands_still_is_not_shown_again_before_a_key_frame_is_due() -> None:
    class Late(Scripted):
        async def recv(self) -> Any:
            await asyncio.sleep(0.2 if self.reads == 0 else 3600)
            return await super().recv()

    async def test() -> None:
        local = LocalTrack(Late("video", plain))
        outlet = taking(local)
        await take(outlet, 1)
        for _ in range(3):  # the time of the third is half a second after that of the first
            outlet.wants_key()
            assert (await take(outlet, 1))[0].key
        local.close()

    run(test())


def test_the_bit_rate_is_the_least_that_a_receiver_wishes() -> None:
    async def test() -> None:
        local, pinned = (
            LocalTrack(picture(), encoding=Encoding(video_bitrate=bitrate))
            for bitrate in (None, 2_000_000)
        )
        one, two = taking(local), taking(local)
        assert one.encoder is not None
        for outlet, wish, rate in (
            (one, 900_000, 900_000),
            (two, 1_200_000, 900_000),
            (two, 600_000, 600_000),
            (two, 1_000, 250_000),  # the limits of aiortc
        ):
            outlet.wishes(wish)
            assert one.encoder.bitrate == rate
        two.close()
        assert one.encoder.bitrate == 900_000
        held = taking(pinned)
        held.wishes(300_000)
        assert held.encoder is not None
        assert held.encoder.bitrate == 2_000_000
        assert (await take(held, 1))[0].payloads
        local.close()
        pinned.close()

    run(test())


def test_a_receivers_estimate_arrives() -> None:
    async def test() -> None:
        local = LocalTrack(picture(15))
        async with links() as (link,):
            outlet = local.outlet()
            await link.open(outlet)
            await link.wait(lambda: outlet.wish is not None, 30)
            assert outlet.encoder is not None
            assert 250_000 <= outlet.encoder.bitrate <= 1_500_000
        local.close()

    run(test())


def test_with_an_aiortc_that_hides_its_encoders_each_sender_encodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        capabilities, "capabilities", lambda: frozenset(Capability) - {Capability.ENCODERS}
    )

    async def test() -> None:
        local = LocalTrack(picture())
        async with links(2) as made:
            for link in made:
                await link.open(local.outlet())
            await together(*(link.numbers(160) for link in made))
            assert not local.encoders
        local.close()

    run(test())


@pytest.mark.skipif(sys.platform != "linux", reason="where stacks of any size can be had")
def test_a_machine_without_threads_loses_pictures_and_no_more() -> None:
    class Taker:
        wish = None

        def __init__(self) -> None:
            self.taken: asyncio.Queue[Encoded] = asyncio.Queue()

        def put(self, pts: int, content: Encoded) -> None:
            self.taken.put_nowait(content)

    async def test() -> None:
        encoder, taker = SharedEncoder("vp8", None, lambda: None), Taker()
        encoder.add(taker)  # type: ignore[arg-type]
        threading.stack_size(1 << 47)  # which no system has
        try:
            encoder.put(0, VideoFrame(64, 48, "yuv420p"))
        finally:
            threading.stack_size(0)
        assert encoder.dropped == 1
        encoder.put(3000, VideoFrame(64, 48, "yuv420p"))
        first = await asyncio.wait_for(taker.taken.get(), 20)
        assert (first.pts, first.key) == (3000, True)
        assert taker.taken.empty()

    asyncio.run(test())
