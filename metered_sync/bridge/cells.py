"""Recognise functions that a notebook's cell registers again because it runs again.

A cell with ``@client.on(Message)`` is run until it is right. Each run makes a new function,
and nobody means all of them to be called. So in notebooks, and in IPython, a callback
replaces the one that the same cell has registered in an earlier run. Where the front end does
not tell cells apart, it is taken for the same if it has the same module, name and line.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

__all__ = ["CellFunction", "cell_id"]


def cell_id(shell: Any) -> str | None:
    """Return the id of the cell that an IPython shell runs, where the front end tells it."""
    request: Any = getattr(getattr(shell, "kernel", None), "get_parent", dict)()
    known: str | None = (request.get("metadata") or {}).get("cellId")
    return known


class CellLine(NamedTuple):
    """The line of a cell that runs at this moment."""

    cell_id: str | None
    text: str
    """The cell's."""
    number: int
    run: int
    """How many cells had run before, as far as IPython counts them."""
    statement: object
    """The compiled statement: another object with each run."""


def running_line() -> CellLine | None:
    """Return the cell's line that has led here; ``None`` outside IPython, and on other threads."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None:
        return None
    found, frame = None, sys._getframe()
    while True:
        if frame.f_globals is shell.user_global_ns:
            found = frame
        if frame.f_back is None:
            break
        frame = frame.f_back
    return None if found is None else _line(shell, found)


def _line(shell: Any, frame: FrameType) -> CellLine:
    name = frame.f_code.co_filename
    text = "".join(linecache.getlines(name)) or name
    return CellLine(cell_id(shell), text, frame.f_lineno, shell.execution_count, frame.f_code)


class CellFunction:
    """Tell by which line of which cell a function is registered, if by any."""

    def __init__(self, function: Callable[..., object]) -> None:
        self.line = running_line()
        plain = getattr(function, "__func__", function)
        self.name = (
            getattr(plain, "__module__", None),
            getattr(plain, "__qualname__", type(plain).__qualname__),
        )
        self.first_line = getattr(getattr(plain, "__code__", None), "co_firstlineno", 0)
        self.bare = plain is function and "<" not in self.name[1]
        """Whether it is a function of a module: no method, nothing made within another one."""

    def replaces(self, older: CellFunction) -> bool:
        """Whether it is an older function, registered again by another run of the same cell."""
        here, there = self.line, older.line
        if here is None or there is None or self.name != older.name or _same_run(here, there):
            return False
        if here.cell_id is not None and there.cell_id is not None:
            return here.cell_id == there.cell_id
        if self.first_line != older.first_line:
            return False
        return (here.text, here.number) == (there.text, there.number) or self.bare

    def is_sure_of(self, older: CellFunction) -> bool:
        """Whether an older function that it replaces was registered by the same cell, for sure."""
        here, there = self.line, older.line
        if here is None or there is None:
            return False
        return here.text == there.text or None not in (here.cell_id, there.cell_id)


def _same_run(here: CellLine, there: CellLine) -> bool:
    if here.statement is there.statement:  # a loop
        return True
    # (Programs may run cells without counting them.)
    same_cell = here.run == there.run and here.text == there.text
    return same_cell and here.number != there.number
