"""Play files as they are encoded: packets in real time, and what cannot be sent so."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pytest
from av import Packet

from metered_sync import MediaError, from_file, iter_frames
from metered_sync.engine.sending import feed
from metered_sync.engine.webrtc.stream_formats import StreamFormat
from tests.support.encoded import numbers, packets, write
from tests.support.media_files import play


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("encoded")
    return {
        "mp4": write(folder / "a.mp4", audio="aac"),
        "mkv": write(folder / "a.mkv", audio="libopus"),
        "webm": write(folder / "a.webm", "vp8", audio="libopus"),
        "ogg": write(folder / "a.ogg", None, audio="libopus"),
        "ts": write(folder / "a.ts"),
        "bframes": write(folder / "b.mp4", bf="2", b_adapt="0"),
        "hevc": write(folder / "h.mp4", "hevc", 10, audio="libopus"),
        "mpeg4": write(folder / "m.mkv", "mpeg4", audio="libopus"),
    }


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("MAX_OVERDUE", "MAX_PRODUCER_LAG", "END_WAIT"):  # a busy machine drops nothing
        monkeypatch.setattr(feed, bound, 60.0)


@pytest.mark.parametrize(
    ("name", "codec", "sound"),
    [("mp4", "h264", False), ("webm", "vp8", True), ("ts", "h264", False)],
)
def test_packets_come_as_they_are(
    files: dict[str, Path], name: str, codec: str, sound: bool
) -> None:
    began = time.monotonic()
    with from_file(files[name], encoded=True) as source:
        assert source.video is not None
        if name == "mp4":
            with pytest.raises(MediaError, match=r"its sound is AAC.*\.video alone"):
                _ = source.audio
            with pytest.raises(MediaError, match="AAC"):
                _ = source.tracks
            assert source.kinds == ("video",)
        else:
            assert (source.audio is not None) is sound
        source._refused = {}
        got = play(source)
    video: list[Any] = got["video"]
    assert all(isinstance(one, Packet) for one in video)
    assert numbers(codec, map(bytes, video)) == list(range(30))
    assert [n for n, one in enumerate(video) if one.is_keyframe] == [0, 10, 20]
    assert {b.pts - a.pts for a, b in itertools.pairwise(video)} <= {*range(3500, 3701)}
    assert time.monotonic() - began > 1.0  # in real time
    if sound:
        stamps = [one.pts * one.time_base for one in got["audio"]]
        assert len(stamps) >= 55
        assert all(0.015 < b - a < 0.03 for a, b in itertools.pairwise(stamps))


def test_sound_alone(files: dict[str, Path]) -> None:
    with from_file(files["ogg"], encoded=True) as source:
        assert source.video is None
        assert source._tracks["audio"].format == StreamFormat("opus")
        assert len(play(source)["audio"]) >= 55


def test_a_loop_goes_on_and_a_seek_begins_with_a_key_frame(files: dict[str, Path]) -> None:
    with from_file(files["mkv"], encoded=True, loop=True) as source:
        video = play(source, 76)["video"]
        assert numbers("h264", map(bytes, video)) == [*range(30), *range(8)]
        assert {b.pts - a.pts for a, b in itertools.pairwise(video)} <= {*range(3500, 3701)}
    with from_file(files["mkv"], encoded=True) as source:
        source.seek(0.55)
        video = play(source, 20)["video"]
        assert video[0].is_keyframe
        assert numbers("h264", map(bytes, video)) == list(range(10, 20))
        assert all(0 < b.pts - a.pts < 5000 for a, b in itertools.pairwise(video))


def test_what_cannot_be_sent_as_it_is(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"b\.mp4.*B-frames.*-bf 0.*encoded=True"):
        from_file(files["bframes"], encoded=True)
    with from_file(files["mpeg4"], encoded=True) as source:
        assert source.audio is not None
        with pytest.raises(MediaError, match=r"its video is mpeg4, and only H.264 and VP8"):
            _ = source.video
    with pytest.raises(MediaError, match="cannot be opened as media"):
        (tmp_path / "x.mp4").write_bytes(b"nothing")
        from_file(tmp_path / "x.mp4", encoded=True)


def test_of_a_file_with_hevc_the_sound_goes(files: dict[str, Path]) -> None:
    with from_file(files["hevc"], encoded=True) as source:
        assert source.kinds == ("audio",)
        for hand_out in (lambda: source.video, lambda: source.tracks):
            with pytest.raises(MediaError, match=r"its video is H\.265 \(HEVC\).*\.audio alone"):
                hand_out()
        source._refused = {}
        got = play(source)
    assert "video" not in got
    assert len(got["audio"]) >= 15


def test_sound_of_many_channels_is_refused_and_the_pictures_go(tmp_path: Path) -> None:
    """Each of its packets holds several streams of Opus, which a receiver takes for one."""
    alone = write(tmp_path / "a.mkv", None, audio="libopus", layout="5.1")
    with pytest.raises(MediaError, match=r"its sound is Opus of 6 channels.*-ac 2.*encoded=True"):
        from_file(alone, encoded=True)
    beside = write(tmp_path / "b.mkv", count=5, audio="libopus", layout="5.1")
    with from_file(beside, encoded=True) as source:
        assert source.video is not None
        with pytest.raises(MediaError, match=r"6 channels.*\.video alone"):
            _ = source.audio
    mono = write(tmp_path / "c.mkv", None, audio="libopus", layout="mono")
    with from_file(mono, encoded=True) as source:
        assert source.audio is not None


@pytest.mark.parametrize("duration", ["20", "60"])
def test_sound_that_fits_no_datagram_is_refused_and_the_pictures_go(
    tmp_path: Path, duration: str
) -> None:
    """RTP has no way to cut a packet of Opus in two."""
    options = {"b": "510000", "vbr": "off", "frame_duration": duration}
    alone = write(tmp_path / "a.mkv", None, audio="libopus", sound=options)
    beside = write(tmp_path / "b.mkv", count=10, audio="libopus", sound=options)
    if duration == "20":  # as large as they can be
        with from_file(alone, encoded=True) as source:
            assert {len(bytes(packet)) for packet in play(source)["audio"][1:-1]} == {1275}
        return
    with pytest.raises(MediaError, match=r"its sound has .* of 38\d\d bytes.*-frame_duration 20"):
        from_file(alone, encoded=True)
    with from_file(beside, encoded=True) as source:
        assert source.kinds == ("video",)
        with pytest.raises(MediaError, match=r"one datagram.*\.video alone"):
            _ = source.audio


def test_it_is_sent_not_looked_at(files: dict[str, Path]) -> None:
    with (
        from_file(files["mp4"], encoded=True) as source,
        pytest.raises(MediaError, match=r"sent and recorded.*without encoded=True"),
    ):
        iter_frames(source.video)


def test_encoders_make_what_the_tests_say() -> None:
    assert [packet.is_keyframe for packet in packets(count=11)] == [True, *[False] * 9, True]
