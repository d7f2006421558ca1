"""Consume a track as a sender does: on a thread that runs an event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from numpy.typing import NDArray

from tests.conftest import wait_until


def tone(frequency: float, seconds: float, rate: int = 16000, peak: float = 8000) -> NDArray[Any]:
    """Return a sine: int16, of shape (samples,)."""
    time = np.arange(round(seconds * rate)) / rate
    return (np.sin(2 * np.pi * frequency * time) * peak).astype(np.int16)


class Listener:
    """Takes all frames of a track, until it ends or the block does."""

    def __init__(self, track: MediaStreamTrack | None) -> None:
        assert track is not None
        self.frames: list[Any] = []
        self.times: list[float] = []
        self.ended = False
        self._track = track
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(20)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        self._task = self._loop.create_task(self._take())
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        finally:
            self._loop.close()

    async def _take(self) -> None:
        while True:
            try:
                frame: Any = await self._track.recv()
            except MediaStreamError:
                self.ended = True
                await asyncio.Event().wait()  # until the block ends
            self.times.append(time.monotonic())
            self.frames.append(frame)

    def stall(self, seconds: float) -> None:
        """Hold the loop up, as a busy machine does; return when that is over."""
        over = threading.Event()

        def hold_up() -> None:
            time.sleep(seconds)
            over.set()

        self._loop.call_soon_threadsafe(hold_up)
        assert over.wait(10 + seconds)

    def wait_for(self, count: int) -> None:
        """Wait until that many frames have come."""
        wait_until(lambda: len(self.frames) >= count, 20, f"{count} frames")

    def wait_for_end(self) -> None:
        wait_until(lambda: self.ended, 20, "the track ends")

    def sound(self) -> NDArray[Any]:
        """Return all samples so far, of shape (samples, 2)."""
        return np.concatenate([f.to_ndarray().reshape(-1, 2) for f in list(self.frames)])

    def heard(self) -> NDArray[Any]:
        """Return the left channel from its first sample that is not silent to the last."""
        left: NDArray[Any] = self.sound()[:, 0]
        (loud,) = np.nonzero(left)
        return left[loud[0] : loud[-1] + 1] if len(loud) else left[:0]

    def pts(self) -> list[int]:
        return [int(frame.pts) for frame in list(self.frames)]
