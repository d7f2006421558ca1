"""Play live streams: sound in step with pictures, and late pictures left out."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from metered_sync.engine.sending.feed import Feed
from metered_sync.media.sources import playout
from metered_sync.media.sources.live import LiveSource
from metered_sync.media.sources.playout import Playout
from tests.support.colours import apart, bt601, colour_files
from tests.support.media_files import level_of, number_of, write


def test_sound_waits_for_its_picture(tmp_path: Path) -> None:
    """Pictures come 0.1 s later than the sound, as a parser lets them: both leave in step."""
    path = write(tmp_path / "both.mkv", seconds=1.2)

    def produce(feed: Feed) -> None:
        playout = Playout(feed)
        began = time.monotonic()
        with av.open(str(path)) as container:
            packets = [packet for packet in container.demux() if packet.dts is not None]
            arrivals = [
                (float(p.dts * p.time_base) + 0.1 * (p.stream.type == "video"), n)
                for n, p in enumerate(packets)
            ]
            for arrival, number in sorted(arrivals):
                while time.monotonic() < began + arrival:
                    time.sleep(0.001)
                if feed.interrupted:  # its tracks were handed out just now
                    feed.take_seek()
                playout.put(packets[number])
        feed.finish(feed.clock() + 0.2, 0)

    source = LiveSource("test", ["video", "audio"], produce)
    left: dict[str, dict[int, float]] = {"video": {}, "audio": {}}  # in units of 20 ms
    stamped: dict[str, dict[int, float]] = {"video": {}, "audio": {}}

    async def consume(track: MediaStreamTrack) -> None:
        with suppress(MediaStreamError):
            while True:
                frame: Any = await track.recv()
                number = number_of(frame) * 2 if track.kind == "video" else level_of(frame)
                left[track.kind][number] = time.monotonic()
                stamped[track.kind][number] = frame.time

    async def main() -> None:
        await asyncio.wait_for(asyncio.gather(*map(consume, source.tracks)), 20)

    asyncio.run(main())
    both = sorted(left["video"].keys() & left["audio"].keys())[5:]  # the first teach the delay
    assert len(both) > 8
    for when in (left, stamped):
        apart = [when["video"][number] - when["audio"][number] for number in both]
        assert abs(np.median(apart)) < 0.06


def test_pictures_are_left_out_where_decoding_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read at half its speed it falls behind; then whole groups of pictures are left out."""
    monkeypatch.setattr(playout, "MAX_PICTURE_LAG", 0.2)
    monkeypatch.setattr(playout, "MAX_LAG_DURATION", 0.2)
    path = tmp_path / "stream.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"tune": "zerolatency"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size = 5
        for number in range(100):
            image = av.VideoFrame.from_ndarray(np.full((72, 64), number, np.uint8), "yuv420p")
            image.pts, image.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))

    late: list[float] = []
    decoded = 0

    def produce(feed: Feed) -> None:
        nonlocal decoded
        playout = Playout(feed)
        queue = feed.queues["video"]
        queue.wanted = True
        ready = 0.0  # when the next packet has come over the network
        with av.open(str(path)) as container:
            for packet in container.demux(video=0):
                before = len(queue.items), queue.items and queue.items[-1].due
                while feed.clock() < ready:
                    time.sleep(0.001)
                playout.put(packet)
                ready += 0.04
                if (len(queue.items), queue.items and queue.items[-1].due) != before:
                    decoded += 1
                    late.append(feed.clock() - queue.items[-1].due)
                    began = feed.clock()
                    while feed.clock() < began + 0.08:
                        time.sleep(0.001)

    with LiveSource("test", ["video"], produce) as source:
        source.wait(timeout=60)
    assert 10 < decoded < 90
    assert max(late) < 2.5
    assert late[-1] < 1


@pytest.mark.parametrize("name", ["yuvj422p.avi", "bt709full.mp4", "gray10.mkv"])
def test_live_pictures_have_the_colours_that_ffmpeg_gives_them(name: str) -> None:
    files = colour_files()
    wanted = threading.Event()

    def produce(feed: Feed) -> None:
        wanted.wait(20)
        with av.open(str(files.path(name))) as container:
            playout.read(container, feed, Playout(feed))
        feed.finish(feed.clock() + 0.2, 0)

    source = LiveSource("test", ["video"], produce)
    track = source.video
    assert track is not None
    wanted.set()
    frame: Any = asyncio.run(asyncio.wait_for(track.recv(), 20))
    source.stop()
    assert apart(bt601(frame), files.shown(name)) <= 4
