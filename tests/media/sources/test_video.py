"""Write pictures: formats, sizes, pace, repetition, ending; and through the SFU."""

from __future__ import annotations

import gc
import itertools
import threading
import time
import weakref
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from av import VideoFrame
from av.video.reformatter import ColorRange
from numpy.typing import NDArray

from metered_sync import ClosedError, MeteredTimeoutError, SfuClient, VideoSource
from metered_sync.engine.sending import pushed as live
from metered_sync.local import LocalCloud
from metered_sync.testing.sources import PatternPainter, read_number
from tests.conftest import wait_until
from tests.support.listening import Listener

COLOUR = (200, 120, 40)
"""Blue, green, red."""


def plain(width: int = 64, height: int = 48, colour: tuple[int, ...] = COLOUR) -> NDArray[Any]:
    return np.full((height, width, len(colour)), colour, np.uint8)


def number(value: int, width: int = 64, height: int = 48) -> NDArray[Any]:
    """Return a picture that tells a number; BGR."""
    return PatternPainter(width, height).frame(value).to_ndarray(format="bgr24")


def shown(source: VideoSource) -> NDArray[Any]:
    """End the source; return the picture that it was to show, BGR."""
    with Listener(source.video) as eye:
        source.end()
        eye.wait_for_end()
        (frame,) = eye.frames
        image: NDArray[Any] = frame.to_ndarray(format="bgr24")
        return image


def close(image: NDArray[Any], colour: tuple[int, ...] = COLOUR) -> bool:
    return bool(np.abs(image.astype(int) - np.array(colour)).max() <= 4)


# --- formats ----------------------------------------------------------------------------

B, G, R = COLOUR
FORMATS = {
    "bgr24": plain(),
    "rgb24": plain(colour=(R, G, B)),
    "bgra": plain(colour=(B, G, R, 0)),
    "rgba": plain(colour=(R, G, B, 255)),
}


@pytest.mark.parametrize("format", FORMATS)
def test_colours(format: str) -> None:
    source = VideoSource(64, 48, fps=100)
    source.write(FORMATS[format], format)
    image = shown(source)
    assert image.shape == (48, 64, 3)
    assert close(image)


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 1)])
def test_grey(shape: tuple[int, ...]) -> None:
    source = VideoSource(64, 48, fps=100)
    source.write(np.full(shape, 90, np.uint8), "gray")
    assert close(shown(source), (90, 90, 90))


@pytest.mark.parametrize("format", ["yuv420p", "nv12"])
def test_planar_formats(format: str) -> None:
    frame = VideoFrame.from_ndarray(plain(), "bgr24")
    source = VideoSource(64, 48, fps=100)
    source.write(frame.to_ndarray(format=format), format)
    assert close(shown(source))


@pytest.mark.parametrize("format", ["bgr24", "yuv420p", "yuv444p", "rgba"])
def test_frames(format: str) -> None:
    frame = VideoFrame.from_ndarray(plain(), "bgr24").reformat(format=format)
    frame.pts, frame.time_base = 4711, Fraction(1, 1000)
    source = VideoSource(64, 48, fps=100)
    source.write(frame)
    assert close(shown(source))
    assert (frame.pts, frame.time_base) == (4711, Fraction(1, 1000))  # it is the caller's


def test_frames_of_full_range() -> None:
    frame = VideoFrame.from_ndarray(np.full((72, 64), 128, np.uint8), "yuv420p")
    np.frombuffer(frame.planes[0], np.uint8)[:] = 60  # grey, of 0 to 255
    frame.color_range = ColorRange.JPEG
    source = VideoSource(64, 48, fps=100)
    source.write(frame)
    assert close(shown(source), (60, 60, 60))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes(kind: Any) -> None:
    source = VideoSource(64, 48, fps=100)
    source.write(kind(plain().tobytes()))
    assert close(shown(source))
    with pytest.raises(ValueError, match="64x48 pixels of rgba are 12288 bytes, not 5"):
        source.write(b"short", "rgba")


