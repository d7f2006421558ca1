"""Play files: pace, loops, seeking, errors, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import threading
import time
import weakref
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from metered_sync import (
    ClosedError,
    FileSource,
    MediaError,
    MediaNotFoundError,
    MeteredTimeoutError,
    from_file,
)
from metered_sync.engine.sending import feed as tracks_module
from tests.conftest import run_script, wait_until
from tests.support.media_files import FPS, consume, level_of, number_of, play, steps, write

BUNNY = Path(__file__).parents[3] / "metered_sync" / "demo" / "bunny.mp4"


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be dropped because this machine is busy."""
    for bound in ("MAX_OVERDUE", "MAX_PRODUCER_LAG", "END_WAIT"):
        monkeypatch.setattr(tracks_module, bound, 60.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    where = tmp_path_factory.mktemp("files")
    return {
        "both": write(where / "both.mkv"),
        "short": write(where / "short.mkv", seconds=0.4),
        "silent": write(where / "silent.mp4", seconds=0.4, video="libx264", audio=None),
        "tone": write(where / "tone.wav", seconds=0.4, video=None, rate=44100, layout="mono"),
        "long": write(where / "long.mkv", seconds=4.0),
    }


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("metered-sync-from_file")]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- what is played -------------------------------------------------------------------


@pytest.mark.usefixtures("patient")
def test_a_clip_has_both_kinds_in_the_encoders_formats(files: dict[str, Path]) -> None:
    started = time.monotonic()
    with from_file(files["both"]) as source:
        assert [track.kind for track in source.tracks] == ["video", "audio"]
        assert source.tracks == [source.video, source.audio]
        assert source.duration == pytest.approx(1.0, abs=0.05)
        assert source.position == 0
        assert source.frames_sent == {"video": 0, "audio": 0}
        frames = play(source)
        source.wait(timeout=20)
        assert source.position == pytest.approx(1.0, abs=0.05)
        assert source.frames_sent == {"video": 25, "audio": 50}
    assert 0.9 < time.monotonic() - started < 10
    for number, frame in enumerate(frames["video"]):
        assert (frame.format.name, frame.width, frame.height) == ("yuv420p", 64, 48)
        assert (frame.pts, frame.time_base) == (number * 3600, Fraction(1, 90000))
        assert number_of(frame) == number
    for number, frame in enumerate(frames["audio"]):
        assert (frame.format.name, frame.layout.name, frame.samples) == ("s16", "stereo", 960)
        assert (frame.sample_rate, frame.time_base) == (48000, Fraction(1, 48000))
        assert frame.pts == number * 960
        assert level_of(frame) == number


@pytest.mark.usefixtures("patient")
def test_sound_of_another_rate_is_converted(files: dict[str, Path]) -> None:
    frames = play(from_file(str(files["tone"])))["audio"]
    assert len(frames) in (20, 21)
    assert steps(frames) == {960}
    # One channel becomes two, each 3 dB lower.
    assert [level_of(frame) for frame in frames[:15]] == [round(n / 2**0.5) for n in range(15)]


def test_the_demo_clip_plays_in_step() -> None:
    with from_file(BUNNY) as source:
        assert source.duration == pytest.approx(5.3, abs=0.1)
        source.seek(4.5)
        frames = play(source)
    assert (frames["video"][0].width, frames["video"][0].height) == (1280, 720)
    assert steps(frames["video"][1:]) == {3600}  # the first was in the middle of its time
    assert steps(frames["audio"]) == {960}
    assert len(frames["video"]) in (20, 21)
    assert len(frames["audio"]) in (40, 41, 42)


@pytest.mark.usefixtures("patient")
def test_progress_can_be_watched(files: dict[str, Path]) -> None:
    with from_file(files["both"]) as source:
        player = threading.Thread(target=play, args=(source,))
        player.start()
        positions = []
        while True:
            try:
                source.wait(timeout=0.02)
                break
            except MeteredTimeoutError:
                positions.append(source.position)
        player.join(10)
        assert positions == sorted(positions)
        assert len(set(positions)) > 5
        assert source.position == source.duration == pytest.approx(1.0, abs=0.05)


@pytest.mark.usefixtures("patient")
def test_a_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    times = [0, 10, 15, 215, 220, 400]
    path = write(tmp_path / "variable.mkv", audio=None, times=times)
    frames = play(from_file(path))["video"]
    assert [frame.pts for frame in frames] == [t * 90 for t in times]


@pytest.mark.usefixtures("patient")
def test_frames_without_timestamps_come_at_the_nominal_rate(tmp_path: Path) -> None:
    path = write(tmp_path / "raw.h264", seconds=0.4, video="libx264", audio=None)
    source = from_file(path, loop=True)
    frames = play(source, 30)["video"]
    source.stop()
    assert steps(frames) == {3600}
    assert [number_of(frame) for frame in frames] == [*range(10), *range(5)]


