"""Record tracks from the SFU to a file."""

from __future__ import annotations

from pathlib import Path

import click

from metered_sync.cli import output
from metered_sync.cli.commands.sfu.tracks import check_wanted, output_option, wanted_tracks
from metered_sync.cli.connection import Connection, connection_options
from metered_sync.errors import MeteredTimeoutError

__all__ = ["command"]


@click.command("record")
@wanted_tracks
@output_option(
    ".mkv takes all as it comes, .webm VP8 and Opus, .mp4 H.264: the rest is encoded again. "
    "For sound .opus or .ogg (as it comes), .m4a or .wav. It is replaced."
)
@click.option(
    "--seconds",
    metavar="S",
    type=click.FloatRange(0, min_open=True),
    help="End so long after the first frame.",
)
@output.json_option
@connection_options("sfu")
def command(
    connection: Connection,
    session: str | None,
    tracks: tuple[str, ...],
    name: str | None,
    wait: float,
    path: Path,
    seconds: float | None,
    as_json: bool,
) -> int:
    """Record tracks of SESSION, or all tracks of a --name.

    A TRACK is an id or a name; without one, all of the session are recorded.

    Until they end, --seconds are over, or Ctrl-C: in each case the file is complete.
    """
    check_wanted(session, name)
    options = connection.sfu()
    from metered_sync import Recorder, SfuClient
    from metered_sync.cli.media.choosing import find_tracks
    from metered_sync.cli.media.figures import recorded_text
    from metered_sync.cli.media.recording import record, recorded_facts

    try:
        recorder = Recorder(path)  # what cannot be written is told before anything is awaited
    except ValueError as error:
        raise click.UsageError(f"-o: {error}") from None
    with SfuClient(**options) as sfu:
        try:
            found = sfu.subscribe(find_tracks(sfu, session, tracks, name, wait))
            with output.progress() as report:
                record(
                    recorder,
                    found,
                    lambda info: report(recorded_text(info)),
                    seconds=seconds,
                    wait=wait,
                )
        except MeteredTimeoutError as error:
            output.talk(str(error))
            return output.NOTHING_CAME
        finally:
            if recorder.info.bytes:
                output.talk(f"recorded to {path}: {recorded_text(recorder.info)}")
                if as_json:
                    output.json_line(recorded_facts(recorder.info))
    return 0
