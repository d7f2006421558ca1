"""What a recorder writes, read back: order, counts, and sound in step with pictures."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, VideoFrame

from metered_sync import (
    MediaStream,
    MeteredPeer,
    Recorder,
    RecordingInfo,
    SfuClient,
)
from metered_sync.engine.tracks import Feed
from metered_sync.local import LocalCloud
from metered_sync.media.sources import Source
from metered_sync.testing import PatternSource, ToneSource, dominant_frequency, read_number
from tests.conftest import need, wait_until

RATE = 48000
STEP = 0.1
"""Seconds between two pictures of a clapper."""
BEAT = 5
"""Pictures between two claps."""
IN_STEP = 0.04


class Clapper(Source):
    """Black pictures and silence; every half second a white picture, and a beep as long."""

    def __init__(self, skew: float = 0.0) -> None:
        def produce(feed: Feed) -> None:
            number = sounds = 0
            going = feed.take_seek() is not None
            while going:
                picture = np.full((180, 160), 235 if number % BEAT == 0 else 16, np.uint8)
                picture[120:] = 128
                frame = VideoFrame.from_ndarray(picture, "yuv420p")
                frame.pts, frame.time_base = 7_000_000 + number * 9000, Fraction(1, 90000)
                going = feed.lanes["video"].put(frame, number * STEP, number * STEP)
                number += 1
                while going and sounds * 0.02 < number * STEP:
                    at = sounds * 960 + np.arange(960) - round(skew * RATE)
                    beep = at % (BEAT * STEP * RATE) < STEP * RATE
                    wave = (np.sin(at * (2 * math.pi * 1000 / RATE)) * beep * 12000).astype("int16")
                    sound = AudioFrame.from_ndarray(wave[None], "s16", "mono")
                    sound.sample_rate, sound.pts = RATE, sounds * 960
                    sound.time_base = Fraction(1, RATE)
                    going = feed.lanes["audio"].put(sound, sounds * 0.02, sounds * 0.02)
                    sounds += 1

        super().__init__("Clapper", {"video": 3, "audio": 15}, produce)


class Told(MediaStreamTrack):
    """A track that delivers what it is told to, each frame when its time has come."""

    def __init__(self, kind: str, frames: Iterator[tuple[float, Any]]) -> None:
        super().__init__()
        self.kind = kind
        self._frames = frames
        self._started = math.nan

    async def recv(self) -> Any:
        if math.isnan(self._started):
            self._started = time.monotonic()
        due, frame = next(self._frames, (0.0, None))
        if frame is None:
            raise MediaStreamError("that was all")
        await asyncio.sleep(max(self._started + due - time.monotonic(), 0))
        return frame


def pictures(*sizes: tuple[int, int], each: int = 5) -> Iterator[tuple[float, VideoFrame]]:
    """White pictures of some sizes, 20 a second."""
    number = 0
    for width, height in sizes:
        for _ in range(each):
            image = np.full((height, width, 3), 255, np.uint8)
            frame = VideoFrame.from_ndarray(image, "rgb24")
            frame.pts, frame.time_base = number * 50, Fraction(1, 1000)
            yield number * 0.05, frame
            number += 1


def decode(path: Path | str) -> tuple[list[tuple[float, Any]], Any]:
    """Return a file's pictures, grey, with their times; and its sound."""
    images, sound = [], [np.zeros((0, 2), np.int16)]
    with av.open(str(path)) as file:
        for frame in file.decode(*file.streams.audio, *file.streams.video):
            if isinstance(frame, VideoFrame):
                assert frame.time is not None
                images.append((frame.time, frame.to_ndarray(format="gray")))
            else:
                resampler = av.AudioResampler("s16", "stereo", RATE)
                sound += [part.to_ndarray().reshape(-1, 2) for part in resampler.resample(frame)]
    return images, np.concatenate(sound)


def claps(path: Path | str) -> tuple[list[float], list[float]]:
    """Return when pictures turn white, and when beeps begin, in seconds."""
    images, sound = decode(path)
    light = [(at, image.mean() > 128) for at, image in images]
    seen = [at for (_, before), (at, now) in pairwise(light) if now > before]
    loud = np.abs(sound[:, 0].astype(np.int32)) > 2000
    places = np.flatnonzero(loud)
    heard = [p for i, p in enumerate(places) if i and p - places[i - 1] > 0.2 * RATE]
    return seen, [float(place / RATE) for place in heard]


