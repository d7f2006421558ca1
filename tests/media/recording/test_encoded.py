"""Record what is encoded already: its pictures are written as they are."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import av
import pytest

from metered_sync import EncodedSource, MediaError, Recorder, from_file
from metered_sync.engine.sending import feed
from tests.conftest import wait_until
from tests.support.encoded import units, write
from tests.support.media_files import number_of


def pictures(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [number_of(frame) for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    ("codec", "source", "suffix"),
    [("h264", "a.mkv", "mp4"), ("vp8", "a.webm", "mkv")],
)
def test_pictures_are_written_as_they_are(
    tmp_path: Path, codec: str, source: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bound in ("MAX_OVERDUE", "MAX_PRODUCER_LAG", "END_WAIT"):  # a busy machine drops nothing
        monkeypatch.setattr(feed, bound, 60.0)
    film = write(tmp_path / source, codec, audio="libopus")
    target = tmp_path / f"out.{suffix}"
    with from_file(film, encoded=True) as played, Recorder(target, played) as recorder:
        played.wait(timeout=30)
        info = recorder.stop()
    assert pictures(target) == list(range(30))
    video, sound = sorted(info.streams, key=lambda stream: stream.kind, reverse=True)
    assert (video.codec, video.frames, video.size) == (codec, 30, (64, 48))
    assert sound.codec == {"mkv": "opus", "mp4": "aac"}[suffix]
    assert info.dropped == 0
    with av.open(str(film)) as before, av.open(str(target)) as after:
        sizes: list[list[Any]] = [
            [packet.size for packet in one.demux(video=0) if packet.size and packet.is_keyframe]
            for one in (before, after)
        ]
        assert len(sizes[0]) == len(sizes[1]) == 3
    with av.open(str(target)) as container:
        heard = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    assert len(heard) > 30
    assert heard[20].any()


@pytest.mark.parametrize("suffix", ["mkv", "webm", "ogg", "opus"])
def test_sound_is_written_as_it_is(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bound in ("MAX_OVERDUE", "MAX_PRODUCER_LAG", "END_WAIT"):  # a busy machine drops nothing
        monkeypatch.setattr(feed, bound, 60.0)
    film = write(tmp_path / "film.webm", None, 25, audio="libopus")
    target = tmp_path / f"out.{suffix}"
    with from_file(film, encoded=True) as played, Recorder(target, played) as recorder:
        played.wait(timeout=30)
        info = recorder.stop()
    assert [stream.codec for stream in info.streams] == ["opus"]
    with av.open(str(film)) as before, av.open(str(target)) as after:
        sent, written = (
            [bytes(packet) for packet in one.demux(audio=0) if packet.size]
            for one in (before, after)
        )
    # (Packets of a machine that is busy come late: some are left out, or a gap is filled.)
    heard = [packet for packet in written if len(packet) > 1]
    assert len(heard) > 25
    assert [packet for packet in sent if packet in heard] == heard


def test_it_begins_with_a_key_frame_beside_one_who_is_sent_it(tmp_path: Path) -> None:
    made = units(count=60)
    target = tmp_path / "out.mp4"
    with EncodedSource("h264", fps=60) as source, Recorder(target, source) as recorder:
        for unit in made[5:]:
            source.write(unit)
            wait_until(lambda: len(source._queue.items) < 5)  # what waits longer is left out
        deadline = time.monotonic() + 20
        while recorder.info.frames < 50 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert pictures(target) == list(range(10, 60))


def test_a_file_that_does_not_take_the_codec(tmp_path: Path) -> None:
    with EncodedSource("h264") as h264, EncodedSource("vp8") as vp8:
        for source, suffix, words in (
            (h264, "webm", r"takes no H\.264 .*record to \.mkv or \.mp4"),
            (vp8, "mp4", r"takes no VP8: record to \.mkv or \.webm"),
        ):
            with pytest.raises(MediaError, match=words):
                Recorder(tmp_path / f"out.{suffix}", source)
