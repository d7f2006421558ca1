"""Join a room, and show who is there and what comes: ``metered-sync room``."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from metered_sync.cli import output
from metered_sync.cli.arguments import CHANNEL
from metered_sync.cli.connection import Connection, connection_options

__all__ = ["command"]


@click.command("room")
@click.argument("channel", type=CHANNEL)
@click.option("--publish", "source", metavar="FILE|pattern", help="Send this (rtsp://… too).")
@click.option("--loop", is_flag=True, help="Play the file again and again.")
@click.option(
    "--record",
    "folder",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Record what comes, an .mkv file for each member: as it comes, not encoded again.",
)
@click.option(
    "--media",
    type=click.Choice(["mesh", "sfu"]),
    default="mesh",
    show_default=True,
    help="How media travels: all members of a room use the same.",
)
@click.option(
    "--seconds", metavar="S", type=click.FloatRange(0, min_open=True), help="End after so long."
)
@output.json_option
@connection_options("messaging", "sfu")
def command(
    connection: Connection,
    channel: str,
    source: str | None,
    loop: bool,
    folder: Path | None,
    media: str,
    seconds: float | None,
    as_json: bool,
) -> None:
    """Join a room: show its members, their tracks and messages.

    It ends with Ctrl-C, or after --seconds.

    With --record, a member's file goes on as long as something comes of it. What cannot be
    added to a file (pictures that begin late) begins another one; none is overwritten.
    """
    if loop and source is None:
        raise click.UsageError("--loop: give the file with --publish")
    options: dict[str, Any] = connection.messaging()
    sfu_options = connection.sfu() if media == "sfu" else None
    from metered_sync import MediaStream, MeteredPeer, SfuMedia
    from metered_sync.cli.media.publishing import opened
    from metered_sync.cli.media.room_files import RoomFiles
    from metered_sync.cli.media.room_watch import RoomWatch

    if sfu_options is not None:
        options["media"] = SfuMedia(**sfu_options)
    with ExitStack() as stack:
        sources = stack.enter_context(opened(source, loop=loop)) if source else []
        peer = stack.enter_context(MeteredPeer(**options))
        if sources:
            peer.add_stream(MediaStream(sources, id="camera"))
        watch = RoomWatch(peer, _show_json if as_json else _show_line)
        if folder is not None:
            watch.files = stack.enter_context(RoomFiles(folder, watch.recorded))
        peer.join(channel)
        output.talk(f"in the room {output.printable(channel)!r} as {peer.peer_id}")
        with output.progress() as report:
            watch.run(report, seconds)
    if watch.files is not None and watch.files.errors:
        raise watch.files.errors[0]


def _show_json(kind: str, member: str, text: str, facts: dict[str, Any]) -> None:
    at = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    output.json_line({"type": kind, "peer": member, **facts, "at": at})


def _show_line(kind: str, member: str, text: str, facts: dict[str, Any]) -> None:
    output.line(f"{output.coloured(output.printable(member), bold=True)} {text}")
