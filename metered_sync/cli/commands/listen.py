"""Print messages as they come: ``metered-sync listen``."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import click

from metered_sync.cli import output
from metered_sync.cli.arguments import PATTERN
from metered_sync.cli.connection import Connection, connection_options
from metered_sync.errors import MeteredTimeoutError

if TYPE_CHECKING:
    from metered_sync import EventQueue, Message, Outage, Presence, PresencePeer, ServerError

__all__ = ["command"]

MAX_QUEUED = 1 << 16
"""Messages that may wait to be printed."""
MAX_QUEUED_BYTES = 64 << 20
"""Bytes of them."""
WAIT_SLICE = 0.5
"""Seconds between two looks at whether anybody still reads what is printed."""


@click.command("listen", short_help="Print the messages of channels.")
@click.argument("channels", metavar="CHANNEL...", type=PATTERN, nargs=-1, required=True)
@click.option("--data", "data_only", is_flag=True, help="Print the data alone, as JSON.")
@click.option("--presence", is_flag=True, help="Tell who joins and who leaves, too.")
@click.option("-n", "--count", type=click.IntRange(1), metavar="N", help="End after N messages.")
@click.option(
    "-W",
    "--wait",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="End when nothing has come for so long: with 124 if it was less than N, or nothing.",
)
@connection_options("messaging")
@output.json_option
def command(
    channels: tuple[str, ...],
    data_only: bool,
    presence: bool,
    count: int | None,
    wait: float | None,
    connection: Connection,
    as_json: bool,
) -> int:
    """Print each message of the channels on a line, until Ctrl-C. A CHANNEL may be a pattern: "*"
    is any run of characters without "/", "**" any run at all.
    """
    if data_only and (as_json or presence):
        raise click.UsageError("--data prints nothing but data: leave out --json and --presence")

    from metered_sync import Message, Outage, Presence, ServerError, SignallingClient

    show = _data if data_only else _as_json if as_json else _line
    with SignallingClient(**connection.messaging()) as client:
        client.on(Outage, _tell_of_outage)
        client.on(ServerError, _tell_of_error)
        with client.events(
            Message, Presence, maxsize=MAX_QUEUED, max_bytes=MAX_QUEUED_BYTES
        ) as inbox:
            for channel in dict.fromkeys(channels):
                client.subscribe(channel, include_sender_metadata=True, maxsize=1)
            output.talk(
                f"listening to {', '.join(map(output.printable, channels))}; Ctrl-C ends it"
            )
            try:
                return _print(inbox, show, presence, count or math.inf, wait)
            finally:
                if inbox.dropped:
                    output.talk(f"{inbox.dropped} messages were lost: they came faster than read")


def _print(
    inbox: EventQueue[Message | Presence],
    show: Callable[[Message | Presence], None],
    presence: bool,
    wanted: float,
    wait: float | None,
) -> int:
    """Print what comes, to the end that the options say; return the exit status."""
    from metered_sync import Message

    came = 0
    end = _after(wait)
    while came < wanted:
        try:
            event = inbox.get(timeout=min(WAIT_SLICE, max(0.0, end - time.monotonic())))
        except MeteredTimeoutError:
            if output.reader_is_gone():
                break
            if time.monotonic() < end:
                continue
            return output.NOTHING_CAME if came == 0 or wanted < math.inf else 0
        if isinstance(event, Message):
            came += 1
            end = _after(wait)
        elif not presence:
            continue
        show(event)
    return 1 if inbox.dropped else 0


def _after(wait: float | None) -> float:
    return math.inf if wait is None else time.monotonic() + wait


def _data(event: Message | Presence) -> None:
    output.json_line(getattr(event, "data", None))


def _as_json(event: Message | Presence) -> None:
    from metered_sync import Message

    if isinstance(event, Message):
        output.json_line(
            {
                "type": "message",
                "channel": event.channel,
                "from": event.sender_peer_id,
                "data": event.data,
                "metadata": event.sender_metadata,
                "at": _now(),
            }
        )
    else:
        output.json_line(
            {
                "type": "presence",
                "channel": event.channel,
                "joined": [_member(peer) for peer in event.joined],
                "left": [_member(peer) for peer in event.left],
            }
        )


def _member(peer: PresencePeer) -> dict[str, Any]:
    return {"peer": peer.peer_id, "metadata": peer.metadata}


def _now() -> str:
    """Return the time as ISO 8601 has it, in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _line(event: Message | Presence) -> None:
    """Print an event: time, channel, peer and data; with tabs in between where a pipe reads."""
    from metered_sync import Message

    person = output.is_terminal(sys.stdout)
    at = datetime.now().strftime("%H:%M:%S") if person else _now()
    separator = "  " if person else "\t"
    if isinstance(event, Message):
        pieces = [(event.sender_peer_id, output.json_text(event.data))]
    else:
        pieces = [(peer.peer_id, "joined") for peer in event.joined]
        pieces += [(peer.peer_id, "left") for peer in event.left]
    for peer, words in pieces:
        output.line(
            separator.join(
                (
                    output.coloured(at, dim=True),
                    output.coloured(output.printable(event.channel), fg="cyan"),
                    output.coloured(output.printable(peer), fg="green"),
                    words,
                )
            )
        )


def _tell_of_outage(outage: Outage) -> None:
    output.talk(
        f"the connection was lost for {outage.duration:.1f} s: what was published meanwhile is lost"
    )


def _tell_of_error(error: ServerError) -> None:
    output.talk(f"the server reports: {output.printable(error.message or error.code)}")
