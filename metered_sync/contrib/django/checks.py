"""Say what is wrong with the settings, for ``manage.py check``."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from metered_sync.contrib.django.connections import project_settings
from metered_sync.contrib.settings import VARIABLES, name_problems, value_problems

__all__ = ["check_settings"]


def check_settings(app_configs: Any = None, **options: Any) -> list[checks.CheckMessage]:
    """Return what is missing, swapped or in a wrong place; no message has a key in it."""
    try:
        given = project_settings()
    except ImproperlyConfigured as error:
        return [checks.Error(str(error), hint="METERED = {…}", id="metered.E001")]
    found = [
        (checks.Error if problem.code.startswith("E") else checks.Warning)(
            problem.text, hint=problem.remedy, id=f"metered.{problem.code}"
        )
        for problem in (*name_problems(given), *value_problems(given))
    ]
    for name, variable in VARIABLES.items():
        if hasattr(settings, variable):
            found.append(
                checks.Warning(
                    f"{variable} is a setting of its own, which nothing reads",
                    hint=f'METERED = {{"{name}": …}}',
                    id="metered.W002",
                )
            )
    return found
