"""Publish a clip and watch it, through a local cloud: ``metered-sync demo``."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["command"]


@click.command("demo", short_help="Publish a clip and watch it, through a local cloud.")
@click.option("--seconds", type=float, default=8.0, show_default=True, help="How long to watch.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("metered-sync-demo.png"),
    show_default=True,
    help="Where the picture goes.",
)
def command(seconds: float, output: Path) -> None:
    """Start a local cloud, publish a video clip through its SFU from one process, read it in
    another, and show what arrived."""
    from metered_sync.demo import stage

    stage.run(output, seconds=seconds)
