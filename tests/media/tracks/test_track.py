"""Read tracks that arrive: as arrays, on many threads, and by the right method."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from metered_sync import ClosedError, MediaError, MediaStream, MeteredTimeoutError
from tests.support.far_end import Far, picture, shown


@pytest.mark.parametrize("format", ["bgr24", "gray", "yuv420p"])
def test_read_gives_the_format_asked_for_in_memory_of_its_own(format: str) -> None:
    far = Far()
    with far.track.frames(mode="fifo") as others:
        for number in (1, 2):
            with pytest.raises(MeteredTimeoutError):
                far.track.read(0, format)
            far.send(picture(number, format=format))  # it has that format already
            image = far.track.read(1, format)
            assert np.array_equal(image, picture(number, format=format).to_ndarray())
            image[...] = 0
        for number in (1, 2):
            same = picture(number, format=format).to_ndarray()
            assert np.array_equal(others.get(timeout=20).to_ndarray(), same)


def test_an_odd_size_that_does_not_fit_is_told() -> None:
    far = Far()
    with pytest.raises(MeteredTimeoutError):
        far.track.read(0, "nv12")
    far.send(picture(1, 161, 121))
    with pytest.raises(MediaError, match=r"161x121 pixels.*'nv12'.*bgr24"):
        far.track.read(0, "nv12")


def test_read_gives_the_newest_and_none_twice() -> None:
    far = Far()
    with pytest.raises(MeteredTimeoutError, match="no first frame of video track 'far' within 0 s"):
        far.track.read(0)
    for number in range(0, 100, 20):
        far.send(picture(number))
    assert shown(far.track.read(1)) == 80
    with pytest.raises(MeteredTimeoutError, match="nothing arrived"):
        far.track.read(timeout=0)
    far.send(picture(60, 32, 32))  # another size
    assert far.track.read(timeout=20).shape == (32, 32, 3)
    far.incoming.end()
    with pytest.raises(ClosedError):
        far.track.read()


def test_what_read_cannot_do_is_said_at_once() -> None:
    far = Far()
    for format in ("quatsch", "pal8", "vaapi", "BGR24", "", "rgb"):
        with pytest.raises(ValueError, match=r"bgr24, rgb24, gray,.*yuv420p.*not as '"):
            far.track.read(None, format)
    with pytest.raises(TypeError, match="format must be a str, not int"):
        far.track.read(format=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout"):
        far.track.read(-1)
    heard = Far("audio").track
    with pytest.raises(MediaError, match=r"audio track 'far' has none: use pcm\(\)"):
        heard.read()
    with pytest.raises(MediaError, match=r"audio track 'far' has none: use pcm\(\)"):
        heard.capture()
    with pytest.raises(MediaError, match=r"video track 'far' has none: use read\(\)"):
        far.track.pcm()


def test_threads_that_share_read_get_each_picture_once() -> None:
    far = Far()
    with pytest.raises(MeteredTimeoutError):
        far.track.read(0)
    seen: list[int] = []

    def read() -> None:
        try:
            while True:
                seen.append(int(far.track.read(format="gray")[0, 0]))
        except ClosedError:
            pass

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    newest = far.track._newest
    far.send_one_by_one(newest, *(picture(number) for number in range(0, 200, 4))).join()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert len(seen) == len(set(seen)) == 50


def test_mistakes_with_other_libraries_tracks_are_told_what_to_do() -> None:
    track: Any = Far().track
    with pytest.raises(TypeError, match=r"format by name: read\(format='rgb24'\)"):
        track.read("rgb24")
    for iterate in (iter, list, tuple):
        with pytest.raises(TypeError, match=r"use track.frames\(\), track.pcm\(\)"):
            iterate(track)
    with pytest.raises(TypeError, match=r"use track.read\(\), or next\(\) of track.frames\(\)"):
        next(track)
    for name, words in (("recv", "track.frames"), ("stop", "close"), ("readyState", "ended")):
        assert not hasattr(track, name)
        with pytest.raises(AttributeError, match=words):
            getattr(track, name)
    with pytest.raises(AttributeError, match=r"no attribute 'nonsense'$"):
        track.nonsense  # noqa: B018
    assert list(MediaStream(track).tracks) == [track]
