"""Users listen by themselves, with a token or by events, and speak through the server."""

import functools
import json

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpResponseBadRequest, JsonResponse
from django.shortcuts import render
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_POST

from chat.rooms import may_use
from metered_sync.contrib.django import client, control, events_view


def members_only(view):
    """Decorate a view of a room: whoever may not use the room gets a 403."""

    @functools.wraps(view)
    def checked(request, room):
        if not may_use(request.user, room):
            raise PermissionDenied
        return view(request, room)

    return login_required(checked)


@require_GET
@login_required
@ensure_csrf_cookie
def index(request):
    return render(request, "index.html")


@members_only
def events(request, room):
    """Stream what is said in a room."""
    return events_view(f"rooms/{room}")(request)


@require_POST
@members_only
def speak(request, room):
    """Publish to everybody in a room."""
    try:
        text = json.loads(request.body)["text"][:1000]
        text.encode()  # half a surrogate pair is no text that could be sent
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return HttpResponseBadRequest()
    client().publish(f"rooms/{room}", {"from": request.user.get_username(), "text": text})
    return JsonResponse({"sender": client().peer_id})


@require_GET
@members_only
def members(request, room):
    """List who is in a room."""
    peers = control().peers(f"rooms/{room}")
    return JsonResponse({peer: about.get("name") for peer, about in peers.items() if about})
