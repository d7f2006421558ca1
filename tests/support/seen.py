"""Look at an error as debuggers and crash reporters do."""

from __future__ import annotations

import traceback

__all__ = ["frames_of"]


def frames_of(error: BaseException) -> str:
    """Return an error and its chain, and the local variables of our frames, as text."""
    parts: list[str] = []
    todo: list[BaseException | None] = [error]
    while todo:
        inner = todo.pop()
        if inner is None:
            continue
        parts += [repr(inner), str(inner), repr(inner.args), repr(vars(inner))]
        for frame, _ in traceback.walk_tb(inner.__traceback__):
            if frame.f_globals["__name__"].startswith("metered_sync"):
                parts.append(f"{frame.f_code.co_name}: {frame.f_locals!r}")
        todo += [inner.__cause__, inner.__context__]
    return "\n".join(parts)
