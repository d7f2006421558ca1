"""Open this process's connection to Realtime Messaging when it is first needed."""

import logging
import os
import threading
import time

from django.conf import settings
from django.http import JsonResponse

from metered_sync import (
    MeteredError,
    MeteredTimeoutError,
    NotConnectedError,
    SignallingClient,
    mint_token,
)

logger = logging.getLogger(__name__)
_lock = threading.Lock()
_client = None
_owner = None
_down_until = 0.0


def get_client():
    """Return a connected client that all threads of this process share.

    A connection cannot be taken along when a server forks its workers, so each opens its own.
    A lost connection comes back by itself; one that ended for good is opened anew here. Where
    that fails, it is not tried again for two seconds.
    """
    global _client, _owner, _down_until
    with _lock:
        if _owner != os.getpid() or _client.state == "closed":
            if time.monotonic() < _down_until:  # whoever waits for the lock need not try, too
                raise NotConnectedError("connecting has failed a moment ago")
            client = SignallingClient(token_provider=_own_token, url=settings.METERED_URL)
            try:
                client.connect(timeout=5)
            except MeteredError:
                _down_until = time.monotonic() + 2
                raise
            _client, _owner = client, os.getpid()
        return _client


def _own_token():
    """Sign a token for the server itself: it publishes, and nothing else."""
    return mint_token(
        settings.METERED_KEY_ID,
        settings.METERED_KEY_SECRET,
        peer_id=f"web-{os.getpid()}",
        permissions=["publish"],
    )


def may_use(user, room):
    """Say whether a user may hear a room, speak in it, and see who is there.

    Members of the staff may use every room, others those of the groups they are in.
    """
    return user.is_staff or user.groups.filter(name=room).exists()


def token_for(user):
    """Sign a token for a user, for the rooms that :func:`may_use` permits.

    Signing asks nobody, so it costs microseconds.
    """
    rooms = ["*"] if user.is_staff else user.groups.values_list("name", flat=True)
    return mint_token(
        settings.METERED_KEY_ID,
        settings.METERED_KEY_SECRET,
        peer_id=f"user-{user.pk}",
        channels=[f"rooms/{room}" for room in rooms],
        permissions=["subscribe", "presence"],
        ttl=600,
        peer_metadata={"name": user.get_username()},
    )


class FailuresAnswered:
    """Middleware: where messaging fails, tell the user so, and the log why."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return self.get_response(request)

    def process_exception(self, request, error):
        if not isinstance(error, MeteredError):
            return None
        logger.warning("%s", error)  # no key or token is ever in there
        late = isinstance(error, MeteredTimeoutError)
        answer = {"error": "messaging is not available"}
        return JsonResponse(answer, status=504 if late else 503)
