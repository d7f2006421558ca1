"""Ask for TURN servers, make credentials and list them: ``metered-sync turn``."""

from __future__ import annotations

from typing import Any

import click

from metered_sync.cli import output
from metered_sync.cli.connection import Connection, connection_options

__all__ = ["command"]

REMEDIES = {
    "api_key": "the API key asks for servers: set METERED_TURN_API_KEY",
    "secret_key": "the secret key makes and lists credentials: set METERED_TURN_SECRET_KEY, or "
    "give --turn-secret-file",
}


@click.group("turn")
def command() -> None:
    """TURN servers, and credentials to use them with."""


@command.command()
@click.option("--region", metavar="REGION", help="Where they are to be: europe, global, …")
@output.json_option
@connection_options("turn")
def servers(connection: Connection, region: str | None, as_json: bool) -> None:
    """Print ICE servers for a client, with a credential in them.

    With --json: one object for each, as browsers and ice_servers= take them.
    """
    from metered_sync import TurnApi

    with TurnApi(**_keys(connection, "api_key")) as api:
        found = api.ice_servers(region=region)
    if as_json:
        for server in found:
            output.json_line(server.as_dict())
        return
    output.table(
        ("URL", "USER NAME", "CREDENTIAL"),
        [(url, server.username, server.credential) for server in found for url in server.urls],
        empty="the service names no servers: is TURN switched on in its dashboard?",
    )


@command.command()
@click.option("--expires-in", metavar="SECONDS", type=click.IntRange(1), help="Default: never.")
@click.option("--label", metavar="TEXT", help="A text to find it by.")
@output.json_option
@connection_options("turn")
def create(
    connection: Connection, expires_in: int | None, label: str | None, as_json: bool
) -> None:
    """Make a credential, for instance one for each user, and print it."""
    from metered_sync import TurnApi

    with TurnApi(**_keys(connection, "secret_key")) as api:
        made = api.create_credential(expires_in=expires_in, label=label)
    if as_json:
        output.json_line(
            {
                "username": made.username,
                "password": made.password,
                "api_key": made.api_key,
                "expires_in": made.expires_in,
                "label": made.label,
            }
        )
        return
    output.table(
        ("USER NAME", "PASSWORD", "API KEY", "EXPIRES IN", "LABEL"),
        [(made.username, made.password, made.api_key, made.expires_in, made.label)],
        empty="",
    )


@command.command("list")
@click.option("--page", type=click.IntRange(1), default=1, show_default=True)
@click.option("--label", metavar="TEXT", help="Only those with this label.")
@output.json_option
@connection_options("turn")
def list_credentials(connection: Connection, page: int, label: str | None, as_json: bool) -> None:
    """List the credentials, without their passwords."""
    from metered_sync import TurnApi

    with TurnApi(**_keys(connection, "secret_key")) as api:
        found = api.credentials(page=page, label=label)
    if as_json:
        for one in found:
            output.json_line(
                {
                    "username": one.username,
                    "label": one.label,
                    "expires_in": one.expires_in,
                    "expired": one.expired,
                }
            )
    else:
        output.table(
            ("USER NAME", "LABEL", "EXPIRES IN", "EXPIRED"),
            [
                (one.username, one.label, one.expires_in, "yes" if one.expired else "no")
                for one in found
            ],
            empty="there are no credentials",
        )
    if found.next_page is not None:
        output.talk(
            f"page {found.current_page} of {found.total_pages}: --page {found.next_page} is next"
        )


def _keys(connection: Connection, needed: str) -> dict[str, Any]:
    """Return the arguments for ``TurnApi``, among them a key that is needed."""
    options = connection.turn()
    if not options[needed]:
        raise click.UsageError(REMEDIES[needed])
    return options
