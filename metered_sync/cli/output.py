"""Write data to stdout and talk to stderr, for a terminal, a pipe or a program.

Data are lines: for a terminal with colours and as tables, for a pipe plain, with tabs between the
columns, for ``--json`` as JSON. Others' text cannot steer the terminal: :func:`printable`.
"""

from __future__ import annotations

import json
import os
import re
import select
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import click

__all__ = [
    "NOTHING_CAME",
    "coloured",
    "finish",
    "is_terminal",
    "json_line",
    "json_option",
    "json_text",
    "line",
    "printable",
    "progress",
    "reader_is_gone",
    "table",
    "talk",
]

NOTHING_CAME = 124
"""The exit status where nothing came in time, as of ``timeout``."""
PROGRESS_PAUSE = 10.0
"""Seconds between two lines of progress where stderr is no terminal."""

_STEERING = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""What steers a terminal, turns the direction of writing, or cannot be encoded."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
"""Adds the option ``--json`` to a command, as its argument ``as_json``."""


def line(text: str = "") -> None:
    """Write a line of data; ``BrokenPipeError`` where nobody reads any more."""
    if sys.stdout is not None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def json_text(value: Any) -> str:
    """Return a value as one line of JSON that a terminal and any encoding can take."""
    text = json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
    return _STEERING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def json_line(value: Any) -> None:
    """Write a value as one line of JSON."""
    line(json_text(value))


def printable(text: object) -> str:
    """Return others' text as a terminal may show it, on one line."""
    return _STEERING.sub(lambda match: f"\\u{ord(match[0]):04x}", str(text))


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream goes to a person."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False


def coloured(text: str, **style: Any) -> str:
    """Return a piece of a line of data in a style of :func:`click.style`, where stdout has any."""
    return text if _plain() or not is_terminal(sys.stdout) else click.style(text, **style)


def _plain() -> bool:
    """Return whether the user wants no colours, or has none."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Write rows: as a table with headings to a terminal, else with tabs and no headings.

    Args:
        columns: The headings.
        rows: As many cells each; ``None`` is an empty one.
        empty: What stderr says where there are no rows.
    """
    cells = [["" if cell is None else printable(cell) for cell in row] for row in rows]
    if not cells:
        talk(empty)
    elif not is_terminal(sys.stdout):
        for row in cells:
            line("\t".join(row))
    else:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        shown = Table(*columns, box=None, pad_edge=False, header_style="" if _plain() else "bold")
        for column in shown.columns:
            column.overflow = "fold"
        for row in cells:
            shown.add_row(*map(Text, row))
        Console(highlight=False).print(shown)


def talk(text: str) -> None:
    """Write a line to stderr: hints, warnings, what is going on. Never data."""
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201
    except OSError:  # nobody listens
        pass


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Show on stderr how far a command is: give the function a new line whenever you like.

    A terminal shows the newest one in place; else one is written every ten seconds.
    """
    if is_terminal(sys.stderr):
        from rich.console import Console
        from rich.text import Text

        with Console(stderr=True, highlight=False).status("") as status:
            yield lambda text: status.update(Text(text))
        return
    due = time.monotonic() + PROGRESS_PAUSE

    def report(text: str) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + PROGRESS_PAUSE
            talk(text)

    yield report


def reader_is_gone() -> bool:
    """Return whether the reader of stdout, a pipe, has closed its end: ask while nothing comes."""
    if sys.stdout is None or not hasattr(select, "poll") or is_terminal(sys.stdout):
        return False
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)  # errors are always told
        return any(events & select.POLLERR for _, events in poll.poll(0))
    except (OSError, ValueError):  # no file: a program reads it
        return False


def finish() -> None:
    """Flush stdout; where that fails, let the interpreter's own attempt at its exit succeed."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
        except (OSError, ValueError):
            pass
