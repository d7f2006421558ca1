"""Carry out what messaging clients ask for, or refuse it.

A refusal has words for the client, and others for the developer at this machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from metered_sync.local.broker import Broker
from metered_sync.local.connections import SendScheduler, Socket, text_frame
from metered_sync.local.meter import UsageMeter
from metered_sync.wire import frames
from metered_sync.wire.limits import MAX_CHANNELS
from metered_sync.wire.names import channel_problem, is_pattern, is_reserved, peer_id_problem

__all__ = ["RequestHandler"]

_MAX_REMEMBERED_CHANNELS = 1000
"""Channels that a connection remembers it may publish to."""


class RequestRefusedError(Exception):
    """A request is answered with an error frame."""

    def __init__(self, code: str, message: str, why: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.why = why or message
        """For the developer at this machine: more than the client is told."""


class RequestHandler:
    """Carry out the requests of all clients of an app, one frame at a time.

    Args:
        scheduler: When frames leave, and who looks on.
        broker: Channels and who has subscribed to them.
        meter: What is counted, and the plan's limits.
        limits: Whether the limit of channels per connection holds.
    """

    def __init__(
        self, scheduler: SendScheduler, broker: Broker, meter: UsageMeter, *, limits: bool
    ) -> None:
        self.on_message: Callable[[str, Any, str | None], None] | None = None
        """Told of each message that is passed on: its sender, its data, and to whom if direct."""
        self._scheduler = scheduler
        self._broker = broker
        self._meter = meter
        self._limits = limits
        self._requests: dict[str, Callable[[Socket, frames.ClientFrame], None]] = {
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "publish": self._publish,
            "send": self._send,
            "ping": self._ping,
        }

    def handle(self, socket: Socket, text: str | bytes) -> None:
        """Carry out what a frame asks for, and answer it."""
        if isinstance(text, bytes):
            problem = "a binary frame; only text frames are understood"
            refused = RequestRefusedError("malformed_message", problem)
            self._refuse(socket, text, refused, None)
            return
        log = self._scheduler.log
        if log is not None and log.recording:
            log.add(socket.peer_id, text, sent=True)
        watcher = self._scheduler.watcher
        if watcher is not None and watcher.watching:
            watcher.frame(socket.peer_id, text, sent=True)
        request_id = None
        try:
            frame = frames.parse_client_frame(text)
            request_id = frame.request_id
            self._requests[frame.type](socket, frame)
            return
        except frames.FrameError as error:
            request_id = error.request_id
            refused = RequestRefusedError(error.code, str(error))
        except RequestRefusedError as error:
            refused = error
        except ValueError:
            # Lone surrogates (escaped) and 1e999 can be read, but not be passed on.
            problem = "the data cannot be passed on as JSON"
            refused = RequestRefusedError("malformed_message", problem)
        self._refuse(socket, text, refused, request_id)

    def _refuse(
        self,
        socket: Socket,
        text: str | bytes,
        refused: RequestRefusedError,
        request_id: str | None,
    ) -> None:
        if self._scheduler.watcher is not None:
            self._scheduler.watcher.refused(socket.peer_id, text, refused.code, refused.why)
        socket.send(text_frame(frames.build_error(refused.code, str(refused), request_id)))

    def _acknowledge(self, socket: Socket, frame: frames.ClientFrame) -> None:
        if frame.request_id is not None:
            self._scheduler.acknowledge(socket, text_frame(frames.build_ack(frame.request_id)))

    def _ping(self, socket: Socket, frame: frames.ClientFrame) -> None:
        socket.send(text_frame(frames.build_pong(frame.request_id)))

    def _subscribe(self, socket: Socket, frame: frames.ClientFrame) -> None:
        name = _checked_channel(frame)
        _check_permission(socket, "subscribe")
        grant = socket.identity.grant
        if not (grant.covers_pattern(name) if is_pattern(name) else grant.covers(name)):
            raise _not_authorized(socket, name)
        if self._limits and len(socket.channels) >= MAX_CHANNELS and name not in socket.channels:
            raise RequestRefusedError(
                "channel_limit_exceeded", f"{MAX_CHANNELS} channels are subscribed already"
            )
        arrived = self._broker.join(socket, name, metadata=frame.include_sender_metadata)
        self._acknowledge(socket, frame)
        self._broker.show(socket, name)
        if arrived:
            self._broker.announce(socket, name, joined=True)

    def _unsubscribe(self, socket: Socket, frame: frames.ClientFrame) -> None:
        name = _checked_channel(frame)
        self._acknowledge(socket, frame)
        self._broker.leave(socket, name)

    def _publish(self, socket: Socket, frame: frames.ClientFrame) -> None:
        name = frame.channel
        # "in" alone would choke on what is not hashable.
        if not isinstance(name, str) or name not in socket.publishes:
            name = _checked_channel(frame)
            _check_permission(socket, "publish")
            if not socket.identity.grant.covers(name):
                raise _not_authorized(socket, name)
            if len(socket.publishes) >= _MAX_REMEMBERED_CHANNELS:
                socket.publishes.clear()
            socket.publishes.add(name)
        data = self._counted(frame)
        if self.on_message is not None:
            self.on_message(socket.peer_id, data, None)
        self._broker.publish(name, socket.peer_id, data, socket.identity.peer_metadata, socket)
        self._acknowledge(socket, frame)

    def _send(self, socket: Socket, frame: frames.ClientFrame) -> None:
        problem = "is missing" if frame.to is frames.MISSING else peer_id_problem(frame.to)
        if problem is not None:
            raise RequestRefusedError("invalid_peer_id", f'"to" {problem}')
        _check_permission(socket, "send")
        data = self._counted(frame)
        if not self._broker.direct(frame.to, socket.peer_id, data, socket.identity.peer_metadata):
            message = "the peer is not connected"
            raise RequestRefusedError("peer_not_found", message, f"nobody is {frame.to!r}")
        if self.on_message is not None:
            self.on_message(socket.peer_id, data, frame.to)
        self._acknowledge(socket, frame)

    def _counted(self, frame: frames.ClientFrame) -> Any:
        """Return a message's data, once it has been counted against the plan."""
        if frame.data is frames.MISSING:
            raise RequestRefusedError(
                "missing_data", f'a {frame.type} needs "data"; null is a value'
            )
        if not self._meter.message():
            raise RequestRefusedError("over_message_quota", "the plan's messages are used up")
        return frame.data


