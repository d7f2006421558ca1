"""Play from a real RTSP server: pictures and sound, refusals, losses."""

from __future__ import annotations

import asyncio
import gc
import io
import itertools
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av.error
import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from metered_sync import (
    MediaError,
    MeteredTimeoutError,
    RtspSource,
    WrongThreadError,
    from_rtsp,
)
from metered_sync.media.sources import rtsp
from metered_sync.media.tracks.given import tracks_of
from metered_sync.testing import dominant_frequency
from tests.conftest import wait_until
from tests.support.rtsp_server import RtspServer, rtsp_server

PASSWORD = "s3cret@/:x"
LOGIN = "ann:s3cret%40%2F%3Ax@"


@pytest.fixture(scope="module")
def locked() -> Iterator[RtspServer]:
    """A camera that asks for user and password."""
    with rtsp_server("ann", PASSWORD) as server:
        yield server


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    wait_until(lambda: not threads(), 20, "threads end")


def threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("metered-sync-from", "metered-sync-open"))]


def consume(source: RtspSource, *, until: Callable[[dict[str, list[Any]]], object]) -> Any:
    """Consume all tracks until a condition holds; return the frames by kind."""
    frames: dict[str, list[Any]] = {track.kind: [] for track in source.tracks}

    async def one(track: MediaStreamTrack) -> None:
        try:
            while True:
                frames[track.kind].append(await track.recv())
        except MediaStreamError:
            pass

    async def main() -> None:
        tasks = [asyncio.ensure_future(one(track)) for track in source.tracks]
        deadline = time.monotonic() + 40
        while not until(frames) and not all(task.done() for task in tasks):
            assert time.monotonic() < deadline, {k: len(v) for k, v in frames.items()}
            await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()

    asyncio.run(main())
    return frames


def enough(frames: dict[str, list[Any]]) -> bool:
    return all(len(f) >= {"video": 8, "audio": 40}[kind] for kind, f in frames.items())


def check(frames: dict[str, list[Any]]) -> None:
    """The frames are what the camera shows and plays, with rising timestamps."""
    for frame in frames.get("video", []):
        assert (frame.format.name, frame.width, frame.height) == ("yuv420p", 160, 120)
        assert frame.time_base == Fraction(1, 90000)
        blue, green, red = frame.to_ndarray(format="bgr24").mean(axis=(0, 1))
        assert red > 200
        assert max(blue, green) < 40
    for frame in frames.get("audio", []):
        assert (frame.format.name, frame.layout.name, frame.samples) == ("s16", "stereo", 960)
        assert (frame.sample_rate, frame.time_base) == (48000, Fraction(1, 48000))
    for kind in frames:
        apart = {"video": 1, "audio": 960}[kind]
        assert all(b.pts - a.pts >= apart for a, b in itertools.pairwise(frames[kind]))
    if "audio" in frames:
        sound = np.concatenate([f.to_ndarray()[0, ::2] for f in frames["audio"][10:]])
        assert dominant_frequency(sound, 48000) == pytest.approx(500, abs=5)


# --- what is played -------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["tcp", "udp", "http"])
def test_pictures_and_sound_arrive(camera: RtspServer, transport: Any) -> None:
    with from_rtsp(camera.url(), transport=transport) as source:
        assert [track.kind for track in source.tracks] == ["video", "audio"]
        assert (source.state, source.restarts, source.duration) == ("connected", 0, None)
        frames = consume(source, until=enough)
        check(frames)
        # In step: what is handed out at the same time has about the same timestamps.
        apart = frames["video"][-1].time - frames["audio"][-1].time
        assert abs(apart) < 1
        assert source.position == pytest.approx(frames["audio"][-1].time, abs=1)
        assert source.frames_sent["video"] >= 8
    assert source.state == "stopped"
    source.wait(timeout=0)


def test_one_kind_alone(camera: RtspServer) -> None:
    with from_rtsp(camera.url("video")) as pictures, from_rtsp(camera.url("audio")) as sound:
        assert pictures.audio is None
        with pytest.raises(MediaError, match="None is no track"):
            tracks_of(pictures.audio)
        assert sound.video is None
        assert list(check_all(pictures)) == ["video"]
        began = pictures._feed.clock()
        assert list(check_all(sound)) == ["audio"]
        with pytest.raises(MediaError, match="is live"):
            sound.seek(0)
        # Nobody has taken a picture for a while: what is taken then is of now.
        wait_until(lambda: pictures._feed.clock() > began + 1.5)
        now = pictures._feed.clock()
        late = consume(pictures, until=lambda frames: frames["video"])
        assert late["video"][0].time > now - 1  # two frames, and what a busy machine adds
        with pytest.raises(MeteredTimeoutError):
            sound.wait(timeout=0)


