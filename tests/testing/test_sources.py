"""Show the test pattern and play the tone, by themselves and over WebRTC; files too."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from metered_sync import from_file
from metered_sync.engine.sending import feed as tracks_module
from metered_sync.media.sources.base import Source
from metered_sync.testing import PatternSource, ToneSource, dominant_frequency, read_number
from tests.conftest import run_script

BUNNY = Path(__file__).parents[2] / "metered_sync" / "demo" / "bunny.mp4"


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be dropped because this machine is busy."""
    for bound in ("MAX_OVERDUE", "MAX_PRODUCER_LAG", "END_WAIT"):
        monkeypatch.setattr(tracks_module, bound, 60.0)


async def consume(track: MediaStreamTrack | None) -> list[Any]:
    assert track is not None
    frames: list[Any] = []
    try:
        while True:
            frames.append(await track.recv())
    except MediaStreamError:
        return frames


def run(main: Awaitable[Any], timeout: float = 30.0) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(main, timeout)

    return asyncio.run(bounded())


def painted(number: int, width: int = 320, height: int = 240) -> Any:
    """Return a pattern frame, without waiting for its turn."""
    from metered_sync.testing.sources import PatternPainter

    return PatternPainter(width, height).frame(number)


# --- the pattern ----------------------------------------------------------------------


@pytest.mark.usefixtures("patient")
def test_the_pattern_counts_in_real_time() -> None:
    source = PatternSource(64, 48, fps=50, duration=0.5)
    assert source.captured(0) is None
    began = time.monotonic()
    frames = run(consume(source.video))
    source.wait(timeout=20)
    assert 0.4 < time.monotonic() - began < 5
    assert [read_number(frame.to_ndarray(format="bgr24")) for frame in frames] == list(range(25))
    assert [frame.pts for frame in frames] == [n * 1800 for n in range(25)]
    assert frames[0].time_base == Fraction(1, 90000)
    assert source.position == pytest.approx(0.5)
    assert source.frames_sent == {"video": 25}
    stamps = [source.captured(n) for n in range(25)]
    assert None not in stamps
    assert stamps == sorted(stamps)  # type: ignore[type-var]
    assert began <= stamps[0] <= stamps[-1] <= time.monotonic()  # type: ignore[operator]
    assert source.captured(25) is None


@pytest.mark.parametrize("number", [0, 1, 255, 4242, 0xABCDEF, 0xFFFFFF, 0x1000001])
@pytest.mark.parametrize("size", [(64, 48), (320, 240), (426, 240), (1280, 720), (240, 320)])
def test_a_number_is_read_at_every_size_and_order(number: int, size: tuple[int, int]) -> None:
    frame = painted(number, *size)
    for layout in ("bgr24", "rgb24", "gray"):
        assert read_number(frame.to_ndarray(format=layout)) == number & 0xFFFFFF


@pytest.mark.parametrize("size", [(320, 180), (200, 150), (80, 60), (1000, 333)])
def test_a_number_survives_scaling(size: tuple[int, int]) -> None:
    for number in range(0, 0xFFFFFF, 0x11111):
        frame = painted(number, 640, 480).reformat(*size, format="rgb24")
        assert read_number(frame.to_ndarray()) == number


@pytest.mark.parametrize(("codec", "options"), [
    ("libvpx", {"deadline": "realtime", "cpu-used": "8"}),
    ("libx264", {"preset": "ultrafast", "tune": "zerolatency"}),
])  # fmt: skip
def test_a_number_survives_coding_at_a_low_rate(codec: str, options: dict[str, str]) -> None:
    encoder: Any = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = 640, 480, "yuv420p"
    encoder.bit_rate, encoder.time_base = 150_000, Fraction(1, 30)
    encoder.framerate, encoder.options = Fraction(30), options
    decoder: Any = av.CodecContext.create("vp8" if codec == "libvpx" else "h264", "r")
    numbers = []
    for number in [*range(60), None]:
        frame = None if number is None else painted(number, 640, 480)
        if frame is not None:
            frame.pts, frame.time_base = number, Fraction(1, 30)
        for packet in encoder.encode(frame):
            numbers += [read_number(f.to_ndarray(format="bgr24")) for f in decoder.decode(packet)]
    numbers += [read_number(f.to_ndarray(format="bgr24")) for f in decoder.decode(None)]
    assert len(numbers) > 30  # an encoder may leave frames out
    assert None not in numbers
    assert set(numbers) <= set(range(60))


def test_pictures_without_a_number_have_none() -> None:
    random = np.random.default_rng(1)
    for image in (
        np.zeros((240, 320, 3), np.uint8),
        np.full((240, 320), 255, np.uint8),
        random.integers(0, 256, (240, 320, 3), np.uint8),
        np.zeros((4, 4), np.uint8),
        np.zeros(100, np.uint8),
        painted(7).to_ndarray(format="gray")[::-1],
    ):
        assert read_number(image) is None
    blocks = random.integers(0, 2, (1000, 5, 8)) * np.uint8(255)
    read = [
        read_number(np.concatenate((b, b)).repeat(8, 0).repeat(8, 1).astype(np.uint8))
        for b in blocks
    ]
    assert sum(number is not None for number in read) <= 1  # 16 bits of checksum


def test_the_pattern_gives_an_encoder_work() -> None:
    first, second = (painted(n).to_ndarray(format="rgb24")[120:].astype(int) for n in (10, 11))
    assert np.mean(np.abs(first - second)) > 3
    assert first.std(axis=(0, 1)).min() > 20


# --- the tone -------------------------------------------------------------------------


