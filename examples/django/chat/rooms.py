"""Say who may use which room, and what is answered where messaging fails."""

import logging

from django.http import JsonResponse

from metered_sync import MeteredError, MeteredTimeoutError

logger = logging.getLogger(__name__)


def may_use(user, room):
    """Say whether a user may hear a room, speak in it, and see who is there.

    Members of the staff may use every room, others those of the groups they are in.
    """
    return user.is_staff or user.groups.filter(name=room).exists()


def for_user(user):
    """Say what a user's token permits: to listen, in the rooms that :func:`may_use` says."""
    rooms = ["*"] if user.is_staff else user.groups.values_list("name", flat=True)
    return {
        "peer_id": f"user-{user.pk}",
        "channels": [f"rooms/{room}" for room in rooms],
        "permissions": ["subscribe", "presence"],
        "ttl": 600,
        "peer_metadata": {"name": user.get_username()},
    }


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
