"""Playing files: formats, pace, loops, seeking, errors, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import os
import struct
import threading
import time
import wave
import weakref
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from metered_sync import (
    ClosedError,
    FileSource,
    MediaError,
    MediaNotFoundError,
    MeteredTimeoutError,
    from_file,
)
from metered_sync.engine.sending import feed as tracks_module
from metered_sync.media.sources.base import as_tracks
from metered_sync.media.sources.demuxing import MAX_KEPT_PACKETS, Reading
from tests.conftest import run_script, wait_until

BUNNY = Path(__file__).parents[3] / "metered_sync" / "demo" / "bunny.mp4"
FPS = 25
LEVEL = 150
"""How much louder the sound of a test file gets each 20 ms."""


def picture(number: int, size: tuple[int, int] = (64, 48)) -> av.VideoFrame:
    """Return a grey frame that shows its number as its brightness."""
    image = np.full((size[1] * 3 // 2, size[0]), 128, np.uint8)
    image[: size[1]] = 20 + number * 2
    return av.VideoFrame.from_ndarray(image, format="yuv420p")


def number_of(frame: Any) -> int:
    luma = np.frombuffer(frame.planes[0], np.uint8).reshape(-1, frame.planes[0].line_size)
    return round((float(luma[10 : frame.height - 10, 10 : frame.width - 10].mean()) - 20) / 2)


def write(
    path: Path,
    *,
    seconds: float = 1.0,
    video: str | None = "ffv1",
    audio: str | None = "pcm_s16le",
    times: Iterable[int] | None = None,
    rate: int = 48000,
    layout: str = "stereo",
    audio_seconds: float | None = None,
    keyframes: int = 5,
) -> Path:
    """Write a file whose content tells its time: frame n is n, and so is sound n * 20 ms."""
    with av.open(str(path), "w") as container:
        packets: list[Any] = []
        if video is not None:
            stream: Any = container.add_stream(video, rate=FPS)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
            stream.codec_context.gop_size = keyframes
            if video == "libx264":
                stream.codec_context.options = {"qp": "4"}
            stamps = times or range(0, round(seconds * 1000), 1000 // FPS)
            for number, stamp in enumerate(stamps):
                frame: Any = picture(number)
                frame.pts, frame.time_base = stamp, Fraction(1, 1000)
                packets += stream.encode(frame)
            packets += stream.encode(None)
        if audio is not None:
            stream = container.add_stream(audio, rate=rate)
            stream.layout = layout
            channels = len(stream.layout.channels)
            total = round((seconds if audio_seconds is None else audio_seconds) * rate)
            levels = (np.arange(total) * 50 // rate * LEVEL).astype(np.int16)
            piece = rate // 50
            for at in range(0, total, piece):
                samples = np.repeat(levels[at : at + piece], channels)[None]
                sound: Any = av.AudioFrame.from_ndarray(samples, "s16", layout)
                sound.sample_rate, sound.pts, sound.time_base = rate, at, Fraction(1, rate)
                packets += stream.encode(sound)
            packets += stream.encode(None)
        for packet in sorted(packets, key=lambda p: float(p.dts * p.time_base)):
            container.mux(packet)
    return path


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


async def consume(track: MediaStreamTrack | None, count: float = math.inf) -> list[Any]:
    assert track is not None
    frames: list[Any] = []
    try:
        while len(frames) < count:
            frames.append(await track.recv())
    except MediaStreamError:
        pass
    return frames


def play(source: FileSource, pieces: float = math.inf, timeout: float = 20) -> dict[str, list[Any]]:
    """Consume all tracks, up to a number of pieces of sound and half as many pictures."""
    tracks = source.tracks

    async def main() -> list[list[Any]]:
        tasks = (consume(t, pieces if t.kind == "audio" else pieces / 2) for t in tracks)
        return await asyncio.wait_for(asyncio.gather(*tasks), timeout)

    return dict(zip((track.kind for track in tracks), asyncio.run(main()), strict=True))


def level_of(frame: Any) -> int:
    """Return which 20 ms of its file a piece of sound comes from."""
    return round(float(np.median(frame.to_ndarray()[0, :960])) / LEVEL)


def steps(frames: list[Any]) -> set[int]:
    return {b.pts - a.pts for a, b in itertools.pairwise(frames)}


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
        source.wait(timeout=5)
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


@pytest.mark.usefixtures("patient")
def test_a_tone_of_1000_hz_in_a_wav_file_is_sound(tmp_path: Path) -> None:
    # FFmpeg 8.1 (PyAV 19), which looks at the samples, takes this one for another format.
    path = tmp_path / "tone.wav"
    tone = np.sin(2 * math.pi * 1000 * np.arange(48000) / 48000) * 12000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(48000)
        file.writeframes(np.repeat(tone.astype(np.int16), 2).tobytes())
    with from_file(path) as source:
        assert source.duration == pytest.approx(1.0)
        assert source.video is None
        assert source.audio is not None


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


def test_odd_sizes_become_even(tmp_path: Path) -> None:
    path = tmp_path / "odd.avi"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("rawvideo", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 63, 47, "bgr24"
        image = np.zeros((47, 63, 3), np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    [frame] = play(from_file(path))["video"]
    assert (frame.width, frame.height, frame.format.name) == (62, 46, "yuv420p")


@pytest.mark.parametrize(("quarters", "corner"), [(1, (-1, 0)), (2, (-1, -1)), (3, (0, -1))])
def test_a_film_that_lies_on_its_side_is_set_upright(
    tmp_path: Path, quarters: int, corner: tuple[int, int]
) -> None:
    """As telephones film: the file says how the picture is to be turned, counterclockwise."""
    path = tmp_path / "telephone.mp4"
    image = np.full((48, 64, 3), 40, np.uint8)
    image[:20, :20] = 200  # the corner at the top left
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=FPS, options={"qp": "4"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "bgr24")))
        container.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    cosine, sine = [(1, 0), (0, -1), (-1, 0), (0, 1)][quarters]
    matrix = struct.pack(
        ">9i", *(n << 16 for n in (cosine, sine, 0, -sine, cosine)), 0, 0, 0, 1 << 30
    )
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = matrix
    path.write_bytes(data)
    [frame] = play(from_file(path))["video"]
    assert (frame.width, frame.height) == ((64, 48) if quarters == 2 else (48, 64))
    shown = frame.to_ndarray(format="gray")
    y, x = (10 if c == 0 else -10 for c in corner)
    assert shown[y, x] > 150
    assert sorted(
        v > 150 for v in (shown[10, 10], shown[10, -10], shown[-10, 10], shown[-10, -10])
    ) == [False, False, False, True]


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic.value
        sound: Any = container.add_stream("aac", rate=48000)
        image = picture(1).reformat(format="yuvj420p")
        container.mux(cover.encode(image))
        container.mux(cover.encode(None))
        silence = av.AudioFrame.from_ndarray(np.zeros((2, 4096), np.float32), "fltp", "stereo")
        silence.sample_rate = 48000
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
    with from_file(path) as source:
        assert source.video is None
        assert source.audio is not None


def test_packets_far_apart_are_kept_within_a_bound(tmp_path: Path) -> None:
    # The pictures end early: looking for more of them leads through all of the sound.
    path = write(tmp_path / "early.mkv", seconds=0.2, audio_seconds=30)
    kept, order = [], []
    with Reading(str(path), ["video", "audio"], 0.0) as reading:
        for at, kind, _ in reading:
            order.append((at, kind))
            kept.append(max(len(packets) for packets in reading._packets.values()))
    assert max(kept) <= MAX_KEPT_PACKETS + 1
    assert order == sorted(order, key=lambda item: item[0])
    assert len(order) == 5 + 1500


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
    source.wait(timeout=5)
    for frames, at in ((first, 25), (second, 87), (third, 0)):
        assert number_of(frames["video"][0]) in (at, at + 1)
        assert level_of(frames["audio"][0]) in (2 * at, 2 * at + 1, 2 * at + 2)
    for kind in ("video", "audio"):
        stamps = [frame.pts for frames in (first, second, third) for frame in frames[kind]]
        assert stamps == sorted(set(stamps))
    with pytest.raises(ClosedError, match="open the file again"):
        source.seek(0)


@pytest.mark.parametrize("wrong", [-1, math.nan, math.inf])
def test_seeking_nowhere_is_refused(files: dict[str, Path], wrong: float) -> None:
    with from_file(files["tone"]) as source:
        with pytest.raises(ValueError, match="seconds must be"):
            source.seek(wrong)
        with pytest.raises(TypeError):
            source.seek(True)


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
    with pytest.raises(TypeError, match="path must be"):
        from_file(b"clip.mp4")  # type: ignore[arg-type]


def test_what_a_file_lacks_is_none_and_passing_it_on_says_so(files: dict[str, Path]) -> None:
    with from_file(files["tone"]) as tone, from_file(files["silent"]) as silent:
        assert tone.video is None
        assert [track.kind for track in tone.tracks] == ["audio"]
        with pytest.raises(MediaError, match=r"from_file\('tone.wav'\) has no video, only audio"):
            as_tracks(tone.video)
        with pytest.raises(MediaError, match=r"from_file\('silent.mp4'\) has no audio, only vid"):
            as_tracks(silent.audio)
        assert as_tracks(tone) == ([tone.audio], True)
        assert as_tracks(tone.audio) == ([tone.audio], False)
        for wrong in ("clip.mp4", 5, object(), [tone.audio]):
            with pytest.raises(TypeError, match="a track or a source is needed"):
                as_tracks(wrong)
        outcome: list[BaseException] = []

        def elsewhere() -> None:
            with pytest.raises(TypeError) as info:
                as_tracks(None)
            outcome.append(info.value)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(5)
        assert outcome


def test_a_file_that_breaks_while_it_plays_ends_with_an_error(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    path = tmp_path / "gone.mkv"
    path.write_bytes(files["short"].read_bytes())
    source = from_file(path)
    path.unlink()
    assert play(source) == {"video": [], "audio": []}
    with pytest.raises(MediaError, match=r"gone.mkv.*cannot be played any further"):
        source.wait(timeout=5)


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
    assert woken.wait(5)
    thread.join(5)
    assert all(track.readyState == "ended" for track in source.tracks)
    assert play(source) == {"video": [], "audio": []}
    wait_until(lambda: not threads())
    source.stop()


def test_one_track_alone_plays_to_the_end(files: dict[str, Path]) -> None:
    with from_file(files["both"]) as source:
        assert source.audio is not None  # handed out, and never consumed
        frames = asyncio.run(asyncio.wait_for(consume(source.video), 20))
        source.wait(timeout=5)
    numbers = [number_of(frame) for frame in frames]
    assert numbers == sorted(set(numbers))
    assert len(numbers) > 12  # a busy machine may drop some
    assert source.frames_sent == {"video": len(numbers), "audio": 0}


def test_two_hundred_rounds_leave_nothing(files: dict[str, Path]) -> None:
    async def one() -> None:
        with from_file(files["short"]) as source:
            await asyncio.gather(*(consume(track, 1) for track in source.tracks))

    async def main() -> None:
        for _ in range(200):
            await asyncio.wait_for(one(), 10)

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
