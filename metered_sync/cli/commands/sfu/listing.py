"""List the SFU's sessions, and the tracks that they publish."""

from __future__ import annotations

import click

from metered_sync.cli import output
from metered_sync.cli.connection import Connection, connection_options

__all__ = ["sessions", "tracks"]


@click.command()
@output.json_option
@connection_options("sfu")
def sessions(connection: Connection, as_json: bool) -> None:
    """List the app's sessions."""
    from metered_sync import SfuApi
    from metered_sync.wire.sfu import parse_sessions

    with SfuApi(**connection.sfu()) as api:
        found = parse_sessions(api.sessions())
    if as_json:
        for one in found:
            output.json_line(
                {"session": one.session_id, "state": one.state, "metadata": one.metadata}
            )
        return
    output.table(
        ("SESSION", "STATE", "METADATA"),
        [(one.session_id, one.state, one.metadata) for one in found],
        empty="there are no sessions",
    )


@click.command()
@click.argument("session", required=False)
@output.json_option
@connection_options("sfu")
def tracks(connection: Connection, session: str | None, as_json: bool) -> None:
    """List what SESSION, or every session, publishes, the newest last."""
    from metered_sync import SfuApi, SfuNotFoundError, TrackInfo
    from metered_sync.wire.sfu import parse_sessions, parse_tracks

    found: list[TrackInfo] = []
    with SfuApi(**connection.sfu()) as api:
        if session is not None:
            found += parse_tracks(api.tracks(session))
        else:
            for one in parse_sessions(api.sessions()):
                try:
                    found += parse_tracks(api.tracks(one.session_id))
                except SfuNotFoundError:  # it has ended meanwhile
                    continue
    if as_json:
        for track in found:
            output.json_line(
                {
                    "session": track.session_id,
                    "track": track.track_id,
                    "kind": track.kind,
                    "name": track.name,
                    "subscribers": track.subscribers,
                }
            )
        return
    output.table(
        ("SESSION", "TRACK", "KIND", "NAME"),
        [(track.session_id, track.track_id, track.kind, track.name) for track in found],
        empty="nothing is published",
    )