def test_arrays_need_not_be_contiguous_and_may_be_changed_at_once() -> None:
    image = number(77, 128, 96)
    views = {
        "cut out": np.pad(image, ((5, 3), (7, 2), (0, 0)))[5:-3, 7:-2],
        "mirrored": image[:, ::-1].copy()[:, ::-1],
        "columns first": np.asfortranarray(image),
        "colours the other way round": image[:, :, ::-1].copy()[:, :, ::-1],
        "read-only": image.copy(),
    }
    views["read-only"].flags.writeable = False
    for name, view in views.items():
        source = VideoSource(128, 96, fps=100)
        source.write(view)
        if name != "read-only":
            view[:] = 0
        assert read_number(shown(source)) == 77, name


@pytest.mark.parametrize("format", ["bgr24", "yuv420p", "gray"])
def test_a_picture_that_waits_is_a_copy(format: str) -> None:
    for picture in (
        VideoFrame.from_ndarray(number(5), "bgr24").to_ndarray(format=format),
        VideoFrame.from_ndarray(number(5), "bgr24").reformat(format=format),
    ):
        source = VideoSource(64, 48, fps=100)
        source.write(picture, format)
        for plane in [picture] if isinstance(picture, np.ndarray) else picture.planes:
            memory = np.asarray(plane) if isinstance(plane, np.ndarray) else plane
            np.frombuffer(memoryview(memory).cast("B"), np.uint8)[:] = 0
        assert read_number(shown(source)) == 5


