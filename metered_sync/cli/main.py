"""Run the command line, or say what it needs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    Args:
        arguments: What stands after ``metered-sync``; the process's own unless given.
    """
    try:
        from metered_sync.cli.app import run
    except ImportError as error:
        if error.name not in ("click", "rich"):
            raise
        print(  # noqa: T201
            f"metered-sync: the command line needs more packages ({error.name} is missing): "
            "run  pip install 'metered_sync[cli]'",
            file=sys.stderr,
        )
        return 1
    return run(sys.argv[1:] if arguments is None else list(arguments))
