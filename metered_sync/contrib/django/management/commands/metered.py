"""Run commands of the command line with the project's settings: ``manage.py metered``."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from django.core.management.base import BaseCommand

from metered_sync.contrib.django.connections import resources
from metered_sync.contrib.resources import COMMANDS

__all__ = ["Command"]


class Command(BaseCommand):  # type: ignore[misc]  # (Django has no types)
    """The command."""

    help = f"Run one of {', '.join(COMMANDS)} with the settings of METERED."
    requires_system_checks: list[str] = []  # noqa: RUF012  # (the doctor tells more than they do)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take what follows as it is: the command line reads its own options."""
        parser.add_argument("metered_command", metavar="{" + ",".join(COMMANDS) + "}")
        parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="…")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it; a status other than 0 ends the process."""
        given = [options["metered_command"], *map(str, options["arguments"])]
        status = resources.run_command("manage.py metered", given)
        if status:
            sys.exit(status)
