"""Record sound that arrives: as it is encoded where the file takes it and it is alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from aiortc.codecs import get_decoder
from aiortc.rtp import RtpPacket

from metered_sync import Recorder, RecordingInfo
from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.reader import Reader
from metered_sync.engine.webrtc import jitter, stats
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.media.tracks.track import RemoteTrack
from metered_sync.testing import dominant_frequency
from tests.conftest import wait_until
from tests.support.encoded import opus
from tests.support.receivers import CODECS, Clock, Receiver

RATE = 48000
CLOCKS = {"opus": 48000, "pcmu": 8000}
TAKING = ["mkv", "webm", "ogg", "opus"]


class Far:
    """A track that arrives: packets are handed to its receiver, and decoded as aiortc does."""

    def __init__(self, clock: Clock, sequence: int = 65520, timestamp: int = 2**32 - 4000) -> None:
        self.receiver = Receiver("audio")
        self.incoming = IncomingTrack("audio", id="far")
        self.incoming.take_over(self.receiver.raw, ())
        self.track: RemoteTrack[Any] = RemoteTrack(self.incoming, None)
        self.decoded = 0
        self._clock = clock
        self._decoders = {name: get_decoder(CODECS[name]) for name in CLOCKS}
        self._sequence, self._timestamp = sequence, timestamp

    def take(self, packets: list[bytes], codec: str = "opus", lost: tuple[int, ...] = ()) -> None:
        """Have packets arrive, one every 20 ms, but those that are lost."""
        for number, data in enumerate(packets):
            self._sequence = (self._sequence + 1) & 0xFFFF
            self._timestamp = (self._timestamp + CLOCKS[codec] // 50) & 0xFFFFFFFF
            self._clock.now += 0.02
            if number in lost:
                continue
            kind = CODECS[codec].payloadType
            packet = RtpPacket(kind, 0, self._sequence, self._timestamp, 1, data)
            for one, frame in self.receiver.take(packet):
                self.decoded += 1
                for decoded in self._decoders[one.name.lower()].decode(frame):
                    self.incoming._spread(decoded)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return a clock that tests set forward, as packets arrive."""
    clock = Clock()
    clock.now = monotonic()
    for module in (jitter, stats):
        monkeypatch.setattr(module, "monotonic", clock.monotonic)
    return clock


@pytest.fixture
def far(clock: Clock) -> Far:
    return Far(clock)


