"""Play from a real RTSP server as it is encoded: over restarts, and up to what is refused."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest
from av import CodecContext, Packet

from metered_sync import MediaError, MeteredPeer, RtspSource, from_rtsp
from metered_sync.engine.webrtc.stream_formats import StreamFormat
from metered_sync.local import LocalCloud
from metered_sync.media.sources import rtsp
from tests.conftest import wait_until
from tests.support.rtsp_server import RtspServer

SMALL, LARGE = (160, 120), (320, 240)


def packets(track: Any, *, until: Callable[[list[Packet[Any]]], object]) -> list[Packet[Any]]:
    """Take packets until a condition holds."""
    got: list[Packet[Any]] = []

    async def main() -> None:
        deadline = time.monotonic() + 40
        while not until(got):
            assert time.monotonic() < deadline, len(got)
            got.append(await asyncio.wait_for(track.recv(), 40))

    asyncio.run(main())
    return got


def sizes(given: list[Packet[Any]]) -> list[tuple[int, int]]:
    """Return the sizes of the pictures that FFmpeg decodes, all of which are red."""
    decoder: Any = CodecContext.create("h264", "r")
    decoder.thread_count = 1
    frames = [frame for packet in given for frame in decoder.decode(Packet(bytes(packet)))]
    frames += decoder.decode(None)
    for frame in frames:
        red, green, blue = frame.to_ndarray(format="rgb24").mean(axis=(0, 1))
        assert red > 180
        assert max(green, blue) < 70
    return [(frame.width, frame.height) for frame in frames]


def video_of(source: RtspSource) -> Any:
    assert source.video is not None
    return source.video


def test_packets_come_as_they_are_and_late_ones_begin_with_a_key_frame(camera: RtspServer) -> None:
    with from_rtsp(camera.url("opus"), encoded=True) as source:
        video, audio = (track.format for track in source._tracks.values())
        assert video is not None
        assert (video.codec, video.profile_level_id[:2]) == ("h264", "42")
        assert audio == StreamFormat("opus")
        pictures = video_of(source)
        wait_until(lambda: len(pictures._queue.items) >= 3, 20)  # and nobody takes them
        first = packets(pictures, until=lambda got: len(got) >= 8)
        assert first[0].is_keyframe
        assert sizes(first) == [SMALL] * 8
        stamps = [float(one.pts * one.time_base) for one in first]  # type: ignore[operator]
        assert all(0.05 < b - a < 3 for a, b in itertools.pairwise(stamps))
        sound = packets(source.audio, until=lambda got: len(got) >= 20)
        assert all(len(one) > 3 for one in map(bytes, sound))


def test_a_camera_that_comes_back_with_other_pictures_goes_on(
    camera: RtspServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtsp, "FIRST_PAUSE", 0.1)
    with from_rtsp(camera.url("both"), encoded=True) as source:
        with pytest.raises(MediaError, match=r"its sound is G\.711 \(µ-law\).*\.video alone"):
            _ = source.audio
        video = video_of(source)
        got = packets(video, until=lambda got: len(got) >= 5)
        camera.kill()
        wait_until(lambda: source.state == "reconnecting", 20)
        camera.start("320x240")
        wait_until(lambda: source.state == "connected", 30)
        got += packets(video, until=lambda got: sum(one.is_keyframe for one in got) >= 3)
        seen = sizes(got)
        assert list(dict.fromkeys(seen)) == [SMALL, LARGE]
        assert len(seen) == len(got)
        assert all(a.pts < b.pts for a, b in itertools.pairwise(got))  # type: ignore[operator]
    camera.kill()


def test_what_cannot_be_sent_is_refused(camera: RtspServer) -> None:
    with pytest.raises(MediaError, match=r"its video has B-frames.*encoded=True"):
        from_rtsp(camera.url("bframes"), encoded=True)
    with pytest.raises(MediaError, match=r"its sound is G\.711"):
        from_rtsp(camera.url("audio"), encoded=True)


def test_a_camera_in_a_room(
    camera: RtspServer, shared_cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtsp, "FIRST_PAUSE", 0.1)
    options = shared_cloud.client_options()
    with (
        from_rtsp(camera.url("video"), encoded=True) as source,
        MeteredPeer(**options) as bridge,
        MeteredPeer(**options) as viewer,
    ):
        bridge.add_track(source.video)
        bridge.join("rtsp/encoded")
        viewer.join("rtsp/encoded")
        track = viewer.wait_for_peer(timeout=20).track("video", timeout=20)
        assert track.read(timeout=20).shape == (120, 160, 3)
        camera.kill()
        camera.start("320x240")
        wait_until(lambda: track.read(timeout=30).shape == (240, 320, 3), 40)
        assert track.restarts == 0
    camera.kill()
