"""Call functions with frames: newest only, one at a time, alive while there are some."""

from __future__ import annotations

import contextvars
import functools
import gc
import io
import threading
import weakref
from typing import Any

import pytest

from metered_sync import ClosedError, MediaError
from metered_sync.media.tracks.track import RemoteTrack
from tests.conftest import wait_until
from tests.support.far_end import Far, picture


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("metered-sync-callbacks")]


class Owner:
    """Has what clients have."""

    def __init__(self) -> None:
        self.on_error = lambda frame, error: self.errors.append((frame, error))
        self.errors: list[tuple[Any, BaseException]] = []


def test_the_newest_frame_only_and_drops_are_counted() -> None:
    far = Far()
    seen: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    @far.track.on_frame
    def slow(frame: Any) -> str:
        seen.append(frame.pts // 3000)
        begun.set()
        assert go_on.wait(20)
        return "returned"

    far.send(picture(0))
    assert begun.wait(20)
    far.send(*(picture(number) for number in range(1, 10)))
    go_on.set()
    wait_until(lambda: len(seen) == 2)
    assert (seen, slow.dropped) == ([0, 9], 8)
    assert slow(picture(20)) == "returned"  # still the function that it was
    assert repr(slow).endswith("active, 8 dropped>")
    slow.close()
    slow.close()
    far.send(picture(10), picture(11))
    wait_until(lambda: not threads())
    assert (seen, slow.dropped) == ([0, 9, 20], 8)
    assert repr(slow).endswith("closed, 8 dropped>")
    far.incoming.end()


def test_those_of_one_track_run_one_at_a_time_on_its_thread() -> None:
    wait_until(lambda: not threads())  # those of other tests
    far = Far()
    busy: list[str] = []
    seen: list[tuple[str, int, str]] = []

    def make(name: str) -> Any:
        def call(frame: Any) -> None:
            assert not busy
            busy.append(name)
            seen.append((name, frame.pts // 3000, threading.current_thread().name))
            busy.remove(name)

        return call

    with far.track.on_frame(make("a")) as a, far.track.on_frame(make("b")):
        assert len(threads()) == 1
        for number in range(3):
            far.send(picture(number))
            wait_until(lambda number=number: len(seen) == 2 * number + 2)
        a.close()
        far.send(picture(3))
        wait_until(lambda: len(seen) == 7)
    wait_until(lambda: not threads())
    assert [(n, f) for n, f, _ in seen] == [(n, f) for f in range(3) for n in "ab"] + [("b", 3)]
    assert {thread for _, _, thread in seen} == {"metered-sync-callbacks (video track 'far')"}
    with far.track.on_frame(make("c")):  # another thread, if need be
        far.send(picture(4))
        wait_until(lambda: len(seen) == 8)
    far.incoming.end()


def test_what_one_raises_is_logged_once_and_stops_nothing(log: io.StringIO) -> None:
    owner = Owner()
    far = Far(owner=owner)
    failed: list[Any] = []
    after: list[Any] = []

    def fail(frame: Any) -> None:
        failed.append(frame)
        raise (ZeroDivisionError, KeyboardInterrupt, SystemExit)[len(failed) - 1]("on purpose")

    with far.track.on_frame(fail), far.track.on_frame(after.append):
        for number in range(3):
            far.send(picture(number))
            wait_until(lambda number=number: len(after) == number + 1)
    assert [frame.pts for frame in failed] == [frame.pts for frame in after]
    assert [type(error) for _, error in owner.errors] == [ZeroDivisionError, KeyboardInterrupt]
    assert [frame for frame, _ in owner.errors] == failed[:2]
    text = log.getvalue()
    assert text.count("a callback of video track 'far' for VideoFrame raised an exception") == 2
    assert text.count("ZeroDivisionError: on purpose") == 1
    assert text.count("in fail") == 2
    assert "SystemExit: on purpose" not in text
    owner.on_error = lambda frame, error: 1 / 0
    with far.track.on_frame(lambda frame: [][0]):
        far.send(picture(4))
        wait_until(lambda: log.getvalue().count("ZeroDivisionError: division by zero") == 1)
    far.incoming.end()


def test_one_sees_the_context_in_which_it_was_registered() -> None:
    request = contextvars.ContextVar("request", default="none")
    far = Far()
    seen: list[str] = []
    request.set("first")
    one = far.track.on_frame(lambda frame: seen.append(request.get()))
    request.set("second")
    with one, far.track.on_frame(lambda frame: seen.append(request.get())):
        far.send(picture(0))
        wait_until(lambda: len(seen) == 2)
    assert seen == ["first", "second"]


def test_one_may_close_itself_and_register_another() -> None:
    far = Far()
    seen: list[str] = []
    handles: list[Any] = []

    def first(frame: Any) -> None:
        seen.append(threading.current_thread().name)
        handles[0].close()
        handles.append(far.track.on_frame(second))
        far.send(picture(1))

    def second(frame: Any) -> None:
        assert seen
        seen.append("second")
        far.incoming.end()

    handles.append(far.track.on_frame(first))
    far.send(picture(0))
    wait_until(lambda: len(seen) == 2)
    wait_until(lambda: not threads())
    assert seen[1] == "second"


def test_they_end_with_the_track() -> None:
    for error in (None, MediaError("its connection broke")):
        far = Far()
        handle = far.track.on_frame(print)
        assert threads()
        far.incoming.end(error)
        wait_until(lambda: not threads())
        assert "closed" in repr(handle)
        handle.close()
        with pytest.raises(ClosedError if error is None else MediaError, match=r"far|broke"):
            far.track.on_frame(print)
    with pytest.raises(TypeError, match="must be callable"):
        Far().track.on_frame(3)  # type: ignore[arg-type]


async def asynchronous(frame: Any) -> None:
    pass


def generator(frame: Any) -> Any:
    yield frame


@pytest.mark.parametrize("function", [asynchronous, generator, functools.partial(asynchronous)])
def test_functions_that_would_not_run_are_refused(function: Any) -> None:
    far = Far()
    with pytest.raises(TypeError, match="which nothing here runs: pass a plain function"):
        far.track.on_frame(function)
    assert not threads()
    assert not far.incoming.readers


def test_a_callback_that_returns_a_coroutine_is_told_of() -> None:
    owner = Owner()
    far = Far(owner=owner)
    with far.track.on_frame(lambda frame: asynchronous(frame)):
        far.send(picture(0))
        wait_until(lambda: owner.errors)
    assert "it returned a coroutine" in str(owner.errors[0][1])


def test_while_there_are_callbacks_the_track_and_its_owner_live() -> None:
    owner: Any = Owner()
    far: Any = Far(owner=owner)
    handle: Any = far.track.on_frame(lambda frame: None)
    there, track, incoming = weakref.ref(owner), weakref.ref(far.track), far.incoming
    del owner, far
    gc.collect()
    assert there() is not None
    assert isinstance(track(), RemoteTrack)
    handle.close()
    del handle
    wait_until(lambda: gc.collect() is not None and there() is None)
    assert track() is None
    assert not incoming.readers
    wait_until(lambda: not threads())
