"""Publish with a bit rate, a frame rate and a codec."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from aiortc import VideoStreamTrack
from av import VideoFrame

from metered_sync import SfuClient
from metered_sync.engine.webrtc.aiortc_private import capabilities
from metered_sync.engine.webrtc.aiortc_private.sending import encoder_of
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource
from tests.conftest import wait_until


class Mosaic(VideoStreamTrack):
    """Blocks of noise that wander: enough to fill some hundred kbit/s."""

    def __init__(self) -> None:
        super().__init__()
        blocks = np.random.default_rng(1).integers(0, 256, (60, 200), dtype=np.uint8)
        self._wall = np.kron(blocks, np.ones((8, 8), np.uint8))
        self._count = 0

    async def recv(self) -> VideoFrame:
        pts, time_base = await self.next_timestamp()
        top, left = self._count * 3 % 200, self._count * 7 % 800
        picture = np.full((360, 320), 128, np.uint8)
        picture[:240] = self._wall[top : top + 240, left : left + 320]
        frame = VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts, frame.time_base = pts, time_base
        self._count += 1
        return frame


@pytest.fixture
def pair(shared_cloud: LocalCloud) -> Iterator[tuple[SfuClient, SfuClient]]:
    options = shared_cloud.sfu_options()
    with SfuClient(**options) as sender, SfuClient(**options) as receiver:
        yield sender, receiver


def measured(track: Any, seconds: float) -> tuple[float, float]:
    """Return bits and frames per second."""
    started, before = time.monotonic(), track.stats()
    time.sleep(seconds)  # it is what is measured
    passed, after = time.monotonic() - started, track.stats()
    sizes, frames = (after[n] - before[n] for n in ("bytes_received", "frames_decoded"))
    return sizes * 8 / passed, frames / passed


def offered(client: SfuClient, mid: str) -> list[str]:
    """Return the codecs that a section names in the client's description, in their order."""
    link: Any = client._link
    (section,) = (
        part
        for part in link.session.pc.localDescription.sdp.split("m=")
        if f"a=mid:{mid}\r\n" in part
    )
    lines = [line for line in section.splitlines() if line.startswith("a=rtpmap:")]
    names = {line.split()[0][9:]: line.split()[1].split("/")[0].lower() for line in lines}
    return [names[number] for number in section.splitlines()[0].split()[3:]]


@pytest.mark.parametrize(
    ("codec", "bitrate", "max_framerate"),
    [
        pytest.param("vp8", 300_000, None, marks=pytest.mark.slow),
        ("vp8", 200_000, 15),
        ("h264", 300_000, None),
        pytest.param("h264", 150_000, 10, marks=pytest.mark.slow),
    ],
)
def test_a_bit_rate_is_held(
    pair: Any, codec: str, bitrate: int, max_framerate: float | None
) -> None:
    sender, receiver = pair
    mosaic = Mosaic()
    published = sender.publish(
        mosaic, video_bitrate=bitrate, max_framerate=max_framerate, codec=codec
    )
    track = receiver.subscribe(published)
    track.read(timeout=20)
    wait_until(lambda: track.frames_received > 30, 30)  # the first picture is large
    # (On an idle machine it is held within 5 %; aiortc's own rate would be three times that. A
    # busy one sends in spurts, which end.)
    for _ in range(3):
        bits, frames = measured(track, 4)
        if bits == pytest.approx(bitrate, rel=0.3):
            break
    if frames < (max_framerate or 30) * 0.8:
        pytest.skip(f"this machine is too busy: {frames:.1f} pictures a second")
    assert bits == pytest.approx(bitrate, rel=0.3)
    assert track.stats()["bitrate"] == pytest.approx(bitrate, rel=0.5)
    mosaic.stop()


@pytest.mark.parametrize("codec", ["vp8", "h264"])
def test_the_encoder_begins_with_the_bit_rate(pair: Any, codec: str) -> None:
    sender, receiver = pair
    with PatternSource(160, 120, 15) as pattern:
        published = sender.publish(pattern.video, video_bitrate=2_000_000, codec=codec)
        assert receiver.subscribe(published).read(timeout=20) is not None
        (shared,) = published._outgoing.local.encoders
        assert shared.codec == codec
        assert shared._encoder.codec.bit_rate == shared.bitrate == 2_000_000


