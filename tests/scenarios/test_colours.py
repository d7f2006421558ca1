"""Pictures of every kind, from every source, at a receiver and in a recording: as they are."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiortc.contrib.media import MediaPlayer
from aiortc.mediastreams import MediaStreamTrack
from av import VideoFrame

from metered_sync import ClosedError, MeteredPeer, Recorder, VideoSource, from_file
from metered_sync.local import LocalCloud
from tests.conftest import wait_until
from tests.support.colours import (
    FILES,
    HEIGHT,
    PATCHES,
    WIDTH,
    PhoneExtensions,
    apart,
    bt601,
    colour_files,
    colours,
    ffmpeg,
    first_frame,
    patches,
    set_matrix,
    video_senders,
)

SAMPLE = ("bt709.mp4", "yuvj420p.mkv", "hevc10full.mp4", "gray10.mkv", "x264rgb.mkv")
"""Files that stand for the others."""
NEAR = 8
"""How far a colour may be from what FFmpeg shows, after one more lossy encoder."""


class Repeated(MediaStreamTrack):
    """A user's own track, which hands out a frame as a decoder gave it."""

    kind = "video"

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._number = 0

    async def recv(self) -> VideoFrame:
        await asyncio.sleep(0.05)
        frame = first_frame(self._path)
        self._number += 1
        frame.pts, frame.time_base = self._number * 4500, Fraction(1, 90000)
        return frame


@contextlib.contextmanager
def writing(path: Path) -> Iterator[VideoSource]:
    """Write a decoded frame again and again."""
    frame = first_frame(path)
    with VideoSource(WIDTH, HEIGHT, 20) as source:

        def run() -> None:
            with contextlib.suppress(ClosedError):
                while True:
                    source.write(frame)

        thread = threading.Thread(target=run)
        thread.start()
        yield source
    thread.join(20)


def first_of(track: MediaStreamTrack | None) -> Any:
    """Return the first frame of a track."""
    assert track is not None
    return asyncio.run(asyncio.wait_for(track.recv(), 20))


@pytest.mark.parametrize("name", FILES)
def test_files(name: str) -> None:
    files = colour_files()
    with from_file(files.path(name)) as source:
        assert apart(bt601(first_of(source.video)), files.shown(name)) <= 4


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("aspect", [(64, 45), (16, 15), (3, 4)])
def test_files_with_pixels_that_are_not_square(
    tmp_path: Path, container: str, aspect: tuple[int, int]
) -> None:
    path = tmp_path / f"film.{container}"
    codec = "ffv1" if container == "mkv" else "libx264"  # in Matroska the container says it only
    ffmpeg(
        *("-f", "lavfi", "-i", f"testsrc=s=720x576:r=25,setsar={aspect[0]}/{aspect[1]}"),
        *("-frames:v", "5", "-c:v", codec, path),
    )
    with from_file(path) as source:
        frame = first_of(source.video)
    shape = frame.width / frame.height
    assert shape == pytest.approx(720 / 576 * aspect[0] / aspect[1], rel=0.01)
    assert frame.width >= 720  # nothing is lost
    assert frame.height >= 576


