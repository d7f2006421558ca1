"""Read the command line, and run the command that it names."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from metered_sync._version import __version__
from metered_sync.cli import demo, serve
from metered_sync.errors import MeteredError

__all__ = ["main"]

COMMANDS = (serve, demo)
"""A module for each command: ``add_to(commands)`` describes it, ``run(options)`` does it."""
INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminated)  # so that ``with`` blocks and children are closed
    try:
        status: int = options.run(options)
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except (MeteredError, ImportError, ValueError) as error:
        print(f"metered-sync: {error}", file=sys.stderr)  # noqa: T201
        return 1


def _terminated(*_: Any) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="metered-sync", description="Realtime messaging and media without asyncio."
    )
    parser.add_argument("--version", action="version", version=f"metered_sync {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_to(commands)
    return parser
