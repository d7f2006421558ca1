"""Publish a clip and watch it, through a local cloud: ``metered-sync demo``."""

from __future__ import annotations

import argparse
from pathlib import Path

from metered_sync.cli.command import Commands

__all__ = ["add_to", "run"]


def add_to(commands: Commands) -> None:
    """Add the command and its options."""
    demo = commands.add_parser(
        "demo",
        help="publish a clip and watch it, through a local cloud",
        description="Start a local cloud, publish a video clip through its SFU from one process, "
        "read it in another, and show what arrived.",
    )
    demo.add_argument("--seconds", type=float, default=8.0, help="how long to watch (default 8)")
    demo.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("metered-sync-demo.png"),
        help="where the picture goes (default metered-sync-demo.png)",
    )
    demo.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the demo; return the exit status."""
    from metered_sync.demo import stage

    stage.run(options.output, seconds=options.seconds)
    return 0
