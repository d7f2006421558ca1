"""Keep the latest group of pictures, up to a size and a time."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from metered_sync.engine.sending.kept_group import (
    MAX_GROUP_BYTES,
    MAX_GROUP_SECONDS,
    KeptGroup,
)

HALF = MAX_GROUP_BYTES // 2


def kept(pictures: Iterable[tuple[str, int, float]]) -> str:
    """Keep pictures (the name of a key frame is in capitals) and return the names of those kept."""
    group: KeptGroup[str] = KeptGroup()
    for name, size, time in pictures:
        group.add(name, key=name.isupper(), size=size, time=time)
    return "".join(group.pictures)


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [
        ([("a", 1, 0), ("b", 1, 1)], ""),
        ([("a", 1, 0), ("B", 1, 1), ("c", 1, 2)], "Bc"),
        ([("A", 1, 0), ("b", 1, 1), ("C", 1, 2)], "C"),
        ([("A", HALF, 0), ("b", HALF, 0)], "Ab"),
        ([("A", HALF, 0), ("b", HALF + 1, 0), ("c", 1, 0)], ""),
        ([("A", HALF, 0), ("b", HALF + 1, 0), ("C", HALF, 0), ("d", HALF, 0)], "Cd"),
        ([("A", HALF, 0), ("B", HALF, 0), ("c", HALF, 0)], "Bc"),
        ([("A", 1, 5), ("b", 1, 5 + MAX_GROUP_SECONDS)], "Ab"),
        ([("A", 1, 5), ("b", 1, 5.01 + MAX_GROUP_SECONDS), ("c", 1, 20)], ""),
        ([("A", 1, 0), ("B", 1, 2 * MAX_GROUP_SECONDS), ("c", 1, 2 * MAX_GROUP_SECONDS)], "Bc"),
        ([("A", MAX_GROUP_BYTES + 1, 0), ("b", 1, 0)], ""),
    ],
)
def test_what_is_kept(pictures: list[tuple[str, int, float]], expected: str) -> None:
    assert kept(pictures) == expected


def test_what_was_cleared_is_not_continued() -> None:
    group: KeptGroup[str] = KeptGroup()
    group.add("A", key=True, size=1, time=0)
    taken = group.pictures
    group.clear()
    group.add("b", key=False, size=1, time=0)
    assert (group.pictures, taken) == ([], ["A"])