@pytest.mark.usefixtures("patient")
def test_the_tone_has_its_frequency_and_level() -> None:
    source = ToneSource(1234.5, level=-6, duration=0.5)
    frames = run(consume(source.audio))
    source.wait(timeout=20)
    assert source.frames_sent == {"audio": 25}
    assert [frame.pts for frame in frames] == [n * 960 for n in range(25)]
    for frame in frames:
        assert (frame.format.name, frame.layout.name) == ("s16", "stereo")
        assert (frame.samples, frame.sample_rate, frame.time_base) == (
            960,
            48000,
            Fraction(1, 48000),
        )
    pcm = np.concatenate([frame.to_ndarray().reshape(-1, 2) for frame in frames])
    assert dominant_frequency(pcm, 48000) == pytest.approx(1234.5, abs=0.5)
    assert np.abs(pcm).max() == pytest.approx(32767 / 2, rel=0.01)
    assert np.abs(np.diff(pcm[:, 0].astype(int))).max() < 2700  # no click where frames meet


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: PatternSource(321, 240), "width"),
        (lambda: PatternSource(320, 16), "height"),
        (lambda: PatternSource(fps=0), "fps"),
        (lambda: PatternSource(duration=-1), "duration"),
        (lambda: ToneSource(0), "frequency"),
        (lambda: ToneSource(24000), "frequency"),
        (lambda: ToneSource(level=1), "level"),
        (lambda: dominant_frequency(np.zeros(3), 48000), "16 samples"),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        make()


def test_without_webrtc_the_import_says_what_to_install() -> None:
    result = run_script(
        """
import sys
sys.modules["av"] = None
try:
    from metered_sync.testing import PatternSource
except ImportError as error:
    print(error)
"""
    )
    assert result.stderr == ""
    assert "metered_sync.testing needs WebRTC" in result.stdout
    assert "pip install 'metered_sync[webrtc]'" in result.stdout


# --- over WebRTC ----------------------------------------------------------------------


async def transmit(
    source: Source, codec: str | None, done: Callable[[str, list[Any]], bool]
) -> Any:
    """Send a source from one aiortc connection to another until ``done`` for every track.

    Returns the frames that arrived, by kind.
    """
    near, far = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
    arrived: dict[str, list[Any]] = {}
    tasks: list[asyncio.Task[None]] = []

    @far.on("track")
    def on_track(track: MediaStreamTrack) -> None:
        async def collect() -> None:
            frames = arrived.setdefault(track.kind, [])
            while not done(track.kind, frames):
                frames.append(await track.recv())

        tasks.append(asyncio.ensure_future(collect()))

    try:
        for track in source.tracks:
            near.addTrack(track)
        if codec is not None:
            codecs = RTCRtpReceiver.getCapabilities("video").codecs
            near.getTransceivers()[0].setCodecPreferences(
                [c for c in codecs if c.mimeType == codec]
            )
        await near.setLocalDescription(await near.createOffer())
        await far.setRemoteDescription(near.localDescription)
        await far.setLocalDescription(await far.createAnswer())
        await near.setRemoteDescription(far.localDescription)
        assert len(tasks) == len(source.tracks)
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(near.close(), far.close())
    return arrived


@pytest.fixture
def _loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda **_: ["127.0.0.1"])


@pytest.mark.usefixtures("_loopback")
@pytest.mark.parametrize("codec", ["video/VP8", "video/H264"])
def test_numbers_rise_at_the_other_end(codec: str) -> None:
    with PatternSource(320, 240, fps=30) as source:
        arrived = run(transmit(source, codec, lambda _, frames: len(frames) >= 30))["video"]
        numbers = [read_number(frame.to_ndarray(format="bgr24")) for frame in arrived]
    assert None not in numbers
    assert numbers == sorted(set(numbers))  # type: ignore[type-var]
    # Timestamps tell the same time as the numbers, up to a rounding in aiortc's VP8.
    for (n, one), (m, two) in itertools.pairwise(zip(numbers, arrived, strict=True)):
        assert two.pts - one.pts == pytest.approx((m - n) * 3000, abs=3)  # type: ignore[operator]
    assert source.video.readyState == "ended"  # type: ignore[union-attr]


@pytest.mark.usefixtures("_loopback")
def test_the_tone_is_heard_at_the_other_end() -> None:
    with ToneSource(1000) as source:
        frames = run(transmit(source, None, lambda _, frames: len(frames) >= 60))["audio"]
    pcm = np.concatenate([frame.to_ndarray().reshape(-1, 2) for frame in frames[20:]])
    assert dominant_frequency(pcm, 48000) == pytest.approx(1000, abs=5)


@pytest.mark.usefixtures("_loopback")
def test_a_looping_file_arrives_whole() -> None:
    def longest_gap() -> float:
        """Play over the end; return the longest gap between frames, in frames."""
        wanted = {"video": 40, "audio": 80}
        longest = 0.0
        with from_file(BUNNY, loop=True) as source:
            source.seek(4.5)
            arrived = run(transmit(source, None, lambda kind, frames: len(frames) >= wanted[kind]))
            assert source.position < 4  # it has started again
        for kind, ticks in (("video", 3600), ("audio", 960)):
            stamps = [frame.pts for frame in arrived[kind]]
            assert stamps == sorted(set(stamps))
            gaps = [b - a for a, b in itertools.pairwise(stamps)]
            assert np.median(gaps) == ticks
            longest = max(longest, max(gaps) / ticks)
        assert (arrived["video"][0].width, arrived["video"][0].height) == (1280, 720)
        assert np.abs(np.concatenate([f.to_ndarray() for f in arrived["audio"]])).max() > 100
        return longest

    # No frame is missing at the seam; a machine that stood still is given another chance.
    assert any(longest_gap() < 10 for _ in range(3))
