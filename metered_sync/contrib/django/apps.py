"""The application that goes into ``INSTALLED_APPS``."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks

from metered_sync.contrib.django.checks import check_settings

__all__ = ["MeteredConfig"]


class MeteredConfig(AppConfig):  # type: ignore[misc]  # (Django has no types)
    """Register the checks of the settings; tags and commands Django finds by itself."""

    name = "metered_sync.contrib.django"
    label = "metered"
    verbose_name = "Metered"

    def ready(self) -> None:
        """Called by Django once all applications are there."""
        checks.register(check_settings, "metered")