# --- loops and seeking ----------------------------------------------------------------


@pytest.mark.usefixtures("patient")
def test_a_loop_has_no_gap_and_stays_in_step(files: dict[str, Path]) -> None:
    with from_file(files["short"], loop=True) as source:
        frames = play(source, 60)
        with pytest.raises(MeteredTimeoutError):
            source.wait(timeout=0)
        assert source.position <= 0.4
    video, audio = frames["video"], frames["audio"]
    assert [number_of(frame) for frame in video] == list(range(10)) * 3
    assert steps(video) == {3600}
    assert [level_of(frame) for frame in audio] == list(range(20)) * 3
    assert steps(audio) == {960}


@pytest.mark.usefixtures("patient")
def test_sound_a_little_longer_than_the_pictures_loops_in_step(tmp_path: Path) -> None:
    path = write(tmp_path / "uneven.mkv", seconds=0.4, audio_seconds=0.47)
    with from_file(path, loop=True) as source:
        frames = play(source, 60)
    assert steps(frames["video"]) == {3600}
    assert steps(frames["audio"]) <= set(range(960, 960 + 481))
    for frame in frames["audio"]:
        off = (frame.pts / 960 - level_of(frame)) % 20  # 20 pieces a round
        assert min(off, 20 - off) <= 1 or level_of(frame) >= 20


@pytest.mark.usefixtures("patient")
def test_seeking_goes_on_from_there_with_rising_timestamps(files: dict[str, Path]) -> None:
    source = from_file(files["long"])
    source.seek(1.0)
    assert source.position == 1.0
    first = play(source, 10)
    source.seek(3.5)
    assert source.position == 3.5
    second = play(source, 10)
    source.seek(0)
    third = play(source, 10)
    source.seek(1000)
    assert play(source) == {"video": [], "audio": []}
    source.wait(timeout=20)
    for frames, at in ((first, 25), (second, 87), (third, 0)):
        assert number_of(frames["video"][0]) in (at, at + 1)
        assert level_of(frames["audio"][0]) in (2 * at, 2 * at + 1, 2 * at + 2)
    for kind in ("video", "audio"):
        stamps = [frame.pts for frames in (first, second, third) for frame in frames[kind]]
        assert stamps == sorted(set(stamps))
    with pytest.raises(ClosedError, match="open the file again"):
        source.seek(0)


@pytest.mark.parametrize("wrong", [-1, math.nan, math.inf, True])
def test_seeking_nowhere_is_refused(files: dict[str, Path], wrong: float) -> None:
    with from_file(files["tone"]) as source, pytest.raises(ValueError, match="seconds must be"):
        source.seek(wrong)


def test_a_track_that_is_asked_for_later_joins_in_step(files: dict[str, Path]) -> None:
    with from_file(files["long"]) as source:

        async def main() -> tuple[list[Any], list[Any], list[Any]]:
            alone = await consume(source.audio, 15)
            sound, pictures = await asyncio.gather(
                consume(source.audio, 10), consume(source.video, 5)
            )
            return alone, sound, pictures

        alone, sound, pictures = asyncio.run(asyncio.wait_for(main(), 20))
    assert source.frames_sent["video"] == 5
    offset = sound[-1].pts / 48000 - level_of(sound[-1]) / 50
    for frame in pictures:
        assert frame.pts / 90000 - number_of(frame) / FPS == pytest.approx(offset, abs=0.045)
    assert alone[-1].pts < sound[0].pts


# --- what is refused ------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MediaNotFoundError, match=r"no file .*nothing\.mp4.*check the path") as info:
        from_file(tmp_path / "nothing.mp4")
    assert isinstance(info.value, FileNotFoundError)


def test_what_is_no_media_file_is_refused_at_once(tmp_path: Path, files: dict[str, Path]) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("this is not a film\n" * 100)
    empty = tmp_path / "empty.wav"
    empty.touch()
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(files["silent"].read_bytes()[:200])
    for path in (text, empty, broken):
        with pytest.raises(MediaError, match=path.name) as info:
            from_file(path)
        assert not isinstance(info.value, MediaNotFoundError)
    with pytest.raises(MediaError, match="is a directory"):
        from_file(tmp_path)
    subtitles = tmp_path / "words.srt"
    subtitles.write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n\n")
    with pytest.raises(MediaError, match="neither audio nor video"):
        from_file(subtitles)


