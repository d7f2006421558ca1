"""The arguments by which commands find the tracks to receive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

__all__ = ["check_wanted", "output_option", "wanted_tracks"]

DEFAULT_WAIT = 15.0


def wanted_tracks(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``SESSION [TRACK]…``, ``--name`` and ``--wait`` to a command.

    They are its arguments ``session``, ``tracks``, ``name`` and ``wait``.
    """
    for add in (
        click.option(
            "-W",
            "--wait",
            metavar="SECONDS",
            type=click.FloatRange(0),
            default=DEFAULT_WAIT,
            show_default=True,
            help="How long to wait for the name, and for the first frame; then 124.",
        ),
        click.option("--name", metavar="NAME", help="Tracks of this name, of the newest session."),
        click.argument("tracks", metavar="[TRACK]...", nargs=-1),
        click.argument("session", required=False),
    ):
        command = add(command)
    return command


def output_option(help: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds ``-o FILE``, the argument ``path``, to a command."""
    return click.option(
        "-o",
        "--output",
        "path",
        metavar="FILE",
        required=True,
        type=click.Path(dir_okay=False, path_type=Path),
        help=help,
    )


def check_wanted(session: str | None, name: str | None) -> None:
    """Raise where neither a session nor a name is given, or both."""
    if (session is None) == (name is None):
        raise click.UsageError(
            "which tracks? Give SESSION and TRACK as `sfu tracks` lists them, or --name"
        )
