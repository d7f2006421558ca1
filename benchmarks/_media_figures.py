"""What a receiver of ``media.py`` measures; needs nothing but the standard library."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from typing import Any

COLUMNS, ROWS = 8, 5


class Figures:
    """What comes, and what it costs this process."""

    def __init__(self, how: str, seconds: float, settle: float) -> None:
        """Measure for ``seconds``, beginning ``settle`` seconds after the first picture.

        ``how`` is ``"every"`` picture, or ``"slow"``: 50 ms of work with each; or
        ``"absent"``: nobody reads.
        """
        self.how = how
        self._seconds = seconds
        self._settle = settle
        self._pictures: list[tuple[float, list[int]]] = []

    def take(self, frame: Any) -> None:
        """Take a picture as a user would, and note the moment and the number in it."""
        self._pictures.append((time.monotonic(), levels(frame)))
        if self.how == "slow":
            time.sleep(0.05)

    def run(self) -> Iterator[float]:
        """Measure; yield the seconds to wait, then print the figures for the main process."""
        yield self._settle
        cpu, started, memory = time.process_time(), time.monotonic(), resident()
        yield self._seconds
        ended = time.monotonic()
        cpu = (time.process_time() - cpu) / (ended - started)
        pictures = [one for one in self._pictures if started <= one[0] <= ended]
        print(
            json.dumps(
                {
                    "cpu": cpu,
                    "rate": len(pictures) / (ended - started),
                    "memory": (resident() - memory) / 1e6,
                    "pictures": pictures,
                }
            ),
            flush=True,
        )


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:  # no Linux: the most it ever held
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def levels(frame: Any) -> list[int]:
    """Return the brightness of the middles of the blocks that ``PatternSource`` paints."""
    plane = frame.planes[0]
    pixels = memoryview(plane).cast("B")
    height, width = frame.height / 2 / ROWS, frame.width / COLUMNS
    return [
        pixels[int((row + 0.5) * height) * plane.line_size + int((column + 0.5) * width)]
        for row in range(ROWS)
        for column in range(COLUMNS)
    ]
