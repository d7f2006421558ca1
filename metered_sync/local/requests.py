"""Check what a messaging client asks for, and refuse it: in words for it, and for the developer."""

from __future__ import annotations

from metered_sync.local.connections import Socket
from metered_sync.wire import frames
from metered_sync.wire.names import channel_problem, is_reserved

__all__ = ["RequestRefusedError", "check_permission", "checked_channel", "not_authorized"]


class RequestRefusedError(Exception):
    """A request is answered with an error frame."""

    def __init__(self, code: str, message: str, why: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.why = why or message
        """For the developer at this machine: more than the client is told."""


def checked_channel(frame: frames.ClientFrame) -> str:
    """Return the channel that a request names, if a client may name it."""
    problem = "is missing" if frame.channel is frames.MISSING else channel_problem(frame.channel)
    if problem is not None:
        raise RequestRefusedError("invalid_channel", f"the channel {problem}")
    name: str = frame.channel
    if is_reserved(name):
        raise RequestRefusedError("channel_reserved", "the channel has a reserved prefix")
    return name


def check_permission(socket: Socket, action: str) -> None:
    """Refuse what a connection's key or token has no permission for."""
    if not socket.may(action):
        actions = ", ".join(sorted(socket.identity.grant.actions)) or "nothing"
        raise RequestRefusedError(
            "action_not_permitted",
            f"the key or token lacks the permission {action!r}",
            f"{socket.peer_id!r} lacks the permission {action!r}; it may: {actions}",
        )


def not_authorized(socket: Socket, name: str) -> RequestRefusedError:
    """Return the refusal of a channel, or a pattern, that a connection's rights do not cover."""
    groups = [group for group in socket.identity.grant.patterns if group != ("**",)]
    why = "; and ".join(", ".join(map(repr, group)) or "none" for group in groups)
    return RequestRefusedError(
        "channel_not_authorized",
        "no pattern covers the channel",
        f"{name!r} is not among the channels of {socket.peer_id!r}: {why}",
    )
