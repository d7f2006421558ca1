"""Have pictures carry what their packets said of them."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from typing import Any

import numpy as np
from av import VideoFrame

from metered_sync.engine.webrtc.appearance import MAX_CHANGES, Appearances
from metered_sync.engine.webrtc.picture_extensions import Colours


def frame(pts: int) -> VideoFrame:
    image = np.full((48, 64, 3), 60, np.uint8)
    image[:16, :24] = 220
    made = VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p")
    made.pts, made.time_base = pts, Fraction(1, 90000)
    made.color_range = made.colorspace = 0
    return made


def test_changes_hold_from_their_timestamps_on() -> None:
    async def test() -> None:
        appearances = Appearances()
        appearances.note(3000, 1, Colours(1, 2))
        appearances.note(6000, 0, Colours(1, 2))
        appearances.note(9000, 2, None)
        shown: list[Any] = [await appearances.applied(frame(n * 1500)) for n in range(8)]
        assert [f.pts for f in shown] == [n * 1500 for n in range(8)]
        assert [f.width for f in shown] == [64, 64, 48, 48, 64, 64, 64, 64]
        assert [int(f.color_range) == 2 for f in shown] == [False] * 2 + [True] * 4 + [False] * 2
        assert [int(f.colorspace) == 1 for f in shown] == [False] * 2 + [True] * 4 + [False] * 2
        for index, turns in ((1, 0), (2, 1), (6, 2)):
            luma = np.frombuffer(shown[index].planes[0], np.uint8)
            rows = luma.reshape(-1, shown[index].planes[0].line_size)
            seen = np.rot90(rows[: shown[index].height, : shown[index].width], turns)
            assert seen[8, 8] > 150
            assert max(seen[8, -8], seen[-8, 8], seen[-8, -8]) < 100
        appearances.note(9000, 1, Colours(1, 2))
        appearances.forget()
        assert int((await appearances.applied(frame(99000))).color_range) != 2

    asyncio.run(test())


def test_changes_without_pictures_do_not_pile_up() -> None:
    async def test() -> None:
        appearances = Appearances()
        for number in range(10 * MAX_CHANGES):
            appearances.note(number, number % 4, None)
        assert len(appearances._changes) == MAX_CHANGES
        assert (await appearances.applied(frame(10**6))).width == 48

    asyncio.run(test())
