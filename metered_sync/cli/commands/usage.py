"""Show the app's usage and its plan: ``metered-sync usage``."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone

import click

from metered_sync.cli import output
from metered_sync.cli.connection import Connection, connection_options

__all__ = ["command"]


@click.command("usage", short_help="Show how much of the plan is used.")
@connection_options("control")
@output.json_option
def command(connection: Connection, as_json: bool) -> None:
    """Show the app's usage in this period, and its plan."""
    from metered_sync import ControlPlane

    with ControlPlane(**connection.control()) as plane:
        usage = plane.usage()
    if as_json:
        output.json_line(dataclasses.asdict(usage))
        return
    plan = usage.plan
    rows = (
        ("app", usage.app_id, None),
        ("plan", plan.name, None),
        ("period", f"{_day(usage.period_start_unix)} to {_day(usage.period_end_unix)}", None),
        ("connections now", usage.concurrent_now, plan.max_concurrent_connections),
        ("connections at most", usage.peak_concurrent, plan.max_concurrent_connections),
        ("messages", usage.messages_used, plan.max_messages_per_period),
        ("messages beyond the plan", usage.overage_messages, None),
        ("connections beyond the plan", usage.overage_connections, None),
        ("beyond the plan is", "possible" if plan.overages_enabled else "refused", None),
    )
    output.table(("", "used", "of"), rows, empty="")


def _day(moment: int | None) -> str:
    if moment is None:
        return "?"
    try:
        return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):  # no date of this calendar
        return str(moment)