@pytest.mark.parametrize("size", [(63, 47), (2, 2), (3, 3), (65, 48)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    source = VideoSource(64, 48, fps=100)
    source.write(plain(*size))
    image = shown(source)
    assert image.shape[:2] == (size[1] // 2 * 2, size[0] // 2 * 2)
    assert close(image)


BAD_PICTURES: list[tuple[Any, str, type[Exception], str]] = [
    (None, "bgr24", TypeError, "not NoneType"),
    ([[1]], "bgr24", TypeError, r"not list: convert it with numpy.asarray\(\)"),
    (plain().astype(float), "bgr24", TypeError, r"not float64: scale.*astype\(numpy.uint8\)"),
    (plain().astype(np.int8), "bgr24", TypeError, "not int8"),
    (plain()[..., 0], "bgr24", ValueError, r'\(48, 64\): pass format="gray"'),
    (plain()[..., :1], "bgr24", ValueError, r'\(48, 64, 1\): pass format="gray"'),
    (plain(), "gray", ValueError, 'pass format="bgr24" or "rgb24"'),
    (plain(colour=(1, 2, 3, 4)), "bgr24", ValueError, 'pass format="bgra"'),
    (plain().transpose(2, 0, 1), "bgr24", ValueError, r"transpose\(1, 2, 0\)"),
    (plain()[None], "bgr24", ValueError, r"\(height, width, 3\), not \(1, 48, 64, 3\)"),
    (np.zeros(9, np.uint8), "gray", ValueError, r"not \(9,\)"),
    (plain(1, 48), "bgr24", ValueError, "2 to 16383 rows and columns, not 48 and 1"),
    (plain(0, 0), "bgr24", ValueError, "not 0 and 0"),
    (np.zeros((50, 64), np.uint8), "nv12", ValueError, "even height and width"),
    (plain(), "bgr", ValueError, "format must be one of 'bgr24', .* not 'bgr'"),
    (plain(), None, ValueError, "not None"),
]


@pytest.mark.parametrize(("picture", "format", "kind", "message"), BAD_PICTURES)
def test_what_is_no_picture_is_refused(
    picture: Any, format: str, kind: type[Exception], message: str
) -> None:
    source = VideoSource(64, 48, fps=100)
    with pytest.raises(kind, match=message):
        source.write(picture, format)
    source.write(plain())  # it goes on
    assert close(shown(source))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 48), "width must be a whole number"),
        ((64, 48.5), "height must be"),
        ((64, True), "not True"),
        ((64, 20000), "from 2 to 16383"),
        ((64, 48, 0), "fps must be a number above 0"),
        ((64, 48, 500), "not 500"),
        ((64, 48, float("nan")), "not nan"),
    ],
)
def test_options_are_checked(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VideoSource(*arguments)


# --- pace -------------------------------------------------------------------------------


def test_writing_paces_itself() -> None:
    source = VideoSource(64, 48, fps=50)
    with Listener(source.video) as eye:
        started = time.monotonic()
        for count in range(25):
            source.write(number(count))
        assert time.monotonic() - started >= 0.49
        source.end()
        eye.wait_for_end()
        numbers = [read_number(frame.to_ndarray(format="bgr24")) for frame in eye.frames]
        assert numbers == sorted(numbers)
        assert len(set(numbers)) + source.dropped == 25
        pts = np.diff(eye.pts())
        assert pts.min() > 0
        assert pts.sum() >= 0.9 * 90000 * 0.48


def test_one_who_is_slow_is_not_held_up_and_nothing_is_made_up_for() -> None:
    source = VideoSource(64, 48, fps=4)
    source.write(plain())
    while time.monotonic() < source._pace._next + 0.3:
        time.sleep(0.01)
    started = time.monotonic()
    source.write(plain())  # 50 ms more than one picture too late: a new start
    assert time.monotonic() - started >= 0.24


def test_a_late_picture_keeps_the_pace() -> None:
    source = VideoSource(64, 48, fps=5)
    source.write(plain())
    due = source._pace._next
    for count in range(1, 4):
        while time.monotonic() < due + (count - 1) * 0.2 + 0.05:
            time.sleep(0.01)
        source.write(plain())
        if source._pace._next != pytest.approx(due + count * 0.2):
            break  # this machine was busy for 150 ms
    else:
        assert time.monotonic() >= due + 0.59


def test_a_deadline() -> None:
    source = VideoSource(64, 48, fps=0.1)
    with pytest.raises(MeteredTimeoutError, match="this one is shown") as caught:
        source.write(plain(), timeout=0.05)
    assert caught.value.sent
    with pytest.raises(MeteredTimeoutError):
        source.write(plain(colour=(0, 0, 0)), timeout=0)
    assert close(shown(source), (0, 0, 0))


def test_a_picture_is_stamped_before_it_is_converted() -> None:
    source = VideoSource(64, 48, fps=100)
    moments = []
    go_on = threading.Event()

    class Slow(np.ndarray):
        """A picture that takes long to convert."""

        @property
        def dtype(self) -> Any:
            go_on.wait(10)
            return super().dtype

    def write(picture: Any) -> None:
        moments.append(time.monotonic())
        source.write(picture)

    with Listener(source.video) as eye:
        write(plain())
        eye.wait_for(1)
        writer = threading.Thread(target=write, args=(plain().view(Slow),))
        writer.start()
        wait_until(lambda: len(moments) == 2 and time.monotonic() > moments[1] + 1)
        go_on.set()
        writer.join(20)
        eye.wait_for(2)
        apart = (eye.pts()[1] - eye.pts()[0]) / 90000
        assert apart == pytest.approx(moments[1] - moments[0], abs=0.5)
    source.stop()


def test_the_newest_is_shown_again_where_no_other_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = VideoSource(64, 48, fps=50)
    with Listener(source.video) as eye:
        for count in (1, 2):
            source.write(number(count))
        before = time.monotonic()
        eye.wait_for(len(eye.frames) + 4)
        assert time.monotonic() - before >= 0.7
        assert {read_number(f.to_ndarray(format="bgr24")) for f in eye.frames[-3:]} == {2}
        assert np.diff(eye.pts()).min() > 0
        assert len({id(frame) for frame in eye.frames}) == len(eye.frames)  # each its own
    monkeypatch.setattr(live, "UNTAKEN_KEPT", 0.05)
    time.sleep(0.1)
    with Listener(source.video) as eye:  # also for one who comes later
        eye.wait_for(1)
        assert read_number(eye.frames[0].to_ndarray(format="bgr24")) == 2
    source.stop()


def test_nothing_is_shown_before_the_first_picture() -> None:
    source = VideoSource(64, 48, fps=100)
    with Listener(source.video) as eye:
        wait_until(lambda: source._feed.started)
        source.write(number(1))
        eye.wait_for(1)
        assert read_number(eye.frames[0].to_ndarray(format="bgr24")) == 1
    source.stop()


def test_nobody_consumes_it() -> None:
    source = VideoSource(64, 48, fps=200)
    for count in range(10):
        source.write(number(count))
    assert source.dropped == 9
    assert source.frames_sent == {"video": 0}
    assert read_number(shown(source)) == 9


# --- ending -----------------------------------------------------------------------------


def test_end_shows_the_last_picture() -> None:
    source = VideoSource(64, 48, fps=100)
    source.write(number(3))
    source.end()
    source.end()
    with pytest.raises(MeteredTimeoutError, match="nobody consumes its tracks yet"):
        source.wait(timeout=0.05)
    with pytest.raises(ClosedError, match="has been ended: make another one"):
        source.write(number(4))
    with Listener(source.video) as eye:
        source.wait(timeout=20)
        eye.wait_for_end()
        assert [read_number(f.to_ndarray(format="bgr24")) for f in eye.frames] == [3]


def test_end_ends_also_when_the_consumer_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "UNTAKEN_KEPT", 0.1)
    source = VideoSource(64, 48, fps=100)
    with Listener(source.video) as eye:
        source.write(number(1))
        eye.wait_for(1)
    source.write(number(2))
    source.end()
    source.wait(timeout=20)