@pytest.mark.parametrize(
    "path",
    [
        "http://example.org/a.mp4",
        "rtsp://camera/1",
        "concat:a.mp4|b.mp4",
        "pipe:0",
        "data:audio/wav;base64,AAAA",
        "file:clip.mp4",
        "subfile,,start,0,end,1,,:a.mp4",
    ],
)
def test_protocols_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="download it first and pass the local path"):
        from_file(path)


def test_names_that_look_odd_are_just_names(tmp_path: Path, files: dict[str, Path]) -> None:
    path = tmp_path / "http:a%03d,b.wav"
    path.write_bytes(files["tone"].read_bytes())
    with from_file(path) as source:
        assert source.audio is not None
    with pytest.raises(TypeError, match="takes a path"):
        from_file(b"clip.mp4")  # type: ignore[arg-type]


def test_a_file_that_breaks_while_it_plays_ends_with_an_error(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    path = tmp_path / "gone.mkv"
    path.write_bytes(files["short"].read_bytes())
    source = from_file(path)
    path.unlink()
    assert play(source) == {"video": [], "audio": []}
    with pytest.raises(MediaError, match=r"gone.mkv.*cannot be played any further"):
        source.wait(timeout=20)


def test_a_damaged_file_plays_as_far_as_it_can(tmp_path: Path) -> None:
    path = write(tmp_path / "damaged.mkv", seconds=1)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = b"\xa5" * 200
    path.write_bytes(data)
    source = from_file(path)
    frames = play(source)
    assert len(frames["video"]) > 5
    for kind in frames:
        stamps = [frame.pts for frame in frames[kind]]
        assert stamps == sorted(set(stamps))


# --- ending, and what is left ---------------------------------------------------------


def test_wait_says_that_nobody_listens(files: dict[str, Path]) -> None:
    with from_file(files["tone"]) as source:
        with pytest.raises(MeteredTimeoutError, match="nobody consumes its tracks yet"):
            source.wait(timeout=0)
        with pytest.raises(ValueError, match="timeout"):
            source.wait(timeout=-1)
    source.wait(timeout=0)


def test_stop_wakes_whoever_waits_and_ends_the_tracks(files: dict[str, Path]) -> None:
    source = from_file(files["long"], loop=True)
    woken = threading.Event()

    def wait() -> None:
        source.wait(timeout=20)
        woken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    play(source, 3)
    source.stop()
    assert woken.wait(20)
    thread.join(20)
    assert all(track.readyState == "ended" for track in source.tracks)
    assert play(source) == {"video": [], "audio": []}
    wait_until(lambda: not threads())
    source.stop()


def test_one_track_alone_plays_to_the_end(files: dict[str, Path]) -> None:
    with from_file(files["both"]) as source:
        assert source.audio is not None  # handed out, and never consumed
        frames = asyncio.run(asyncio.wait_for(consume(source.video), 20))
        source.wait(timeout=20)
    numbers = [number_of(frame) for frame in frames]
    assert numbers == sorted(set(numbers))
    assert len(numbers) > 12  # a busy machine may drop some
    assert source.frames_sent == {"video": len(numbers), "audio": 0}


@pytest.mark.filterwarnings("ignore:.*this blocking call holds up the event loop:RuntimeWarning")
def test_two_hundred_rounds_leave_nothing(files: dict[str, Path]) -> None:
    async def one() -> None:
        with from_file(files["short"]) as source:
            await asyncio.gather(*(consume(track, 1) for track in source.tracks))

    async def main() -> None:
        for _ in range(200):
            await asyncio.wait_for(one(), 20)

    asyncio.run(one())
    wait_until(lambda: not threads())
    before = descriptors()
    asyncio.run(main())
    wait_until(lambda: not threads())
    assert descriptors() <= before
    opened = [from_file(files["tone"]) for _ in range(5)]
    assert descriptors() <= before
    del opened


def test_a_track_keeps_its_source_and_the_last_reference_ends_it(files: dict[str, Path]) -> None:
    source: FileSource | None = from_file(files["long"], loop=True)
    assert source is not None
    gone = weakref.ref(source)
    track = source.audio
    del source
    gc.collect()
    assert len(asyncio.run(consume(track, 3))) == 3
    assert gone() is not None
    assert threads()
    del track
    gc.collect()
    assert gone() is None
    wait_until(lambda: not threads())


@pytest.mark.parametrize("ending", ["pass", "raise SystemExit(0)", "source.stop()"])
def test_the_interpreter_exits_with_a_source_playing(ending: str) -> None:
    began = time.monotonic()
    result = run_script(
        f"""
import asyncio
from metered_sync import from_file
source = from_file({str(BUNNY)!r}, loop=True)
async def main():
    for track in source.tracks:
        await track.recv()
asyncio.run(main())
{ending}
"""
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert time.monotonic() - began < 20
