"""Limit frame rates, and share encoders between outlets of the same encoding."""

from __future__ import annotations

import asyncio

import pytest

from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.engine.sending.rendition import FrameRateLimit
from metered_sync.engine.webrtc.encoding import Encoding
from tests.support.local_tracks import Scripted, plain, run, take, taking, times


@pytest.mark.parametrize(("source", "limit"), [(30, 10), (30, 20), (15, 15), (10, 60), (25, 24)])
def test_a_limit_keeps_its_rate(source: int, limit: int) -> None:
    choice = FrameRateLimit(limit)
    allowed = [n for n in range(source * 10) if choice.allows(7 + n / source)]
    assert len(allowed) == pytest.approx(min(source, limit) * 10, abs=2)


def test_without_a_limit_everything_is_allowed() -> None:
    choice = FrameRateLimit(None)
    assert all(choice.allows(at) for at in (0.0, 0.0, 5.0, 1.0))


def test_a_pause_is_not_made_up_for() -> None:
    choice = FrameRateLimit(10)
    assert choice.allows(0.0)
    allowed = [n for n in range(45, 56) if choice.allows(n / 50)]
    assert len(allowed) <= 4  # of the 0.2 s after it, not of the 0.9 s before


@pytest.mark.parametrize("jump", [-100.0, 100.0])
def test_a_clock_that_jumps_begins_anew(jump: float) -> None:
    choice = FrameRateLimit(10)
    assert choice.allows(50.0)
    assert choice.allows(50.0 + jump)
    assert not choice.allows(50.05 + jump)
    assert choice.allows(50.1 + jump)


def test_a_picture_that_comes_a_little_early_is_in_time() -> None:
    choice = FrameRateLimit(10)
    assert choice.allows(0.0)
    assert choice.allows(0.0985)


def test_each_rate_codec_and_bit_rate_has_one_encoder() -> None:
    async def test() -> None:
        source = Scripted("video", plain)
        encodings = [
            Encoding(),
            Encoding(codec="vp8"),  # a wish, not another way to encode
            Encoding(max_framerate=10),
            Encoding(video_bitrate=300_000),
            Encoding(video_bitrate=300_000.4),  # type: ignore[arg-type]
            Encoding(video_bitrate=300_000, max_framerate=10),
        ]
        locals_ = [LocalTrack(source, encoding=encoding) for encoding in encodings]
        outlets = [taking(local) for local in locals_]
        await asyncio.gather(*(take(outlet, 3) for outlet in outlets))
        assert len(locals_[0].encoders) == 4
        assert outlets[0].encoder is outlets[1].encoder
        assert outlets[3].encoder is outlets[4].encoder
        other = taking(locals_[0], "h264")
        assert len(locals_[0].encoders) == 5
        other.close()
        assert len(locals_[0].encoders) == 4
        for local in locals_:
            local.close()

    run(test())


def test_rates_are_kept_beside_each_other() -> None:
    async def test() -> None:
        source = Scripted("video", plain)  # 50 a second
        fast, slow = LocalTrack(source), LocalTrack(source, encoding=Encoding(max_framerate=10))
        outlet = slow.outlet()
        other = asyncio.ensure_future(take(fast.outlet(), 10**6))
        got = times(await take(outlet, 10))
        assert got[-1] - got[0] > 0.8
        fast.close()
        other.cancel()
        slow.close()

    run(test())
