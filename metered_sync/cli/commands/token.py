"""Make tokens, and explain them: ``metered-sync token``."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from metered_sync.cli import output
from metered_sync.cli.arguments import JSON, PEER
from metered_sync.cli.connection import Connection, connection_options

if TYPE_CHECKING:
    from metered_sync.cli.token_report import TokenReport

__all__ = ["command"]

MAX_TOKEN = 1 << 16
"""Bytes of standard input that are looked at."""
NO_TOKEN = 2
"""The exit status for what is no token."""


@click.command("token", short_help="Make a token, or explain one.")
@click.option("--peer-id", type=PEER, metavar="ID", help="Whom the token is for.")
@click.option("--channel", "channels", multiple=True, help="A channel, or a pattern; repeatable.")
@click.option(
    "--permission",
    "permissions",
    multiple=True,
    type=click.Choice(["publish", "subscribe", "presence", "send"]),
    help="Repeatable; all that the key has, unless given.",
)
@click.option("--ttl", type=float, metavar="S", help="Seconds that it is valid for (3600).")
@click.option("--metadata", type=JSON, metavar="JSON", help="Handed to the bearer alone.")
@click.option("--peer-metadata", type=JSON, metavar="JSON", help="Shown to other peers.")
@click.option("--decode", is_flag=True, help="Explain TOKEN, or the one on standard input.")
@click.argument("token", required=False)
@connection_options("control", address=False)
@output.json_option
def command(
    token: str | None, decode: bool, connection: Connection, as_json: bool, **claims: Any
) -> int:
    """Sign a token with the secret key, and print it; nothing is sent anywhere.

    With --decode: say what a token grants, how long it is valid, and what is wrong with it. Ends
    with 0 if it is accepted now, with 1 if not, with 2 if it is no token.
    """
    if decode:
        if given := [name for name, value in claims.items() if value not in (None, ())]:
            raise click.UsageError(f"--decode makes no token: leave out {_option(given[0])}")
        return _explain(token, connection, as_json)
    if token is not None:
        raise click.UsageError("to explain a token: --decode TOKEN")
    if claims["peer_id"] is None:
        raise click.UsageError("Missing option '--peer-id' (or '--decode').")
    _make(connection, as_json, **{k: None if v == () else v for k, v in claims.items()})
    return 0


def _option(name: str) -> str:
    return "--" + name.removesuffix("s").replace("_", "-")


def _make(connection: Connection, as_json: bool, *, ttl: float | None, **claims: Any) -> None:
    from metered_sync import mint_token

    seconds = 3600 if ttl is None else ttl
    try:
        expires_at = int(time.time() + seconds)
        key: dict[str, Any] = connection.key_pair()
        made = mint_token(**key, ttl=seconds, **claims)
    except (ValueError, OverflowError) as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        output.json_line({"token": made, "expires_at": expires_at})
    else:
        output.line(made)


def _explain(token: str | None, connection: Connection, as_json: bool) -> int:
    from metered_sync.cli.token_report import read_token

    if token is None:
        if output.is_terminal(sys.stdin):
            output.talk("paste the token; Ctrl-D ends it")
        token = sys.stdin.buffer.read(MAX_TOKEN).decode("ascii", "replace")
    try:
        report = read_token(
            token.strip().removeprefix("Bearer").strip(), time.time(), **connection.known_key_pair()
        )
    except ValueError as error:
        output.talk(f"metered-sync: {error}")
        return NO_TOKEN
    if as_json:
        output.json_line(
            {
                "accepted": report.accepted,
                "key_id": report.key_id,
                "claims": report.claims,
                "expires_in": report.expires_in,
                "signature": report.signature,
                "problems": report.problems,
                "notes": report.notes,
            }
        )
    else:
        _show(report)
    return 0 if report.accepted else 1


def _show(report: TokenReport) -> None:
    claims = report.claims
    rows = [
        ("peer", claims.get("sub")),
        ("key", report.key_id),
        ("channels", _listed(claims.get("channels"))),
        ("permissions", _listed(claims.get("permissions"))),
        ("valid", _validity(report.expires_in)),
        ("signature", report.signature),
    ]
    for name in ("metadata", "peerMetadata"):
        if name in claims:
            rows.append((name, output.json_text(claims[name])))
    rows += [("wrong", problem) for problem in report.problems]
    rows += [("note", note) for note in report.notes]
    rows.append(("verdict", "accepted now" if report.accepted else "refused"))
    output.table(("", ""), rows, empty="")


def _listed(values: object) -> str:
    if values is None:
        return "all that the key has"
    return output.json_text(values)


def _validity(seconds: float | None) -> str:
    if seconds is None:
        return "it does not say"
    if seconds <= 0:
        return f"expired {_duration(-seconds)} ago"
    return f"for {_duration(seconds)}"


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}s"
    return f"{seconds:.0f} s"
