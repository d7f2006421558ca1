"""Record and send tracks at the same time."""

from __future__ import annotations

import asyncio
import time
from fractions import Fraction
from typing import Any

import pytest
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import VideoFrame

from metered_sync.bridge.reader import Reader
from metered_sync.engine.sending.tee import attach_reader, detach_reader
from metered_sync.testing import PatternSource


class Counting(MediaStreamTrack):
    """Frames that are numbered from 0, at once or each when it is due."""

    kind = "video"

    def __init__(self, interval: float, count: int = 10**6, fps: int = 100) -> None:
        super().__init__()
        self._interval, self._count, self._fps = interval, count, fps
        self.number = 0

    async def recv(self) -> Any:
        if self._interval:
            await asyncio.sleep(self._interval)
        if self.number == self._count:
            raise MediaStreamError("that was all")
        frame = VideoFrame(16, 16)
        frame.pts, frame.time_base = self.number, Fraction(1, self._fps)
        self.number += 1
        return frame


def reader() -> Reader[Any]:
    return Reader("reader")


def numbers(of: Reader[Any]) -> list[int]:
    return [of.get_nowait().pts for _ in range(len(of))]


async def until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def test_all_frames_go_to_all() -> None:
    async def main() -> None:
        track, one, two = Counting(0.01, 40), reader(), reader()
        sent = [(await track.recv()).pts]
        await attach_reader(track, one)
        await attach_reader(track, two)
        with pytest.raises(MediaStreamError):
            while True:
                sent.append((await track.recv()).pts)
        await until(lambda: one.ended and two.ended)
        assert sent == list(range(40))
        assert numbers(one) == numbers(two) == list(range(1, 40))

    asyncio.run(main())


def test_a_sender_that_was_waiting_before_goes_on() -> None:
    async def main() -> None:
        with PatternSource(32, 32, 100) as source:
            track, one = source.video, reader()
            assert track is not None
            first = asyncio.ensure_future(track.recv())
            await asyncio.sleep(0)
            await attach_reader(track, one)
            await asyncio.wait_for(first, 20)
            sent = [(await asyncio.wait_for(track.recv(), 20)).pts for _ in range(20)]
            assert sent == sorted(set(sent))
            await until(lambda: len(one) >= 20)
            detach_reader(track, one)

    asyncio.run(main())


def test_the_track_is_left_as_it_was() -> None:
    async def main() -> None:
        track, one = Counting(0.01), reader()
        await attach_reader(track, one)
        assert "recv" in vars(track)
        waiting = asyncio.ensure_future(track.recv())
        await until(lambda: len(one) >= 3)
        waiting_on = asyncio.ensure_future(track.recv())
        detach_reader(track, one)
        detach_reader(track, one)
        assert "recv" not in vars(track)
        await asyncio.wait_for(asyncio.gather(waiting, waiting_on), 20)
        assert not one.ended
        before = track.number
        await asyncio.sleep(0.05)
        assert track.number == before  # nobody takes any

    asyncio.run(main())


def test_a_sender_gets_what_is_current() -> None:
    async def main() -> None:
        track, one = Counting(0.01), reader()
        await attach_reader(track, one)
        await until(lambda: len(one) >= 20)
        assert (await track.recv()).pts >= 20  # nothing was kept while it did not ask
        await asyncio.sleep(0.1)  # (it is busy)
        late = [(await track.recv()).pts for _ in range(3)]
        assert track.number - late[0] <= 4
        assert late == sorted(set(late))
        detach_reader(track, one)

    asyncio.run(main())


def test_a_source_that_never_waits_is_held_to_real_time() -> None:
    async def main() -> None:
        track, one = Counting(0.0), reader()
        await attach_reader(track, one)
        started = time.monotonic()
        await until(lambda: track.number >= 100)
        assert time.monotonic() - started > 0.4
        detach_reader(track, one)

    asyncio.run(main())


def test_a_track_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Counting):
        async def recv(self) -> Any:
            if self.number == 2:
                raise ZeroDivisionError
            return await super().recv()

    async def main() -> None:
        track, one = Failing(0.01), reader()
        await attach_reader(track, one)
        await until(lambda: one.ended)
        assert numbers(one) == [0, 1]
        with pytest.raises(Exception, match="failed: ZeroDivisionError"):
            one.get_nowait()
        with pytest.raises(ZeroDivisionError):
            await track.recv()

    asyncio.run(main())
    assert "ZeroDivisionError" in caplog.text
