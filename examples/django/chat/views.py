"""Users listen by themselves, with a token, and speak through the server."""

import functools
import json
import os

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpResponseBadRequest, JsonResponse
from django.shortcuts import render
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_POST

from chat.messaging import get_client, may_use, token_for
from metered_sync import ControlPlane

# It opens nothing, so it may be made before a fork.
control = ControlPlane(settings.METERED_KEY_ID, settings.METERED_KEY_SECRET, timeout=5)


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


@require_POST
@login_required
def token(request):
    """Mint what the user's browser connects with."""
    return JsonResponse({"token": token_for(request.user)})


@require_POST
@members_only
def speak(request, room):
    """Publish to everybody in a room."""
    try:
        text = json.loads(request.body)["text"][:1000]
        text.encode()  # half a surrogate pair is no text that could be sent
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return HttpResponseBadRequest()
    message = {"from": request.user.get_username(), "text": text}
    get_client().publish(f"rooms/{room}", message)
    return JsonResponse({"worker": os.getpid()})


@require_GET
@members_only
def members(request, room):
    """List who is in a room."""
    peers = control.peers(f"rooms/{room}")
    return JsonResponse({peer: (about or {}).get("name") for peer, about in peers.items()})
