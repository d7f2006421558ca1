"""Read the tables out of a docstring."""

from __future__ import annotations

import re
from collections.abc import Iterator


def tables(text: str) -> Iterator[list[dict[str, list[str]]]]:
    """Yield each table: its rows, and in them the words of each column, by the column's title.

    A row without a first cell continues the one before.
    """
    lines = text.splitlines()
    borders = [at for at, line in enumerate(lines) if re.fullmatch("=+( =+)+", line)]
    for top, middle, bottom in zip(borders[::3], borders[1::3], borders[2::3], strict=True):
        starts = [match.start() for match in re.finditer("=+", lines[top])]
        columns = [slice(*ends) for ends in zip(starts, [*starts[1:], None], strict=True)]
        titles = [lines[top + 1][column].strip() for column in columns]
        rows: list[dict[str, list[str]]] = []
        for line in lines[middle + 1 : bottom]:
            words = [line[column].split() for column in columns]
            if words[0]:
                rows.append(dict(zip(titles, words, strict=True)))
            else:
                for title, more in zip(titles, words, strict=True):
                    rows[-1][title] += more
        yield rows
