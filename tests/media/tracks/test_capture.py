"""Read tracks in programs that are written for OpenCV."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metered_sync import ClosedError, MediaError, MeteredTimeoutError
from metered_sync.media.tracks import capture
from tests.conftest import missing
from tests.support.far_end import Far, picture, shown


@pytest.fixture
def cv2() -> Any:
    try:
        import cv2
    except ImportError:
        missing("needs OpenCV (pip install opencv-python-headless)")
    return cv2


def test_opencvs_own_loop(cv2: Any, tmp_path: Path) -> None:
    def copy(cap: Any, to: Path) -> list[float]:
        """Do what OpenCV's tutorials do: look at each picture, draw, write a film."""
        assert cap.isOpened()
        width = int(cap.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(cap.get(cv2.CAP_PROP_FRAME_HEIGHT))
        fps = cap.get(cv2.CAP_PROP_FPS)
        film = cv2.VideoWriter(str(to), cv2.VideoWriter_fourcc(*"MJPG"), fps, (width, height))
        greys = []
        while cap.isOpened():
            ok, frame = cap.read()
            if not ok:
                break
            grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
            greys.append(float(grey[: height // 2 - 8].mean()))
            cv2.circle(frame, (width // 2, height - 8), 4, (0, 0, 255), -1)
            film.write(frame)
        cap.release()
        film.release()
        assert not cap.isOpened()
        assert cap.read() == (False, None)
        return greys

    far = Far()
    cap = far.track.capture(timeout=20)
    cap.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    sender = far.send_one_by_one(cap._frames, *(picture(n, 160, 96) for n in range(0, 200, 5)))
    seen = copy(cap, tmp_path / "first.avi")
    sender.join()
    assert seen == sorted(seen)
    assert len(seen) in (37, 38)  # three were needed to tell the rate; a fourth may have come
    # The same function reads its film back, through OpenCV.
    again = copy(cv2.VideoCapture(str(tmp_path / "first.avi")), tmp_path / "second.avi")
    assert again == pytest.approx(seen, abs=8)
    written = cv2.VideoCapture(str(tmp_path / "second.avi"))
    assert written.get(cv2.CAP_PROP_FPS) == pytest.approx(6)
    written.release()


def test_properties_have_opencvs_numbers(cv2: Any) -> None:
    for name in ("POS_MSEC", "POS_FRAMES", "FRAME_WIDTH", "FRAME_HEIGHT", "FPS"):
        assert getattr(capture, name) == getattr(cv2, f"CAP_PROP_{name}")


@pytest.mark.parametrize("opened", [0, "clip.mp4", None])
def test_what_opencv_would_open_is_told_where_it_is_opened(opened: Any) -> None:
    with pytest.raises(TypeError, match=r"capture\(\) returns; .* from_camera\(\)"):
        capture.VideoCapture(opened)


def test_properties() -> None:
    far = Far()
    with far.track.capture() as cap:
        for unknown in (3, 4, 5):
            with pytest.raises(MeteredTimeoutError, match="capture of video track 'far'"):
                cap.get(unknown, timeout=0)
        assert [cap.get(number) for number in (0, 1, 7, 38, 999, -1)] == [0.0] * 6
        assert cap.set(3, 640) is False
        far.send(picture(10))
        assert (cap.get(3), cap.get(4), cap.get(1)) == (64, 48, 0)
        with pytest.raises(MeteredTimeoutError):
            cap.get(5, timeout=0)
        far.send(picture(11), picture(12))
        assert cap.get(5) == pytest.approx(30)
        far.send(picture(100))  # a pause does not count
        far.send(picture(101), picture(102, 32, 32))
        assert cap.get(5) == pytest.approx(30)
        assert cap.get(3) == 64
        assert cap.grab(timeout=0)
        assert (cap.get(3), cap.get(4), cap.get(0), cap.get(1)) == (32, 32, 0, 1)
        far.send(picture(132))
        assert cap.grab(timeout=0)
        assert (cap.get(3), cap.get(0), cap.get(1)) == (64, pytest.approx(1000), 2)
        far.incoming.end()
    with Far().track.capture() as cap:
        cap._core.incoming.end()
        assert [cap.get(number) for number in (3, 4, 5)] == [0.0] * 3


def test_what_get_waited_for_is_read_next_unless_there_is_a_newer_one() -> None:
    far = Far()
    with far.track.capture(timeout=0) as cap:
        far.send(picture(50))
        cap.get(3)
        ok, image = cap.read()
        assert ok
        assert image is not None
        assert shown(image) == 50
        with pytest.raises(MeteredTimeoutError):
            cap.read()
        far.send(picture(60))
        cap._wait(lambda: cap._state.value.held is not None, cap_deadline())
        far.send(picture(100))
        _, image = cap.read()
        assert image is not None
        assert shown(image) == 100
        far.send(picture(101))
        cap._wait(lambda: cap._state.value.held is not None, cap_deadline())
        far.incoming.end()
        assert cap.isOpened()
        assert cap.grab()
        assert not cap.isOpened()
        assert not cap.grab()


def cap_deadline() -> Any:
    from metered_sync.bridge.deadline import Deadline

    return Deadline(10)


def test_a_format_is_not_taken_for_an_array() -> None:
    far = Far()
    cap: Any = far.track.capture()
    for call in (cap.read, cap.retrieve):
        with pytest.raises(TypeError, match=r"not str; .* track\.read\(format="):
            call("rgb24")


def test_grab_and_retrieve() -> None:
    far = Far()
    cap = far.track.capture()
    assert cap.retrieve() == (False, None)
    far.send(picture(30), picture(31))
    assert cap.grab()
    one, two = cap.retrieve()[1], cap.retrieve(flag=0)[1]
    assert one is not None
    assert one is not two
    assert np.array_equal(one, two)
    room = np.zeros((48, 64, 3), np.uint8)
    assert cap.retrieve(room)[1] is room
    assert np.array_equal(room, one)
    for unfit in (np.zeros((48, 64), np.uint8), np.zeros((48, 64, 3), np.float32)):
        assert np.array_equal(cap.retrieve(unfit)[1], one)  # type: ignore[arg-type]
        assert not unfit.any()
    far.send(picture(32))
    assert cap.read(room) == (True, room)
    assert repr(cap) == "<capture of video track 'far': open, 2 frames, 1 dropped>"
    far.incoming.end()
    assert not cap.grab()
    assert cap.retrieve() == (False, None)
    assert cap.read(timeout=20) == (False, None)


def test_deadlines_and_the_end() -> None:
    far = Far()
    with far.track.capture(timeout=0.05) as cap:
        for call in (cap.read, cap.grab, lambda: cap.get(3)):
            with pytest.raises(MeteredTimeoutError):
                call()
        with pytest.raises(ValueError, match="timeout"):
            cap.read(timeout=-1)
        far.incoming.end(MediaError("its connection broke"))
        for call in (cap.read, cap.grab, lambda: cap.get(3)):
            with pytest.raises(MediaError, match="its connection broke"):
                call()
    with pytest.raises(ValueError, match="timeout"):
        far.track.capture(timeout=True)
    cap.release()
    assert cap.read() == (False, None)


def test_release_wakes_readers() -> None:
    far = Far()
    cap = far.track.capture()
    seen: list[Any] = []
    threads = [threading.Thread(target=lambda: seen.append(cap.read())) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)  # they are on their way into the wait, and may be late
    far.send(picture(1))
    cap.release()
    cap.release()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert len(seen) == 3
    assert [ok for ok, _ in seen].count(False) >= 2
    assert not far.incoming.readers
    with pytest.raises(ClosedError):
        cap._frames.get(timeout=0)
