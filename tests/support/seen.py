"""Look at an error as debuggers and crash reporters do."""

from __future__ import annotations

import traceback
from pathlib import Path

__all__ = ["frames_of"]

TESTS = str(Path(__file__).parents[1])


def frames_of(error: BaseException) -> str:
    """Return an error and its chain, and the local variables of all frames but the tests' own.

    So they are what pages of frameworks, crash reporters and ``pytest -l`` show, and in suppressed
    contexts, too.
    """
    parts: list[str] = []
    todo: list[BaseException | None] = [error]
    while todo:
        inner = todo.pop()
        if inner is None:
            continue
        parts += [repr(inner), str(inner), repr(inner.args), repr(vars(inner))]
        parts += getattr(inner, "__notes__", [])
        seen = traceback.TracebackException.from_exception(inner, capture_locals=True)
        for frame in seen.stack:
            if not frame.filename.startswith(TESTS):
                parts.append(f"{frame.filename}: {frame.name}: {frame.locals}")
        todo += [inner.__cause__, inner.__context__]
    return "\n".join(parts)
