"""Examine whether everything works from here: ``metered-sync doctor``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metered_sync.cli import output
from metered_sync.cli.connection import Connection, connection_options

if TYPE_CHECKING:
    from metered_sync.doctor import Finding

__all__ = ["command"]

_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "bright_black"}


@click.command("doctor", short_help="Find out what does not work from here, and what to do.")
@connection_options("messaging", "control", "sfu")
@click.option("--only", metavar="STAGE,…", help="Run these stages alone; an unknown one lists all.")
@click.option("--offline", is_flag=True, help="Look at this machine and the keys; send nothing.")
@click.option("--channel", help="The channel that is tried; one of its own unless given.")
@click.option(
    "--report",
    "report_file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write the report to this file, too (.json: as JSON). It has no secrets.",
)
@output.json_option
def command(
    connection: Connection,
    only: str | None,
    offline: bool,
    channel: str | None,
    report_file: Path | None,
    as_json: bool,
) -> int:
    """Examine stage by stage whether messaging, rooms and the SFU work from here; say of what does
    not what it is, and what to do. Takes at most 30 seconds.

    Exit status: 0 all is well, 1 something failed, 3 warnings only."""
    from metered_sync import doctor

    for name in (only or "").split(",") if only is not None else ():
        if name.strip() not in doctor.STAGES:
            stages = ", ".join(doctor.STAGES)
            raise click.BadParameter(f"there is no stage {name!r}: {stages}", param_hint="--only")
    with output.progress() as show:

        def tell(finding: Finding) -> None:
            if as_json:
                show(finding.stage)
            else:
                sign = output.coloured(finding.sign, fg=_COLOURS[finding.status])
                output.line(sign + output.printable(str(finding))[1:])

        report = doctor.run(
            only=only, offline=offline, channel=channel, on_stage=tell, **_given(connection)
        )
    if as_json:
        output.json_line(report.as_dict())
    elif report.stages[-1:] == () or report.stages[-1].stage != "verdict":
        output.line(f"verdict: {report.verdict}")
    if report_file is not None:
        text = report.to_json() if report_file.suffix == ".json" else str(report)
        report_file.write_text(text + "\n", encoding="utf-8")
    return report.exit_status


def _given(connection: Connection) -> dict[str, Any]:
    """Return the doctor's arguments; of keys that are not there, the stage ``keys`` tells."""
    given = click.get_current_context().params
    found: dict[str, Any] = {}
    if connection.local is not None:  # no TURN server runs with it
        found |= {"turn_app": "", "turn_api_key": ""}
    parts: tuple[tuple[Callable[[], dict[str, Any]], tuple[str, ...], dict[str, str]], ...] = (
        (connection.messaging, ("key", "bearer"), {}),
        (connection.control, ("key_id", "key_secret_file"), {"secret": "key_secret"}),
        (
            connection.sfu,
            ("app_id", "secret_file"),
            {"app_id": "sfu_app_id", "secret": "sfu_secret", "url": "sfu_url"},
        ),
    )
    for part, options, names in parts:
        try:
            arguments = part()
        except click.UsageError:
            if any(given.get(option) for option in options):
                raise
            continue
        if part == connection.control:
            arguments.pop("url", None)  # the doctor makes it of messaging's
        found |= {names.get(name, name): value for name, value in arguments.items()}
    return found
