"""The tags of ``{% load metered %}``: what a page needs to connect."""

from __future__ import annotations

from typing import Any

from django import template
from django.core.exceptions import ImproperlyConfigured
from django.utils.safestring import mark_safe

from metered_sync.contrib.django.connections import resources
from metered_sync.contrib.django.views import minted_for
from metered_sync.contrib.resources import html_json

__all__ = ["metered_config", "metered_token", "register"]

register = template.Library()


def metered_token(context: Any) -> str:
    """Show a token for the user who is logged in; nothing where there is none, or it is refused.

    ``context`` is the template's, with the request whose user it is.
    """
    return str((_minted(context) or {}).get("token", ""))


def metered_config(context: Any) -> str:
    """Show what a page needs to connect, as JSON that may stand in a script.

    It has ``url``, ``key`` (the publishable one, or null), ``token`` and ``expires_at`` (null where
    nobody is logged in, there is no setting ``TOKEN``, or its function refuses).
    """
    minted = _minted(context) if resources.settings().has("TOKEN") else None
    shown: str = mark_safe(html_json(resources.page_config(minted)))
    return shown


def _minted(context: Any) -> dict[str, Any] | None:
    if "request" not in context:
        raise ImproperlyConfigured(
            "the tags of metered need the context processor "
            "django.template.context_processors.request, and a template that a view renders"
        )
    # (Not the context's "user": a page about somebody else may call that one so.)
    user = getattr(context["request"], "user", None)
    return minted_for(user) if getattr(user, "is_authenticated", False) else None


register.simple_tag(metered_token, takes_context=True)
register.simple_tag(metered_config, takes_context=True)