def packets_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def frequencies(path: Path, *moments: float) -> list[float]:
    """Return what is heard for 0.2 s from each moment on."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("s16", "mono", RATE)
        frames = [one for frame in container.decode(audio=0) for one in resampler.resample(frame)]
    line = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    pieces = (line[round(at * RATE) : round((at + 0.2) * RATE)] for at in moments)
    return [round(dominant_frequency(piece, RATE), -1) for piece in pieces]


def record(path: Path, far: Far, *packets: bytes, **options: Any) -> RecordingInfo:
    with Recorder(path, far.track) as recorder:
        far.take(list(packets), **options)
    return recorder.info


@pytest.mark.parametrize("suffix", TAKING)
def test_sound_is_written_as_it_came(far: Far, tmp_path: Path, suffix: str) -> None:
    path, made = tmp_path / f"a.{suffix}", opus(50)
    info = record(path, far, *made)
    assert far.decoded == 0
    assert far.track.frames_received == 50
    assert packets_of(path) == made
    (stream,) = info.streams
    assert (stream.codec, stream.frames, info.duration) == ("opus", 50, pytest.approx(1))


@pytest.mark.parametrize("suffix", TAKING)
def test_lost_packets_leave_no_hole(far: Far, tmp_path: Path, suffix: str) -> None:
    path, made = tmp_path / f"a.{suffix}", opus(50)
    info = record(path, far, *made, lost=(10, 30, 31))
    written = packets_of(path)
    assert [len(written[number]) for number in (10, 30, 31)] == [1, 1, 1]
    assert [data for data in written if len(data) > 1] == [
        data for number, data in enumerate(made) if number not in (10, 30, 31)
    ]
    assert (far.decoded, info.duration) == (0, pytest.approx(1))
    assert frequencies(path, 0.3, 0.7) == [500, 500]


@pytest.mark.parametrize("suffix", ["mp4", "m4a", "wav"])
def test_what_the_file_does_not_take_is_decoded(far: Far, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    info = record(path, far, *opus(50))
    assert far.decoded == 50
    assert info.streams[0].codec == ("pcm_s16le" if suffix == "wav" else "aac")
    assert frequencies(path, 0.2, 0.7) == [500, 500]


def test_another_codec_is_decoded(far: Far, tmp_path: Path) -> None:
    info = record(tmp_path / "a.mkv", far, *[bytes(range(160))] * 50, codec="pcmu")
    assert far.decoded == 50
    assert info.streams[0].codec == "libopus"
    assert info.duration == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("suffix", TAKING)
def test_the_sound_of_two_is_mixed(clock: Clock, tmp_path: Path, suffix: str) -> None:
    """And decoded where it is mixed, whether anybody else reads frames or not."""
    path, one, other = tmp_path / f"a.{suffix}", Far(clock), Far(clock)
    reader = Reader[Any]("a reader")
    other.incoming.add(reader)
    with Recorder(path, one.track, other.track) as recorder:
        for low, high in zip(opus(50), opus(50, frequency=1500), strict=True):
            one.take([low])
            clock.now -= 0.02
            other.take([high])
    assert (one.decoded, other.decoded, len(reader)) == (0, 50, 50)
    assert recorder.info.streams[0].codec == "libopus"
    assert set(frequencies(path, 0.2, 0.5)) <= {500, 1500}
    assert recorder.info.duration == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("suffix", TAKING)
def test_another_track_is_added_later(far: Far, clock: Clock, tmp_path: Path, suffix: str) -> None:
    """What came before stays as it was; from then on both are heard in the same stream."""
    path, other = tmp_path / f"a.{suffix}", Far(clock)
    made = opus(50)
    with Recorder(path, far.track) as recorder:
        far.take(made)
        wait_until(lambda: recorder.info.duration >= 0.99)
        assert recorder.info.streams[0].codec == "opus"
        recorder.add(other.track)
        for low, high in zip(opus(50), opus(50, frequency=1500), strict=True):
            far.take([low])
            clock.now -= 0.02
            other.take([high])
    assert (far.decoded, other.decoded) == (0, 0)
    assert recorder.info.streams[0].codec == "libopus"
    assert packets_of(path)[:50] == made
    assert recorder.info.duration == pytest.approx(2, abs=0.02)
    with av.open(str(path)) as container:
        ends = [(float(p.pts * p.time_base), p.size) for p in container.demux(audio=0) if p.size]
    assert [at for at, _ in ends] == sorted(at for at, _ in ends)
    assert frequencies(path, 0.2, 0.7) == [500, 500]
    assert set(frequencies(path, 1.3, 1.7)) <= {500, 1500}


@pytest.mark.parametrize(("before", "after"), [("opus", "pcmu"), ("pcmu", "opus")])
def test_a_codec_that_changes(far: Far, tmp_path: Path, before: str, after: str) -> None:
    path, made = tmp_path / "a.mkv", {"opus": opus(25), "pcmu": [b"\xff" * 160] * 25}
    with Recorder(path, far.track) as recorder:
        far.take(made[before], before)
        wait_until(lambda: recorder.info.duration >= 0.45)
        far.take(made[after], after)
    assert far.decoded == (25 if before == "opus" else 50)
    assert recorder.info.streams[0].codec == "libopus"
    assert (packets_of(tmp_path / "a.mkv")[:25] == made["opus"]) == (before == "opus")


def test_who_reads_meanwhile_gets_frames(far: Far, tmp_path: Path) -> None:
    reader = Reader[Any]("a reader")
    far.incoming.add(reader)
    record(tmp_path / "a.mkv", far, *opus(50))
    assert (far.decoded, len(reader)) == (50, 50)
    assert packets_of(tmp_path / "a.mkv") == opus(50)


def test_damaged_packets_spoil_nothing(far: Far, tmp_path: Path) -> None:
    made = opus(50)
    made[20:23] = [b"\x03", b"\xff\x3f", b"\xfc" + bytes(range(200))]
    info = record(tmp_path / "a.mkv", far, *made)
    assert info.duration == pytest.approx(1)
    with av.open(str(tmp_path / "a.mkv")) as container:
        assert len([packet for packet in container.demux(audio=0) if packet.size]) == 50
    assert frequencies(tmp_path / "a.mkv", 0.1, 0.7) == [500, 500]
