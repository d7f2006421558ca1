"""Serve what browsers need of a Django project: the gate to the SFU.

The setting ``METERED`` is a dict with the credentials: ``"KEY_ID"`` and ``"KEY_SECRET"`` of the key
that signs tokens, ``"SFU_APP_ID"``, ``"SFU_SECRET"`` and ``"SFU_URL"`` of the SFU's app. What is
missing there is taken from the environment, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from metered_sync.gate import SfuGate
from metered_sync.gate.wsgi import MAX_READ

__all__ = ["sfu_gate"]


def sfu_gate(gate: SfuGate | None = None, **options: Any) -> Callable[..., HttpResponse]:
    """Return a view that serves a gate to the SFU.

    It is exempt from CSRF protection, for calls bear a token and no cookie counts::

        urlpatterns = [re_path(r"^sfu/(?P<path>.*)$", sfu_gate())]

    Args:
        gate: The gate; unless given, one is made with the first call.
        options: Of :class:`~metered_sync.SfuGate`, instead of those in the setting ``METERED``.

    Raises:
        TypeError: A gate and options for another one.
    """
    if gate is not None and options:
        raise TypeError("sfu_gate takes a gate, or the options to make one, not both")
    made: list[SfuGate] = [] if gate is None else [gate]

    def view(request: HttpRequest, path: str = "") -> HttpResponse:
        if not made:  # (two threads may each make one: both serve)
            made.append(SfuGate(**{**_settings(), **options}))
        status, headers, content = made[0].handle(
            request.method or "", f"/{path.lstrip('/')}", dict(request.headers), _body(request)
        )
        return HttpResponse(content, status=status, headers=headers)

    exempt: Callable[..., HttpResponse] = csrf_exempt(view)
    return exempt


def _body(request: HttpRequest) -> bytes:
    """Return the body, as far as it is read: Django's own limit is another one."""
    body: bytes = request.read(MAX_READ + 1) if request.META.get("CONTENT_LENGTH") else b""
    return body


def _settings() -> dict[str, Any]:
    given = getattr(settings, "METERED", {})
    names = {"SFU_APP_ID": "app_id", "SFU_SECRET": "secret", "SFU_URL": "url"}
    options = {argument: given[name] for name, argument in names.items() if name in given}
    if "KEY_ID" in given and "KEY_SECRET" in given:
        options["keys"] = {given["KEY_ID"]: given["KEY_SECRET"]}
    return options
