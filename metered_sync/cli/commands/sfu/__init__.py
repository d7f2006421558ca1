"""Publish, record and look at media through the SFU: ``metered-sync sfu``.

======== ===========================================================================
listing  ``sfu sessions`` and ``sfu tracks``
publish  ``sfu publish``
record   ``sfu record``
snapshot ``sfu snapshot``
tracks   the arguments by which the last two find their tracks
======== ===========================================================================
"""

from __future__ import annotations

import click

from metered_sync.cli.commands.sfu import listing, publish, record, snapshot

__all__ = ["command"]


@click.group("sfu")
def command() -> None:
    """Media through the SFU: what is there, publish, record, snapshots."""


for one in (
    listing.sessions,
    listing.tracks,
    publish.command,
    record.command,
    snapshot.command,
):
    command.add_command(one)
