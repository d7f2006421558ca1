"""Run the command line, or say what it needs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["main"]


def main(
    arguments: Sequence[str] | None = None,
    *,
    name: str = "metered-sync",
    commands: Sequence[str] | None = None,
    credential: Callable[[], dict[str, Any]] | None = None,
) -> int:
    """Run the command line; return the exit status.

    Args:
        arguments: What stands after the name; the process's own unless given.
        name: How it is called, where it is part of another command line.
        commands: The commands that it has there; all unless given.
        credential: Returns what clients connect with there, by the names of arguments.
    """
    try:
        from metered_sync.cli.app import run
    except ImportError as error:
        if error.name not in ("click", "rich"):
            raise
        print(  # noqa: T201
            f"{name}: the command line needs more packages ({error.name} is missing): "
            "run  pip install 'metered_sync[cli]'",
            file=sys.stderr,
        )
        return 1
    given = sys.argv[1:] if arguments is None else list(arguments)
    return run(given, name, commands, credential)