@pytest.mark.parametrize(("source", "limit"), [(30, 10), (30, 20), (15, 15), (10, 60)])
def test_a_frame_rate_is_kept(pair: Any, source: float, limit: float) -> None:
    sender, receiver = pair
    with PatternSource(160, 120, source) as pattern:
        track = receiver.subscribe(sender.publish(pattern.video, max_framerate=limit))
        track.read(timeout=20)
        _, frames = measured(track, 3)
        assert frames < limit * 1.3 + 1  # (those that a busy machine held up come together)
        assert frames > min(source, limit) * 0.3


@pytest.mark.parametrize("codec", ["vp8", "h264", "H264"])
def test_a_codec_is_preferred(pair: Any, codec: str) -> None:
    sender, receiver = pair
    with PatternSource(160, 120, 15) as pattern:
        published = sender.publish(pattern.video, codec=codec)
        assert offered(sender, published.mid)[0] == codec.lower()
        assert set(offered(sender, published.mid)) >= {"vp8", "h264"}  # the others stay possible
        assert receiver.subscribe(published).read(timeout=20) is not None


def test_a_codec_for_sound(pair: Any) -> None:
    sender, receiver = pair
    with ToneSource(frequency=440) as tone:
        published = sender.publish(tone.audio, codec="PCMU")
        assert offered(sender, published.mid)[0] == "pcmu"
        assert receiver.subscribe(published).frames().get(timeout=20) is not None


def test_options_survive_a_recovery(cloud: LocalCloud) -> None:
    with SfuClient(**cloud.sfu_options()) as client, PatternSource(160, 120, 30) as pattern:
        published = client.publish(
            pattern.video, name="v", codec="h264", max_framerate=5, video_bitrate=200_000
        )
        track = client.subscribe(published)
        track.read(timeout=20)
        cloud.faults.kill_sfu_session(str(client.session_id))
        wait_until(lambda: track.restarts == 1, 20)
        track.read(timeout=20)
        assert offered(client, published.mid)[0] == "h264"
        _, frames = measured(track, 2)
        assert 1 < frames < 8


def test_bad_options_are_told_before_anything_is_sent(pair: Any) -> None:
    sender, _ = pair
    with PatternSource(160, 120, 15) as pattern, ToneSource(frequency=440) as tone:
        for source, options, words in (
            (pattern.video, {"codec": "av9"}, r"'av9' is unknown; available: vp8, h264"),
            (tone.audio, {"codec": "vp8"}, r"available: opus, g722, pcmu, pcma"),
            (pattern.video, {"video_bitrate": 800}, "bits per second"),
            (pattern.video, {"video_bitrate": float("nan")}, "bits per second"),
            (pattern.video, {"max_framerate": 0}, "frames per second"),
            (tone.audio, {"video_bitrate": 500_000}, "for video"),
            (tone.audio, {"max_framerate": 10}, "for video"),
        ):
            with pytest.raises(ValueError, match=words):
                sender.publish(source, **options)
        for bad in ({"codec": 8}, {"video_bitrate": "1M"}, {"max_framerate": True}):
            with pytest.raises(TypeError):
                sender.publish(pattern.video, **bad)
        assert sender.tracks(str(sender.session_id)) == []
        assert sender.publish(pattern.video, video_bitrate=500_000).track_id


def test_without_access_to_the_encoder_the_rate_is_aiortcs(
    pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, receiver = pair
    monkeypatch.setattr(capabilities, "capabilities", frozenset)
    with PatternSource(160, 120, 15) as pattern:
        published = sender.publish(pattern.video, video_bitrate=2_000_000)
        assert receiver.subscribe(published).read(timeout=20) is not None
        link: Any = sender._link
        (transceiver,) = (t for t in link.session.pc.getTransceivers() if t.sender.track)
        encoder = encoder_of(transceiver.sender)
        assert encoder.target_bitrate < 2_000_000