def _checked_channel(frame: frames.ClientFrame) -> str:
    """Return the channel that a request names, if a client may name it."""
    problem = "is missing" if frame.channel is frames.MISSING else channel_problem(frame.channel)
    if problem is not None:
        raise RequestRefusedError("invalid_channel", f"the channel {problem}")
    name: str = frame.channel
    if is_reserved(name):
        raise RequestRefusedError("channel_reserved", "the channel has a reserved prefix")
    return name


def _check_permission(socket: Socket, action: str) -> None:
    """Refuse what a connection's key or token has no permission for."""
    if not socket.may(action):
        actions = ", ".join(sorted(socket.identity.grant.actions)) or "nothing"
        raise RequestRefusedError(
            "action_not_permitted",
            f"the key or token lacks the permission {action!r}",
            f"{socket.peer_id!r} lacks the permission {action!r}; it may: {actions}",
        )


def _not_authorized(socket: Socket, name: str) -> RequestRefusedError:
    """Return the refusal of a channel, or a pattern, that a connection's rights do not cover."""
    groups = [group for group in socket.identity.grant.patterns if group != ("**",)]
    why = "; and ".join(", ".join(map(repr, group)) or "none" for group in groups)
    return RequestRefusedError(
        "channel_not_authorized",
        "no pattern covers the channel",
        f"{name!r} is not among the channels of {socket.peer_id!r}: {why}",
    )