def test_tracks_are_recorded_as_they_are(tmp_path: Path) -> None:
    files = colour_files()
    sources: list[Any] = [from_file(files.path(name), loop=True) for name in SAMPLE]
    wanted = [files.shown(name) for name in SAMPLE]
    with contextlib.ExitStack() as stack:
        for name in ("bt709full.mp4", "vp9full.webm"):
            sources.append(stack.enter_context(writing(files.path(name))))
            sources.append(Repeated(files.path(name)))
            wanted += [files.shown(name)] * 2
        player = MediaPlayer(str(files.path("bt709full.mp4")), loop=True)
        sources.append(player.video)
        wanted.append(files.shown("bt709full.mp4"))
        recorders = []
        for number, source in enumerate(sources):
            suffix = "webm" if number % 2 else "mp4"
            recorder = Recorder(tmp_path / f"{number}.{suffix}")
            recorder.add(source)
            recorder.start()
            recorders.append(recorder)
        for recorder in recorders:
            wait_until(lambda r=recorder: r.info.frames >= 3, 20)  # type: ignore[misc]
            recorder.stop()
        player._stop(player.video)
        for source in sources:
            source.stop()
    paths = [next(tmp_path.glob(f"{number}.*")) for number in range(len(sources))]
    for path, shown in zip(paths, wanted, strict=True):
        raw = ffmpeg("-i", path, "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
        seen = np.frombuffer(raw, np.uint8).reshape(HEIGHT, WIDTH, 3)
        assert apart(seen, shown) <= NEAR, path


@pytest.mark.parametrize("codec", ["vp8", "h264"])
def test_tracks_arrive_as_they_are(shared_cloud: LocalCloud, codec: str) -> None:
    files = colour_files()
    sources: list[Any] = [from_file(files.path(name), loop=True) for name in SAMPLE[:3]]
    sources.append(Repeated(files.path("bt709full.mp4")))
    wanted = [*map(files.shown, SAMPLE[:3]), files.shown("bt709full.mp4")]
    room = f"colours/{codec}"
    with (
        writing(files.path("vp9full.webm")) as written,
        MeteredPeer(**shared_cloud.client_options()) as ann,
        MeteredPeer(**shared_cloud.client_options()) as bob,
    ):
        sources.append(written)
        wanted.append(files.shown("vp9full.webm"))
        for number, source in enumerate(sources):
            ann.add_track(source, metadata={"number": number}, codec=codec, video_bitrate=1_000_000)
        ann.join(room)
        bob.join(room)
        remote = bob.wait_for_peer(timeout=20)
        wait_until(lambda: len(remote.tracks) == len(sources), 20)
        for track in remote.tracks:
            wait_until(lambda t=track: t.metadata is not None, 20)  # type: ignore[misc]
            assert track.metadata is not None
            shown = wanted[track.metadata["number"]]
            assert apart(track.read(timeout=20)[..., ::-1], shown) <= NEAR
            assert apart(track.snapshot(timeout=20).array[..., ::-1], shown) <= NEAR
        for source in sources:
            source.stop()


def test_a_turned_film_is_recorded_upright(tmp_path: Path) -> None:
    path = tmp_path / "mirrored.mp4"
    path.write_bytes(colour_files().path("bt709.mp4").read_bytes())
    set_matrix(path, 0, 1, 1, 0)
    track = Repeated(path)
    with Recorder(tmp_path / "upright.mp4", track) as recorder:
        wait_until(lambda: recorder.info.frames >= 3, 20)
    track.stop()
    raw = ffmpeg(
        "-i", tmp_path / "upright.mp4", "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"
    )
    seen = np.frombuffer(raw, np.uint8).reshape(WIDTH, HEIGHT, 3)
    assert np.abs(colours(seen.swapaxes(0, 1)) - PATCHES).max() <= NEAR
    assert np.abs(colours(patches()) - PATCHES).max() == 0


def test_pictures_of_a_telephone_are_upright(shared_cloud: LocalCloud, tmp_path: Path) -> None:
    """They lie, and their packets say so: upright for readers, for recordings, and sent on."""
    before = video_senders()
    with (
        from_file(colour_files().path("yuvj420p.mkv"), loop=True) as film,
        MeteredPeer(**shared_cloud.client_options()) as ann,
        MeteredPeer(**shared_cloud.client_options()) as bob,
    ):
        ann.add_track(film.video)
        ann.join("colours/turned")
        bob.join("colours/turned")
        track = bob.wait_for_peer(timeout=20).track("video", timeout=20)
        track.read(timeout=20)
        [sender] = [one for one in video_senders() if one not in before]
        extensions = PhoneExtensions(sender)
        times = []
        for orientation in (1, 2, 3, 0, 1):
            extensions.orientation = orientation
            shape = (HEIGHT, WIDTH, 3) if orientation % 2 == 0 else (WIDTH, HEIGHT, 3)

            def upright(turns: int = orientation, shape: Any = shape) -> bool:
                seen = track.read(timeout=20)
                rgb = np.rot90(seen[..., ::-1], turns)
                return seen.shape == shape and np.abs(colours(rgb) - PATCHES).max() <= NEAR

            wait_until(upright, 20)
            with track.frames(mode="fifo") as frames:
                times += [frames.get(timeout=20).time for _ in range(3)]
        assert times == sorted(set(times))
        with Recorder(tmp_path / "phone.mp4", track) as recorder:
            wait_until(lambda: recorder.info.frames >= 3, 20)
    upright_film = first_frame(tmp_path / "phone.mp4")
    assert (upright_film.width, upright_film.height) == (HEIGHT, WIDTH)
    rgb = np.rot90(bt601(upright_film), 1)
    assert np.abs(colours(rgb) - PATCHES).max() <= NEAR
