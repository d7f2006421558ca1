"""List who is in a channel: ``metered-sync peers``."""

from __future__ import annotations

import click

from metered_sync.cli import output
from metered_sync.cli.arguments import CHANNEL
from metered_sync.cli.connection import Connection, connection_options

__all__ = ["command"]


@click.command("peers", short_help="List who is in a channel.")
@click.argument("channel", type=CHANNEL)
@connection_options("control")
@output.json_option
def command(channel: str, connection: Connection, as_json: bool) -> None:
    """List the subscribers of a channel, with their metadata."""
    from metered_sync import ControlPlane

    with ControlPlane(**connection.control()) as plane:
        peers = plane.peers(channel)
    if as_json:
        output.json_line([{"peer": peer, "metadata": data} for peer, data in peers.items()])
        return
    rows = [
        (peer, None if data is None else output.json_text(data)) for peer, data in peers.items()
    ]
    output.table(("peer", "metadata"), rows, empty=f"nobody is in {output.printable(channel)}")
