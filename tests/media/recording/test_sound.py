"""Write sound as it is encoded: without holes, in its place, and mixed once there is more of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av import CodecContext, Packet

from metered_sync.media.recording.formats import FILE_FORMATS
from metered_sync.media.recording.muxing import Muxer
from metered_sync.media.recording.output_file import OutputFile
from metered_sync.media.recording.sound import MAX_OFFSET, AudioStream, concealed, samples_of
from metered_sync.testing import dominant_frequency
from tests.support.encoded import opus
from tests.support.far_end import sound, tone

RATE = 48000
SUFFIXES = ["mkv", "webm", "ogg", "opus"]
KINDS = [
    {"application": "audio"},
    {"application": "audio", "frame_duration": "10"},
    {"application": "lowdelay", "frame_duration": "2.5"},
    {"application": "lowdelay", "frame_duration": "5"},
    {"application": "voip", "frame_duration": "60", "b": "16000"},
    {"application": "voip", "frame_duration": "40", "b": "12000"},
]
"""How encoders make packets: in which mode, and of which length."""


def write(path: Path, act: Callable[[AudioStream], object]) -> AudioStream:
    """Write a file with one stream of sound, which is written as it is at first."""
    output = OutputFile(str(path))
    muxer = Muxer(output, FILE_FORMATS[path.suffix])
    stream = muxer.add_sound(passes=True)
    act(stream)
    stream.flush()
    muxer.close()
    output.close()
    assert output.error is None
    return stream


def put(stream: AudioStream, packets: list[bytes], at: float = 0.0, length: float = 0.02) -> None:
    for number, data in enumerate(packets):
        stream.write(Packet(data), at + number * length)


def packets_of(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(audio=0) if packet.size]


def heard(path: Path) -> Any:
    """Return a file's sound on the left, with silence where it has holes."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    line = np.zeros(round(frames[-1].time * RATE) + frames[-1].samples)
    for frame in frames:
        at = round(frame.time * RATE)
        line[at : at + frame.samples] = frame.to_ndarray()[0][: frame.samples]
    return line


def sounds(line: Any, start: float, end: float) -> float:
    """Return the frequency that is heard between two moments; 0: it is silent."""
    piece = line[round(start * RATE) : round(end * RATE)]
    return dominant_frequency(piece * 12000, RATE) if np.abs(piece).mean() > 0.01 else 0.0


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_the_length_of_packets(layout: str, options: dict[str, str]) -> None:
    wanted = round(float(options.get("frame_duration", "20")) * 48)
    made = opus(24, layout=layout, **options)
    assert {samples_of(data) for data in made} == {wanted}
    decoder: Any = CodecContext.create("libopus", "r")
    for data in made[:3]:
        assert sum(frame.samples for frame in decoder.decode(Packet(data))) == wanted


def test_what_is_no_packet() -> None:
    for data in (b"", b"\x03", b"\x1b\x00", b"\x1b\x3f", b"\xff\x07"):
        assert samples_of(data) == 0, data
    assert samples_of(b"\xff\x06") == samples_of(b"\xe3\x30") == samples_of(b"\x1b\x02") == 5760


@pytest.mark.parametrize("decoder", ["libopus", "opus"])
@pytest.mark.parametrize("options", KINDS)
def test_what_stands_in_for_missing_packets(options: dict[str, str], decoder: str) -> None:
    """FFmpeg's two decoders take it, at the beginning and anywhere."""
    made = opus(48, **options)
    stand_in = concealed(made[5][:1])
    assert (len(stand_in), samples_of(stand_in)) == (1, 960)
    taking: Any = CodecContext.create(decoder, "r")
    for data in (stand_in, *made[:5], stand_in, stand_in, *made[5:]):
        samples = sum(frame.samples for frame in taking.decode(Packet(data)))
        assert samples in (samples_of(data), 0 if decoder == "opus" else -1)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_packets_are_written_as_they_are(tmp_path: Path, suffix: str) -> None:
    path, made = tmp_path / f"a.{suffix}", opus(100)
    stream = write(path, lambda stream: put(stream, made))
    assert (stream.codec, stream.frames, stream.end) == ("opus", 100, 2.0)
    assert [bytes(packet) for packet in packets_of(path)] == made
    line = heard(path)
    assert len(line) == pytest.approx(2 * RATE, abs=400)
    assert sounds(line, 0.1, 1.9) == pytest.approx(500, abs=5)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_gaps_are_filled(tmp_path: Path, suffix: str) -> None:
    """Before the first packet, where some were lost, and where none came for long."""
    path, made = tmp_path / f"a.{suffix}", opus(100)

    def act(stream: AudioStream) -> None:
        put(stream, made[:50], 0.5)
        put(stream, made[52:75], 1.54)
        stream.write_until(3 * RATE)
        put(stream, made[75:], 4.0)

    stream = write(path, act)
    assert stream.end == pytest.approx(4.5, abs=0.016)
    times = [float(packet.pts * packet.time_base) for packet in packets_of(path)]
    steps = {round((after - before) * 50) for before, after in itertools.pairwise(times)}
    assert steps == {1}
    line = heard(path)
    for start, end, frequency in ((0, 0.5, 0), (0.6, 1.9, 500), (2.4, 3.9, 0), (4.2, 4.4, 500)):
        assert sounds(line, start, end) == pytest.approx(frequency, abs=5), (start, end)


@pytest.mark.parametrize("drift", [-1e-3, 1e-3])
def test_a_clock_that_drifts(tmp_path: Path, drift: float) -> None:
    """Packets are left out, or put in, one at a time: the sound stays in step."""
    made = opus(10)
    count, off = 6000, []

    def act(stream: AudioStream) -> None:
        for number in range(count):
            at = number * 0.02 * (1 + drift)
            stream.write(Packet(made[number % 10]), at)
            off.append(abs(stream.end - at - 0.02))

    stream = write(tmp_path / "a.mkv", act)
    assert max(off) <= (MAX_OFFSET + 960) / RATE
    assert stream.frames == pytest.approx(count * (1 + drift), abs=1)


def test_what_overlaps_is_left_out(tmp_path: Path) -> None:
    made = opus(60)

    def act(stream: AudioStream) -> None:
        put(stream, made[:50])
        put(stream, made[40:60], 0.8)
        stream.write(Packet(b"\x03"), 1.2)  # (nor is this any)

    write(tmp_path / "a.mkv", act)
    assert [bytes(packet) for packet in packets_of(tmp_path / "a.mkv")] == made


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("before", [0, 37])
def test_it_goes_on_with_what_is_mixed(tmp_path: Path, suffix: str, before: int) -> None:
    path, made = tmp_path / f"a.{suffix}", opus(50)[:before]

    def act(stream: AudioStream) -> None:
        put(stream, made)
        first = stream.mix()
        other = stream.mix()
        for number, frame in enumerate(sound(tone(1500, 1.0))):
            at = before * 0.02 + number * 0.02
            first.write(frame, at, at)
            other.write(frame, at, at)
        stream.write_until(first.end)

    stream = write(path, act)
    assert stream.codec == "libopus"
    assert stream.end == pytest.approx(before * 0.02 + 1)
    line = heard(path)
    assert len(line) == pytest.approx(stream.end * RATE, abs=1400)
    if before:
        assert sounds(line, 0.1, before * 0.02 - 0.05) == pytest.approx(500, abs=5)
    assert sounds(line, before * 0.02 + 0.1, before * 0.02 + 0.9) == pytest.approx(1500, abs=5)