def test_sound_of_six_channels(camera: RtspServer) -> None:
    with from_rtsp(camera.url("last-of-six")) as source:
        frames = consume(source, until=enough)["audio"][10:]
    sound = np.concatenate([frame.to_ndarray() for frame in frames], axis=1).reshape(-1, 2)
    right = sound[:, 1]  # the last of 5.1 stands there, behind
    assert dominant_frequency(right, 48000) == pytest.approx(500, abs=5)
    assert np.abs(right).max() > 2000  # of 32767


def check_all(source: RtspSource) -> dict[str, list[Any]]:
    frames = consume(source, until=enough)
    check(frames)
    return frames


def test_a_password_opens_and_is_not_shown(locked: RtspServer, log: io.StringIO) -> None:
    with from_rtsp(locked.url("video", LOGIN)) as source:
        consume(source, until=lambda frames: frames["video"])
        locked.kill()
        wait_until(lambda: source.state == "reconnecting")
        shown = repr(source) + repr(source.video) + "".join(threads())
        wait_until(lambda: "nothing listens there" in log.getvalue())
        locked.start()
        wait_until(lambda: source.restarts == 1, 20)
    for secret in (PASSWORD, "s3cret", "ann:"):
        assert secret not in shown + log.getvalue()


# --- what is lost, and comes back -----------------------------------------------------


def test_a_server_that_dies_is_waited_for(
    camera: RtspServer, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtsp, "FIRST_PAUSE", 0.1)
    with from_rtsp(camera.url()) as source:
        frames = check_all(source)
        for restarts in (1, 2):
            camera.kill()
            wait_until(lambda: source.state == "reconnecting", 20)
            assert all(track.readyState == "live" for track in source.tracks)
            camera.start()
            more = check_all(source)
            assert (source.state, source.restarts) == ("connected", restarts)
            for kind in frames:
                assert more[kind][0].pts > frames[kind][-1].pts
                frames[kind] += more[kind]
        assert log.getvalue().count("lost, connecting again") == 2
        assert log.getvalue().count("back after") == 2
        # What does not last is waited for longer and longer.
        assert source._connection._pause >= 4 * rtsp.FIRST_PAUSE


def test_a_camera_that_comes_back_without_what_was_played(
    camera: RtspServer, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtsp, "FIRST_PAUSE", 0.1)
    with from_rtsp(camera.url("video")) as source:
        source._connection._url = camera.url("audio")  # it is set up anew
        camera.kill()
        wait_until(lambda: source.state == "reconnecting")
        camera.start()
        wait_until(lambda: "there is no video any more" in log.getvalue(), 20)
        source._connection._url = camera.url("video")
        wait_until(lambda: source.restarts >= 2 and source.state == "connected", 20)
        check_all(source)


def test_silence_is_a_loss(camera: RtspServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtsp, "MAX_SILENCE", 1.0)
    monkeypatch.setattr(rtsp, "CONNECT_TIMEOUT", 3.0)
    monkeypatch.setattr(rtsp, "FIRST_PAUSE", 0.1)
    with from_rtsp(camera.url("audio"), timeout=10) as source:
        consume(source, until=enough)
        with camera.frozen():
            wait_until(lambda: source.state == "reconnecting", 20)
        consume(source, until=lambda frames: source.restarts and enough(frames))
        assert source.state == "connected"


def reached(moment: float) -> bool:
    return time.monotonic() > moment


def test_a_short_silence_is_a_pause(camera: RtspServer) -> None:
    with from_rtsp(camera.url("video")) as source:
        consume(source, until=lambda frames: frames["video"])
        for _ in range(5):
            before, until = source.restarts, time.monotonic() + rtsp.READ_TIMEOUT + 0.3
            with camera.frozen():
                wait_until(partial(reached, until))
            check_all(source)
            if source.restarts == before:
                return
            # A read that gave up in the middle of a packet: seldom, and then connected anew.
        pytest.fail("each silence was taken for a loss")


@pytest.mark.parametrize("when", ["reading", "pausing"])
def test_stopping_is_prompt(camera: RtspServer, when: str) -> None:
    source = from_rtsp(camera.url("video"))
    consume(source, until=lambda frames: frames["video"])
    ended = threading.Event()

    def wait() -> None:
        source.wait()
        ended.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    if when == "reading":
        with camera.frozen():
            began = time.monotonic()
            source.stop()
            wait_until(lambda: not threads())
    else:
        camera.kill()
        wait_until(lambda: source.state == "reconnecting")
        began = time.monotonic()
        source.stop()
        wait_until(lambda: not threads())
        camera.start()
    assert time.monotonic() - began < 5
    assert ended.wait(20)
    waiter.join(20)
    assert source.video is not None
    assert source.video.readyState == "ended"


