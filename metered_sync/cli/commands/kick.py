"""Disconnect a peer: ``metered-sync kick``."""

from __future__ import annotations

import click

from metered_sync.cli import output
from metered_sync.cli.arguments import PEER
from metered_sync.cli.connection import Connection, connection_options

__all__ = ["command"]


@click.command("kick", short_help="Disconnect a peer.")
@click.argument("peer", type=PEER)
@connection_options("control")
@output.json_option
def command(peer: str, connection: Connection, as_json: bool) -> int:
    """Close all connections of a peer; with 1 if it has none. Its tokens stay valid."""
    from metered_sync import ControlPlane

    with ControlPlane(**connection.control()) as plane:
        closed = plane.disconnect(peer)
    if as_json:
        output.json_line({"disconnected": closed})
    else:
        output.talk(f"{peer}: {closed} connection{'' if closed == 1 else 's'} closed")
    return 0 if closed else 1
