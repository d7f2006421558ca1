"""Record pictures that arrive: as they are encoded where the file takes them, decoded elsewhere."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from aiortc.codecs import get_decoder
from aiortc.rtp import RtpPacket

from metered_sync import Recorder, RecordingInfo
from metered_sync.bridge.reader import Reader
from metered_sync.engine.sending.access_units import split_units
from metered_sync.engine.webrtc import jitter
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.engine.webrtc.picture_extensions import COLOR_SPACE, VIDEO_ORIENTATION
from metered_sync.media.recording import inputs, recording
from metered_sync.media.tracks.track import RemoteTrack
from metered_sync.testing import read_number
from tests.conftest import wait_until
from tests.support.encoded import units
from tests.support.receivers import CODECS, FRAME, Clock, Receiver, encoded, packets

BIG = (640, 480)
keyed = functools.partial(encoded, keys=(10, 20))
"""Pictures of which the 1st, the 11th and the 21st are key frames."""


class Far:
    """A track that arrives: packets are handed to its receiver, and decoded as aiortc does."""

    def __init__(self) -> None:
        self.receiver = Receiver()
        self.incoming = IncomingTrack("video", id="far")
        self.incoming.take_over(self.receiver.raw, ())
        self.track: RemoteTrack[Any] = RemoteTrack(self.incoming, None)
        self.decoded = 0
        self._decoders = {name: get_decoder(CODECS[name]) for name in ("vp8", "h264")}
        self._sequence, self._timestamp = 65500, 2**32 - 5 * FRAME

    def packets(self, codec: str, pictures: list[list[bytes]]) -> list[list[RtpPacket]]:
        """Put further pictures into packets."""
        made = packets(codec, pictures, sequence=self._sequence, timestamp=self._timestamp)
        self._sequence = made[-1][-1].sequence_number
        self._timestamp += len(made) * FRAME
        return made

    def take(self, *pictures: list[RtpPacket]) -> None:
        """Have packets arrive."""
        for picture in pictures:
            for codec, frame in self.receiver.take(*picture):
                self.decoded += 1
                for one in self._decoders[codec.name.lower()].decode(frame):
                    self.incoming._spread(one)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(jitter, "monotonic", clock.monotonic)
    monkeypatch.setitem(inputs.MAX_WAITING_FRAMES, "video", 1000)  # they come all at once
    return clock


@pytest.fixture
def far() -> Far:
    return Far()


def record(far: Far, path: Path, *pictures: list[RtpPacket]) -> RecordingInfo:
    recorder = Recorder(path, far.track)
    recorder.start()
    far.take(*pictures)
    return recorder.stop()


def read(path: Path, *, skip: bool = False) -> Iterator[tuple[int | None, tuple[int, int]]]:
    """Yield the number and the size of each picture in a file; ``None``: it is a wrong one.

    ``skip`` leaves out what cannot be decoded, as players do.
    """
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        for packet in container.demux(video=0):
            with contextlib.suppress(*[av.FFmpegError] * skip):
                for frame in packet.decode():
                    yield read_number(frame.to_ndarray(format="gray")), (frame.width, frame.height)


def numbers(path: Path, *, skip: bool = False) -> list[int | None]:
    return [number for number, _ in read(path, skip=skip)]


def packets_of(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def broken() -> list[bytes]:
    """Return a key frame of H.264 whose size can be read, and nothing else."""
    (first,) = encoded("h264", 1)
    (parameters,) = (payload for payload in first if payload[0] & 0x1F == 24)
    size = int.from_bytes(parameters[1:3], "big")
    return [parameters[3 : 3 + size], b"\x68 no parameters", b"\x65\x88 no picture"]


@pytest.mark.parametrize(
    ("codec", "suffix"), [("h264", "mp4"), ("h264", "mkv"), ("vp8", "webm"), ("vp8", "mkv")]
)
def test_pictures_are_written_as_they_came(
    far: Far, tmp_path: Path, codec: str, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    sent = far.packets(codec, keyed(codec, 30))
    info = record(far, path, *sent)
    assert far.decoded == 0
    assert far.track.frames_received == 30
    assert numbers(path) == list(range(30))
    assert (info.frames, info.dropped, info.duration) == (30, 0, pytest.approx(1, abs=0.05))
    (stream,) = info.streams
    assert (stream.codec, stream.size) == (codec, (320, 240))
    if codec == "vp8":
        came = [b"".join(part._data for part in picture) for picture in sent]  # type: ignore[attr-defined]
        assert list(map(bytes, packets_of(path))) == came


@pytest.mark.parametrize(("codec", "suffix"), [("h264", "webm"), ("vp8", "mp4")])
def test_what_the_file_does_not_take_is_decoded(
    far: Far, tmp_path: Path, codec: str, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    info = record(far, path, *far.packets(codec, keyed(codec, 30)))
    assert far.decoded == 30
    assert numbers(path) == list(range(30))
    assert info.streams[0].codec == {"webm": "libvpx", "mp4": "libx264"}[suffix]


@pytest.mark.parametrize("codec", ["h264", "vp8"])
def test_after_a_loss_it_goes_on_with_a_key_frame(
    far: Far, tmp_path: Path, clock: Clock, codec: str
) -> None:
    path = tmp_path / "a.mkv"
    sent = far.packets(codec, encoded(codec, 60, keys=(45,)))
    with Recorder(path, far.track):
        for number, picture in enumerate(sent):
            clock.now += FRAME / 90000
            far.take(picture[1:] if number == 5 else picture)
    assert numbers(path) == [*range(5), *range(45, 60)]
    assert far.receiver.plis == 1
    assert far.decoded == 0


@pytest.mark.parametrize("codec", ["h264", "vp8"])
def test_it_begins_with_a_key_frame_that_is_asked_for(
    far: Far, tmp_path: Path, clock: Clock, codec: str
) -> None:
    """And it disturbs nobody who reads frames meanwhile; nor do they disturb it."""
    reader = Reader[Any]("a reader")
    sent = far.packets(codec, encoded(codec, 40, keys=(20,)))
    far.incoming.add(reader)
    far.take(*sent[:10])
    assert far.receiver.plis == 0
    with Recorder(tmp_path / "a.mkv", far.track) as recorder:
        for picture in sent[10:30]:
            clock.now += FRAME / 90000
            far.take(picture)
        assert far.receiver.plis == 1
        del reader  # (for ten seconds more it is decoded)
        far.take(*sent[30:])
    assert numbers(tmp_path / "a.mkv") == list(range(20, 40))
    assert (far.decoded, recorder.info.dropped) == (40, 0)


@pytest.mark.parametrize("codec", ["h264", "vp8"])
def test_who_reads_while_it_records_gets_frames_from_a_key_frame_on(
    far: Far, tmp_path: Path, codec: str
) -> None:
    reader = Reader[Any]("a reader")
    sent = far.packets(codec, encoded(codec, 40, keys=(20,)))
    with Recorder(tmp_path / "a.mkv", far.track):
        far.take(*sent[:10])
        far.incoming.add(reader)
        far.take(*sent[10:])
    assert far.receiver.plis == 1
    assert numbers(tmp_path / "a.mkv") == list(range(40))
    got = [read_number(reader.get(timeout=20).to_ndarray(format="gray")) for _ in range(20)]
    assert got == list(range(20, 40))


def test_a_decoder_that_is_too_slow_loses_nothing_of_it(
    far: Far, tmp_path: Path, clock: Clock
) -> None:
    reader = Reader[Any]("a reader")
    far.incoming.add(reader)
    with Recorder(tmp_path / "a.mkv", far.track):
        for picture in far.packets("vp8", encoded("vp8", 40)):
            clock.now += FRAME / 90000
            far.receiver.queue(*picture)  # and nothing is decoded
    assert far.incoming.dropped > 0
    assert numbers(tmp_path / "a.mkv") == list(range(40))


def test_a_picture_that_cannot_be_decoded_spoils_nothing_for_others(
    far: Far, tmp_path: Path
) -> None:
    """A member may send anything: here parameters that can be read, and pictures that cannot."""
    other, path = Far(), tmp_path / "a.mkv"
    with Recorder(path, far.track, other.track) as recorder:
        far.take(*far.packets("h264", [broken()] * 3))
        other.take(*other.packets("vp8", encoded("vp8", 10)))
    assert recorder.info.frames == 10
    with av.open(str(path)) as container:
        shown = list(container.decode(container.streams.video[1]))
    assert [read_number(one.to_ndarray(format="gray")) for one in shown] == list(range(10))


def test_a_picture_of_very_many_parts_is_not_looked_into(far: Far, tmp_path: Path) -> None:
    """It would keep everything waiting: the decoder's thread has time for it."""
    (first,) = encoded("h264", 1)
    packet = b"\x38" + b"\0\x02\x41\xe0" * 32
    count = inputs.MAX_UNITS // 32
    parts = [bytes(bytearray(packet)) for _ in range(count + 1)]  # (the last one gets a marker)
    with Recorder(tmp_path / "a.mkv", far.track):
        far.take(*far.packets("h264", [first, parts[:count]]))
        assert not far.incoming.decodes()
        far.take(*far.packets("h264", [parts]))
        assert far.incoming.decodes()
    assert numbers(tmp_path / "a.mkv", skip=True) == [0]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_one_in_the_middle_is_all_that_players_skip(far: Far, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    good = keyed("h264", 30)
    record(far, path, *far.packets("h264", [*good[:10], broken(), *good[20:]]))
    assert numbers(path, skip=True) == [*range(10), *range(20, 30)]


@pytest.mark.parametrize(("codec", "suffix"), [("h264", "mp4"), ("vp8", "webm")])
def test_pictures_of_another_size(far: Far, tmp_path: Path, codec: str, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    first = far.packets(codec, encoded(codec, 10))
    second = far.packets(codec, encoded(codec, 10, size=BIG, start=10))
    info = record(far, path, *first, *second)
    assert far.decoded == 0
    assert list(read(path)) == [(n, (320, 240) if n < 10 else BIG) for n in range(20)]
    assert info.streams[0].size == (320, 240)


@pytest.mark.parametrize(("before", "after"), [("h264", "vp8"), ("vp8", "h264")])
def test_a_codec_that_changes(far: Far, tmp_path: Path, before: str, after: str) -> None:
    """From there on it is decoded, and encoded in the stream's codec; also when it is back."""
    path = tmp_path / "a.mkv"
    first = far.packets(before, encoded(before, 10))
    second = far.packets(after, encoded(after, 10, size=BIG, start=10))
    third = far.packets(before, encoded(before, 10, start=20))
    info = record(far, path, *first, *second, *third)
    assert far.decoded == 20
    assert list(read(path)) == [(n, (320, 240)) for n in range(30)]
    assert info.streams[0].codec == before


def test_pictures_in_another_order_are_decoded(far: Far, tmp_path: Path) -> None:
    """B-frames, which WebRTC does not have: from the first one on, with a key frame."""
    made = units(count=24, gop=8, bf="2", b_adapt="0")
    sent = far.packets("h264", [[*split_units(unit)] for unit in made])
    info = record(far, tmp_path / "a.mp4", *sent)
    assert far.receiver.plis == 1
    assert far.decoded == 16  # all from the second key frame on
    assert info.frames >= 15
    times = [packet.pts for packet in packets_of(tmp_path / "a.mp4")]
    assert times == sorted(times)


def test_colours_that_players_suppose_are_none_of_it(far: Far, tmp_path: Path) -> None:
    """Cameras of browsers say them with key frames, and not from the beginning."""
    sent = far.packets("vp8", keyed("vp8", 30))
    for at in (10, 20):
        sent[at][-1].extensions.further = {COLOR_SPACE: bytes((1, 13, 6, 0x10))}  # type: ignore[attr-defined]
    record(far, tmp_path / "a.webm", *sent)
    assert far.decoded == 0
    assert numbers(tmp_path / "a.webm") == list(range(30))


def test_h264_may_have_any_colours_that_the_file_tells(far: Far, tmp_path: Path) -> None:
    sent = far.packets("h264", keyed("h264", 30))
    for at in (0, 10, 20):
        sent[at][-1].extensions.further = {COLOR_SPACE: bytes((1, 13, 1, 0x10))}  # type: ignore[attr-defined]
    record(far, tmp_path / "a.mp4", *sent)
    assert far.decoded == 0
    with av.open(str(tmp_path / "a.mp4")) as container:
        (first, *_) = container.decode(video=0)
        assert (first.colorspace, first.color_range) == (1, 1)


@pytest.mark.parametrize(
    ("codec", "further"),
    [("h264", {VIDEO_ORIENTATION: b"\1"}), ("vp8", {COLOR_SPACE: bytes((1, 13, 1, 0x20))})],
)
@pytest.mark.parametrize("turned_at", [0, 10])
def test_what_the_packets_say_of_pictures_is_kept(
    far: Far, tmp_path: Path, codec: str, further: Any, turned_at: int
) -> None:
    """Pictures that lie, or have colours of which VP8 knows nothing, are decoded."""
    sent = far.packets(codec, keyed(codec, 20))
    for at in {turned_at, 10}:
        sent[at][-1].extensions.further = further  # type: ignore[attr-defined]
    info = record(far, tmp_path / "a.mkv", *sent)
    assert far.decoded == 20 - turned_at
    assert info.frames == 20


def test_a_file_that_was_begun_without_it(
    far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its stream has a codec and a size already: what comes is decoded, and made to fit."""
    monkeypatch.setattr(recording, "FIRST_PICTURE_WAIT", 0.0)
    other, path = Far(), tmp_path / "a.mkv"
    with Recorder(path, other.track, far.track) as recorder:
        other.take(*other.packets("vp8", encoded("vp8", 5)))
        wait_until(lambda: len(recorder.info.streams) == 2)
        far.take(*far.packets("vp8", encoded("vp8", 10)))
    assert (other.decoded, far.decoded) == (0, 10)
    with av.open(str(path)) as container:
        shown = list(container.decode(container.streams.video[1]))
        assert {(one.width, one.height) for one in shown} == {recording.DEFAULT_SIZE}
        assert [read_number(one.to_ndarray(format="gray")) for one in shown] == list(range(10))