@pytest.mark.parametrize("how", ["end", "stop", "the track"])
def test_ending_wakes_who_writes(how: str) -> None:
    source = VideoSource(64, 48, fps=0.01)
    track: Any = source.video
    writer = threading.Thread(target=source.write, args=(plain(),))
    writer.start()
    wait_until(lambda: source._queue._new)
    {"end": source.end, "stop": source.stop, "the track": track.stop}[how]()
    if how == "end":
        shown(source)
    writer.join(20)
    assert not writer.is_alive()
    with pytest.raises(ClosedError, match="ended" if how == "end" else "stopped"):
        source.write(plain())


def test_no_thread_is_started_and_a_forgotten_source_goes() -> None:
    before = threading.active_count()
    source = VideoSource(64, 48)
    source.write(plain())
    assert threading.active_count() == before
    assert source.audio is None
    track: Any = source.video
    assert source.tracks == [track]
    reference = weakref.ref(source)
    del source
    gc.collect()
    assert reference() is not None
    del track
    gc.collect()
    assert reference() is None


# --- through the SFU --------------------------------------------------------------------


def test_pictures_of_changing_sizes_reach_a_subscriber(shared_cloud: LocalCloud) -> None:
    options = shared_cloud.sfu_options()
    stop = threading.Event()
    sizes = [(160, 120), (320, 180), (96, 160)]
    size = sizes[0]

    def write() -> None:
        for count in itertools.count():
            if stop.is_set():
                return
            source.write(number(count, *size))

    with (
        VideoSource(160, 120, fps=15) as source,
        SfuClient(**options) as one,
        SfuClient(**options) as two,
    ):
        writer = threading.Thread(target=write)
        writer.start()
        try:
            track = two.subscribe(one.publish(source.video))
            numbers = []
            for size in sizes:
                count = 0
                while count < 5:
                    image = track.read(timeout=20)
                    assert (image.shape[1], image.shape[0]) in sizes
                    if (image.shape[1], image.shape[0]) == size:
                        numbers.append(read_number(image))
                        count += 1
            assert None not in numbers
            assert numbers == sorted(numbers)
        finally:
            stop.set()
            writer.join(20)
        last = source._queue._newest
        assert last is not None
        wanted = read_number(last.to_ndarray(format="bgr24"))
        while read_number(track.read(timeout=20)) != wanted:
            pass
        assert read_number(track.read(timeout=20)) == wanted  # the writer is silent: once more