def test_a_source_that_is_forgotten_stops(camera: RtspServer) -> None:
    source: RtspSource | None = from_rtsp(camera.url("audio"))
    assert source is not None
    consume(source, until=lambda frames: frames["audio"])
    assert len(threads()) == 1
    del source
    gc.collect()
    wait_until(lambda: not threads())


# --- what is refused ------------------------------------------------------------------


def test_refusals_say_what_to_do(camera: RtspServer, locked: RtspServer) -> None:
    for url, transport, reason in (
        (camera.url("nothing"), "tcp", "404.*no such path"),
        (locked.url(), "tcp", "401.*user:password@host"),
        (locked.url("both", "ann:wrongsecret@"), "tcp", "401.*user or password"),
        ("rtsp://127.0.0.1:1/", "tcp", "nothing listens there: check host and port"),
        ("rtsp://no-such-host.invalid/x", "tcp", "host is not known or not reachable"),
        (camera.url("multicast"), "tcp", "does not offer the transport 'tcp': try another"),
    ):
        with pytest.raises(MediaError, match=reason) as info:
            from_rtsp(url, transport=transport)
        assert isinstance(info.value.__cause__, av.error.FFmpegError)
        error: BaseException | None = info.value
        while error is not None:
            assert "wrongsecret" not in f"{error!r} {error}"
            error = error.__cause__ or error.__context__


@contextmanager
def scripted(*answers: str) -> Iterator[int]:
    """A server that gives these answers to one client's requests, then none; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def serve() -> None:
            with listener.accept()[0] as client:
                for number, answer in enumerate(answers, 1):
                    client.recv(65536)
                    client.sendall(answer.format(number).replace("\n", "\r\n").encode())
                ended.wait(30)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        ended.set()
        thread.join(20)


OPTIONS = "RTSP/1.0 200 OK\nCSeq: {}\nPublic: DESCRIBE, SETUP, PLAY\n\n"
EMPTY = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=nothing\nt=0 0\n"
DESCRIBE = (
    "RTSP/1.0 200 OK\nCSeq: {}\nContent-Type: application/sdp\n"
    f"Content-Length: {len(EMPTY) + EMPTY.count(chr(10))}\n\n{EMPTY}"
)


def test_a_server_without_media() -> None:
    ok = "RTSP/1.0 200 OK\nCSeq: {}\n\n"
    with (
        scripted(OPTIONS, DESCRIBE, ok) as port,
        pytest.raises(MediaError, match=r"neither audio nor video|nothing readable"),
    ):
        from_rtsp(f"rtsp://127.0.0.1:{port}/")


def test_a_server_that_does_not_answer() -> None:
    began = time.monotonic()
    with (
        scripted() as port,
        pytest.raises(MeteredTimeoutError, match=r"did not answer within 0\.3 s: check"),
    ):
        from_rtsp(f"rtsp://ann:wrongsecret@127.0.0.1:{port}/", timeout=0.3)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "url",
    [
        "http://camera/1",
        "clip.mp4",
        "/dev/video0",
        "file:/etc/passwd",
        "rtsp:",
        "rtsp://",
        "rtsp://host:port/",
        "rtsp://host/a\r\nX: y",
        "rtspu://host/",
        "concat:rtsp://host/",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url must be like rtsp://"):
        from_rtsp(url)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match=r"transport must be one of tcp, udp, .*not 'quic'"):
        from_rtsp("rtsp://host/", transport="quic")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="url must be a str"):
        from_rtsp(Path("rtsp"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout"):
        from_rtsp("rtsp://host/", timeout=math.nan)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://u:p@host:8554/live?user=u&password=p", "rtsp://host:8554/live?…"),
        ("rtsps://[::1]/user=u&password=p&channel=1", "rtsps://[::1]/user=…&password=…&channel=…"),
        ("rtsp://HOST/stream1", "rtsp://host/stream1"),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    assert rtsp._shown(url) == shown


def test_the_loop_thread_is_no_place_to_connect(camera: RtspServer) -> None:
    from metered_sync.bridge import engines

    errors: list[BaseException] = []
    done = threading.Event()

    def connect() -> None:
        try:
            from_rtsp(camera.url())
        except BaseException as error:
            errors.append(error)
        done.set()

    engines.current().post(connect)
    assert done.wait(20)
    assert [type(error) for error in errors] == [WrongThreadError]
