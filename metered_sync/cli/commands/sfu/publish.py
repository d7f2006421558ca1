"""Publish a file, a network camera or a test pattern through the SFU."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from metered_sync.cli import output
from metered_sync.cli.connection import Connection, connection_options
from metered_sync.errors import MediaError, MeteredTimeoutError, SfuError

if TYPE_CHECKING:
    from metered_sync import Publication, SfuClient
    from metered_sync.media.sources.base import Source

__all__ = ["command"]

LOOK_INTERVAL = 0.5
"""Seconds between two lines of progress."""
COUNT_INTERVAL = 2.0
"""Seconds between two questions how many receive it."""
ANSWER_TIMEOUT = 3.0
"""Seconds that a question may take."""


@click.command("publish")
@click.argument("source", metavar="FILE|rtsp://…|pattern")
@click.option("--name", metavar="NAME", help="A name for others to find it by.")
@click.option("--loop", is_flag=True, help="Play a file again and again.")
@click.option(
    "--encoded", is_flag=True, help="Send H.264, VP8 and Opus as they are, without an encoder."
)
@click.option("--bitrate", metavar="B", help="Bits per second of pictures: 800k, 1.5M.")
@click.option("--codec", metavar="C", help="vp8, h264, opus, …; else the SFU's choice.")
@click.option(
    "--seconds", metavar="S", type=click.FloatRange(0, min_open=True), help="End after so long."
)
@output.json_option
@connection_options("sfu")
def command(
    connection: Connection,
    source: str,
    name: str | None,
    loop: bool,
    encoded: bool,
    bitrate: str | None,
    codec: str | None,
    seconds: float | None,
    as_json: bool,
) -> None:
    """Publish a file, a network camera, or a test pattern.

    The pattern has numbered pictures and a quiet tone.

    Prints session, id, kind and name of each track; then shows how much is sent, and how many
    receive it where the SFU tells, until the source ends, --seconds are over, or Ctrl-C.
    """
    options = connection.sfu()
    from metered_sync import SfuClient
    from metered_sync.cli.media.figures import parse_bitrate
    from metered_sync.cli.media.publishing import opened

    try:
        rate = None if bitrate is None else parse_bitrate(bitrate)
    except ValueError as error:
        raise click.UsageError(f"--bitrate: {error}") from None
    with (
        opened(source, loop=loop, encoded=encoded) as sources,
        SfuClient(**options) as sfu,
    ):
        tracks = [track for one in sources for track in _tracks(one)]
        publications = sfu.publish(tracks, name=name, video_bitrate=rate, codec=codec)
        for one in publications:
            _print(one, as_json)
        end = float("inf") if seconds is None else time.monotonic() + seconds
        counts = SentCounts(sfu)
        try:
            with output.progress() as report:
                while not ended(sources[0], min(LOOK_INTERVAL, end - time.monotonic())):
                    if time.monotonic() >= end:
                        break
                    counts.update()
                    report(counts.text)
        finally:
            output.talk(f"published  {counts.text}")


def _tracks(source: Source[Any, Any]) -> Iterator[Any]:
    """Yield a source's tracks; say which cannot be sent as they are, and why."""
    for kind in ("video", "audio"):
        try:
            track = getattr(source, kind)
        except MediaError as error:
            output.talk(f"left out: {error}")
            continue
        if track is not None:
            yield track


def _print(publication: Publication, as_json: bool) -> None:
    """Say by which ids a track can be received."""
    if as_json:
        output.json_line(
            {
                "session": publication.session_id,
                "track": publication.track_id,
                "kind": publication.kind,
                "name": publication.name,
            }
        )
    else:
        cells = publication.session_id, publication.track_id, publication.kind, publication.name
        output.line("\t".join(output.printable(cell or "") for cell in cells).rstrip("\t"))


class SentCounts:
    """Count what a client sends, and how many receive it."""

    def __init__(self, sfu: SfuClient) -> None:
        self._sfu = sfu
        self._began = time.monotonic()
        self._ask_at = self._began
        self._subscribers: int | None = None
        self.text = "nothing yet"
        """The counts as a line."""

    def update(self) -> None:
        """Count anew; where no answer comes in time, the counts stay as they are."""
        from metered_sync.cli.media.figures import published_text

        now = time.monotonic()
        with contextlib.suppress(MeteredTimeoutError, SfuError):  # while it reconnects
            if now >= self._ask_at:
                self._ask_at = now + COUNT_INTERVAL
                self._subscribers = self._ask()
            publications = self._sfu.stats(timeout=ANSWER_TIMEOUT)["publications"]
            self.text = published_text(now - self._began, publications, self._subscribers)

    def _ask(self) -> int | None:
        """Return how many receive what the session publishes: of the track that most receive."""
        session = self._sfu.session_id
        if session is None:
            return None
        told = [track.subscribers for track in self._sfu.tracks(session, timeout=ANSWER_TIMEOUT)]
        known = [count for count in told if count is not None]
        if not known:  # this SFU does not tell: it is not asked again
            self._ask_at = float("inf")
        return max(known, default=None)


def ended(source: Source[Any, Any], within: float) -> bool:
    """Return whether a source is played to its end, having waited a moment for that."""
    try:
        source.wait(timeout=max(0.0, within))
    except MeteredTimeoutError:
        return False
    return True
