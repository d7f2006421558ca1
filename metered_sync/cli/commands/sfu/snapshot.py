"""Take one picture of a track from the SFU."""

from __future__ import annotations

from pathlib import Path

import click

from metered_sync.cli import output
from metered_sync.cli.commands.sfu.tracks import check_wanted, output_option, wanted_tracks
from metered_sync.cli.connection import Connection, connection_options
from metered_sync.errors import MeteredTimeoutError

__all__ = ["command"]

SUFFIXES = (".jpg", ".jpeg", ".png")


@click.command("snapshot")
@wanted_tracks
@output_option(".jpg or .png. It is replaced.")
@connection_options("sfu")
def command(
    connection: Connection,
    session: str | None,
    tracks: tuple[str, ...],
    name: str | None,
    wait: float,
    path: Path,
) -> int:
    """Take one picture of a track of SESSION, or of a --name.

    A TRACK is an id or a name.
    """
    check_wanted(session, name)
    if path.suffix.lower() not in SUFFIXES:
        raise click.UsageError(f"-o: a picture's name ends in .jpg, .jpeg or .png, not {path.name}")
    if not path.parent.is_dir():
        raise click.UsageError(f"-o: there is no directory {path.parent}")
    options = connection.sfu()
    from metered_sync import SfuClient
    from metered_sync.cli.media.choosing import find_tracks, first_video

    with SfuClient(**options) as sfu:
        try:
            track = sfu.subscribe(first_video(find_tracks(sfu, session, tracks, name, wait)))
            picture = track.snapshot(timeout=wait)
        except MeteredTimeoutError as error:
            output.talk(str(error))
            return output.NOTHING_CAME
    picture.save(path)
    output.talk(f"{path}: {picture.width}x{picture.height}")
    return 0
