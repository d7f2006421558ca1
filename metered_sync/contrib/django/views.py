"""Views of a Django project: tokens, server-sent events, the gate to the SFU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib.auth.decorators import login_required
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_http_methods

from metered_sync.contrib.django.connections import resources
from metered_sync.contrib.event_stream import HEADERS, HEARTBEAT_PAUSE
from metered_sync.contrib.resources import GateMaker
from metered_sync.gate import SfuGate
from metered_sync.gate.wsgi import MAX_READ
from metered_sync.wire.arguments import check_number
from metered_sync.wire.names import check_channel

__all__ = ["events_view", "minted_for", "sfu_gate", "token_view"]

View = Callable[..., HttpResponse]


def minted_for(user: Any) -> dict[str, Any] | None:
    """Return a token for a user, with its expiry; ``None`` where the application refuses."""
    try:
        wanted = resources.token_function()(user)
    except PermissionDenied:
        return None
    return None if wanted is None else resources.token(wanted)


def _answer_with_token(request: HttpRequest) -> HttpResponse:
    """Answer with a token for the user who is logged in: a view, for GET and POST.

    The function that the setting ``TOKEN`` names decides: it gets the user, and returns the keyword
    arguments of :func:`~metered_sync.mint_token`, of which ``peer_id`` is needed. ``None`` and
    ``PermissionDenied`` refuse with 403. The answer is ``{"token": …, "expires_at": …}``, the
    latter in unix seconds.
    """
    minted = minted_for(request.user)
    if minted is None:
        return JsonResponse({"error": "refused"}, status=403)
    return JsonResponse(minted)


token_view: View = require_http_methods(["GET", "POST"])(
    login_required(never_cache(_answer_with_token))
)


def events_view(channel: str, *, heartbeat: float = HEARTBEAT_PAUSE) -> View:
    """Return a view of a channel's messages as server-sent events, for ``EventSource``.

    Each message is one ``data:`` line, its data as JSON. Everybody may open it, unless you wrap it:
    ``login_required(events_view("news"))``; or call it in a view that asks who it is. It holds a
    thread of the server until the page has gone, which is noticed at the second heartbeat. For WSGI
    servers.

    Args:
        channel: The name of a channel, or a pattern.
        heartbeat: Seconds of silence after which a comment is sent.
    """
    check_channel(channel)
    pause = check_number("heartbeat", heartbeat, above=True, unit="seconds")

    def view(request: HttpRequest) -> HttpResponse:
        if hasattr(request, "scope"):  # Django would wait there for the end of the stream
            raise ImproperlyConfigured("events_view needs a WSGI server; this is an ASGI server")
        # (The connection to the database, which the session took, is not kept as long as the page.)
        chunks = resources.events(channel, pause, on_start=close_old_connections)
        return StreamingHttpResponse(chunks, content_type="text/event-stream", headers=HEADERS)

    only_get: View = require_GET(view)
    return only_get


def sfu_gate(gate: SfuGate | None = None, **options: Any) -> View:
    """Return a view that serves a gate to the SFU.

    It is exempt from CSRF protection and from logging in, for calls bear a token, and no cookie
    counts::

        urlpatterns = [re_path(r"^sfu/(?P<path>.*)$", sfu_gate())]

    Args:
        gate: The gate; unless given, one is made with the first call.
        options: Of :class:`~metered_sync.SfuGate`, instead of those in the setting ``METERED``.

    Raises:
        TypeError: A gate and options for another one.
    """
    maker = GateMaker(gate, options)

    def view(request: HttpRequest, path: str = "") -> HttpResponse:
        status, headers, content = maker.get(resources).handle(
            request.method or "", f"/{path.lstrip('/')}", dict(request.headers), _body(request)
        )
        return HttpResponse(content, status=status, headers=headers)

    exempt: View = csrf_exempt(view)
    exempt.login_required = False  # type: ignore[attr-defined]  # (of LoginRequiredMiddleware)
    return exempt


def _body(request: HttpRequest) -> bytes:
    """Return the body, as far as it is read: Django's own limit is another one."""
    body: bytes = request.read(MAX_READ + 1) if request.META.get("CONTENT_LENGTH") else b""
    return body