def check_in_step(path: Path | str, least: int, skew: float = 0.0) -> None:
    seen, heard = claps(path)
    pairs = [(s, h) for s in seen for h in heard if abs(h - skew - s) < BEAT * STEP / 2]
    assert len(pairs) >= least, (seen, heard)
    assert all(abs(h - skew - s) < IN_STEP for s, h in pairs), pairs


def probe(path: Path | str) -> tuple[float, dict[str, int]]:
    """Return what ffprobe says: seconds, and packets by kind."""
    command = [need("ffprobe", "ffmpeg"), "-v", "error", "-count_packets", "-of", "json"]
    entries = "format=duration:stream=codec_type,nb_read_packets"
    done = subprocess.run(
        [*command, "-show_entries", entries, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    found = json.loads(done.stdout)
    counts = {s["codec_type"]: int(s["nb_read_packets"]) for s in found["streams"]}
    return float(found["format"]["duration"]), counts


def check_probed(info: RecordingInfo) -> None:
    seconds, counts = probe(info.path)
    assert abs(seconds - info.duration) < 0.05
    assert Path(info.path).stat().st_size == info.bytes
    for stream in info.streams:
        if stream.codec != "pcm_s16le":  # (which has no packets of its own)
            assert counts[stream.kind] == stream.frames


def record_until(recorder: Recorder, seconds: float) -> None:
    wait_until(lambda: recorder.info.duration >= seconds, 20 + seconds)


def test_every_kind_of_file(tmp_path: Path) -> None:
    names = ["a.mp4", "a.mkv", "a.webm", "a.wav", "a.opus", "a.ogg", "a.m4a"]
    infos = {}
    with Clapper() as source:
        recorders = [
            Recorder(tmp_path / name, *(source.tracks if i < 3 else [source.audio]))
            for i, name in enumerate(names)
        ]
        for recorder in recorders:
            recorder.start()
        for recorder in recorders:
            record_until(recorder, 2.2)
        for name, recorder in zip(names, recorders, strict=True):
            infos[name] = recorder.stop()
    for name, info in infos.items():
        assert info.path == str(tmp_path / name)
        assert info.duration > 2.2
        assert info.dropped == 0
        assert info.frames > 20
        check_probed(info)
    for name in names[:3]:
        check_in_step(tmp_path / name, 3)
    for name in names[3:]:
        _, heard = claps(tmp_path / name)
        assert all(abs(b - a - 0.5) < 0.01 for a, b in pairwise(heard))


@pytest.mark.parametrize("skew", [0.0, 0.12])
def test_what_arrives_and_what_is_sent(
    shared_cloud: LocalCloud, tmp_path: Path, skew: float
) -> None:
    options = shared_cloud.sfu_options()
    with SfuClient(**options) as one, SfuClient(**options) as two, Clapper(skew) as source:
        tracks = two.subscribe(one.publish(source))
        with (
            Recorder(tmp_path / "sent.mkv", source) as sent,
            Recorder(tmp_path / "got.mp4", MediaStream(tracks)) as got,
        ):
            record_until(sent, 2.5)
            record_until(got, 2.5)
    for recorder in (sent, got):
        check_probed(recorder.info)
        check_in_step(recorder.info.path, 3, skew)


def test_a_room(shared_cloud: LocalCloud, tmp_path: Path) -> None:
    with (
        MeteredPeer(**shared_cloud.client_options()) as ann,
        MeteredPeer(**shared_cloud.client_options()) as bob,
        PatternSource(160, 120, 15) as pattern,
        ToneSource(frequency=440) as tone,
    ):
        ann.add_stream(MediaStream([pattern.video, tone.audio]))
        ann.join("recorded")
        bob.join("recorded")
        remote = bob.wait_for_peer(timeout=20)
        tracks = [remote.track("video", timeout=20), remote.track("audio", timeout=20)]
        with Recorder(tmp_path / "room.mp4", *tracks) as recorder:
            record_until(recorder, 2)
    check_probed(recorder.info)
    images, sound = decode(tmp_path / "room.mp4")
    numbers = [read_number(image) for _, image in images]
    assert None not in numbers
    assert numbers == sorted(set(numbers))
    assert recorder.info.frames == len(numbers)
    # Each picture where its number says, but the first one, which is shown from the beginning.
    (_, (zero, _), *rest), (_, first, *others) = images, numbers
    for (at, _), number in zip(rest, others, strict=True):
        assert abs(at - zero - (number - first) / 15) < IN_STEP
    assert abs(dominant_frequency(sound[RATE // 2 : RATE], RATE) - 440) < 5
