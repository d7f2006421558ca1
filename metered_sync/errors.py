"""Define every error that this library raises.

One tree; catch :class:`MeteredError` for all of it::

    MeteredError  (alias MeteredRealtimeError)
    ├── MeteredTimeoutError          a deadline passed (also a built-in TimeoutError)
    ├── CancelledError               a delivery that you cancelled (also concurrent.futures')
    ├── ClosedError                  the object was closed, here, by you
    ├── ForkedError                  the object belongs to the parent process
    ├── WrongThreadError             a blocking call on the event-loop thread itself
    ├── EngineError                  the background event loop died
    ├── SignallingError
    │   ├── NotConnectedError        the frame never left: safe to retry
    │   ├── SignallingConnectError   connect() failed
    │   ├── ServerRequestError       the server refused one request
    │   ├── AckTimeoutError          no acknowledgement in time (also MeteredTimeoutError)
    │   ├── DisconnectedError        the connection ended; what was in flight may have arrived
    │   ├── OversizedPayloadError    the frame is larger than the server accepts
    │   └── ReconcileTimeoutError    the server did not list a room's members
    ├── MeteredPeerSendError         a message or channel that a room cannot take
    ├── MeteredPeerStateError        a call that does not fit the state of a peer
    ├── MeteredPeerReplaceTrackError a track could not be replaced for every member
    ├── RestError                    one REST call failed
    │   ├── ControlPlaneError        to the control plane
    │   ├── TurnError                to the TURN service
    │   └── SfuError                 to the SFU
    │       ├── SfuAuthError         401, 403: wrong app id or secret
    │       ├── SfuNotFoundError     404: unknown session or track
    │       └── SfuConflictError     409: another negotiation is under way
    ├── DataChannelOverflowError     a data channel's buffer is full
    ├── NegotiationFailedError       WebRTC could not be set up; ``stage`` says how far it came
    └── MediaError                   a source or sink of media cannot be used
        └── MediaNotFoundError       no such file (also a built-in FileNotFoundError)

Mistakes in a call's arguments are plain ``ValueError`` and ``TypeError``.
Messages name the object, the stage and the remedy, and never a key, a token
or a secret. All of these can be pickled.
"""

from __future__ import annotations

import concurrent.futures
import copy
from dataclasses import dataclass
from typing import Any

from metered_sync.wire.secrets import cut_secrets

__all__ = [
    "AckTimeoutError",
    "CancelledError",
    "ClosedError",
    "ControlPlaneError",
    "DataChannelOverflowError",
    "DisconnectedError",
    "EngineError",
    "ForkedError",
    "MediaError",
    "MediaNotFoundError",
    "MeteredError",
    "MeteredPeerOversizedError",
    "MeteredPeerReplaceTrackError",
    "MeteredPeerSendError",
    "MeteredPeerStateError",
    "MeteredRealtimeError",
    "MeteredTimeoutError",
    "NegotiationFailedError",
    "NotConnectedError",
    "OversizedPayloadError",
    "ReconcileTimeoutError",
    "ReplaceTrackFailure",
    "RestError",
    "ServerRequestError",
    "SfuAuthError",
    "SfuConflictError",
    "SfuError",
    "SfuNotFoundError",
    "SignallingConnectError",
    "SignallingError",
    "TurnError",
    "WrongThreadError",
    "fresh",
    "raise_fresh",
]


def _rebuild(kind: type[MeteredError], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def fresh(error: BaseException) -> BaseException:
    """Return a copy of an error that ends several calls.

    Raising one object in several threads would let their tracebacks grow into each other.
    """
    twin = copy.copy(error)
    twin.__cause__ = error.__cause__
    return twin


def raise_fresh(error: BaseException | None) -> None:
    """Raise a copy of an error that ends several calls, if there is one."""
    if error is not None:
        raise fresh(error)


class MeteredError(Exception):
    """The root of all errors of this library."""

    def __init__(self, *args: Any) -> None:
        # A name that it quotes may be a key in the wrong place.
        super().__init__(*(cut_secrets(one) if isinstance(one, str) else one for one in args))

    def __reduce__(self) -> Any:
        # Exception's own recipe calls the class with ``args`` (the message alone),
        # which does not fit the constructors below.
        return _rebuild, (type(self), self.args, dict(self.__dict__))


MeteredRealtimeError = MeteredError
"""The root's name in the async client."""


class MeteredTimeoutError(MeteredError, TimeoutError):
    """A deadline passed; the work behind the call has been cancelled."""

    def __init__(self, message: str, *, sent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        """Whether a frame or request had already left this machine's hands."""


class CancelledError(MeteredError, concurrent.futures.CancelledError):
    """You cancelled a delivery before it left."""


class ClosedError(MeteredError):
    """The object is closed."""


class ForkedError(MeteredError):
    """The object was made in the parent process and cannot be used after ``os.fork()``."""


class WrongThreadError(MeteredError):
    """A blocking call was made where it would wait for itself.

    That is on the event-loop thread; or in a signal handler or finalizer that has interrupted
    another call at a moment at which it holds something.
    """


class EngineError(MeteredError):
    """The background event loop is gone; ``__cause__`` has the original traceback."""


# --- signalling -----------------------------------------------------------------------


class SignallingError(MeteredError):
    """Something about the messaging connection failed."""


class NotConnectedError(SignallingError):
    """There is no connection and the frame never left: the call may safely be repeated."""


class SignallingConnectError(SignallingError):
    """The connection could not be established."""

    def __init__(
        self, message: str, *, close_code: int, close_reason: str, retry_after: float = 0.0
    ) -> None:
        super().__init__(message)
        self.close_code = close_code
        """The WebSocket close code, the HTTP status of a refused upgrade, or 1006."""
        self.close_reason = close_reason
        """The server's words, or the name of the transport error."""
        self.retry_after = retry_after
        """Seconds that a server which refused the upgrade asks to wait, or 0."""


class ServerRequestError(SignallingError):
    """The server answered one request with an error; the connection stays up."""

    def __init__(self, message: str, *, code: str, request_id: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        """The server's code, for instance ``"channel_not_authorized"``; an open set."""
        self.request_id = request_id


class AckTimeoutError(SignallingError, MeteredTimeoutError):
    """The server did not acknowledge a frame before the deadline."""

    def __init__(
        self, message: str, *, request_id: str, timeout: float, sent: bool = False
    ) -> None:
        MeteredTimeoutError.__init__(self, message, sent=sent)
        self.request_id = request_id
        self.timeout = timeout
        """The time allowed, in seconds."""


class DisconnectedError(SignallingError):
    """The connection ended. A frame in flight may or may not have been delivered."""

    def __init__(self, message: str, *, code: int = 1006, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        """The WebSocket close code (1006: no close frame was received)."""
        self.reason = reason
        """The server's words; informational."""


class OversizedPayloadError(SignallingError):
    """The whole frame, in UTF-8 bytes, is larger than the server accepts."""

    def __init__(self, message: str, *, size: int, cap: int) -> None:
        super().__init__(message)
        self.size = size
        """Bytes of the frame."""
        self.cap = cap
        """Bytes that the server accepts."""


MeteredPeerOversizedError = OversizedPayloadError
"""The same under the async client's name."""


# --- REST -----------------------------------------------------------------------------


class RestError(MeteredError):
    """A REST call was refused, or not answered as it should be."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        sent: bool = True,
        retry_after: float = 0.0,
        endpoint: str = "",
        body: Any = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status, or ``None`` where no answer arrived."""
        self.code = code
        """The service's code, for instance ``"channel_not_authorized"``; an open set."""
        self.sent = sent
        """Whether the request may have reached the service; if not, it may be repeated."""
        self.retry_after = retry_after
        """Seconds that the service asks to wait before the next attempt, or 0."""
        self.endpoint = cut_secrets(endpoint)
        """Method and path, without host and secret."""
        self.body = body
        """The parsed JSON of the refusal, or an excerpt of its text. Of the SFU, also the JSON of
        an answer that could not be understood; ``None`` for the others, as it may be a secret."""


class ControlPlaneError(RestError):
    """A call to the control plane failed."""


class TurnError(RestError):
    """A call to the TURN service failed."""


class SfuError(RestError):
    """A call to the SFU failed."""


class SfuAuthError(SfuError):
    """The SFU does not accept the app id or the secret (401, 403)."""


class SfuNotFoundError(SfuError):
    """The SFU knows no such session or track (404)."""


class SfuConflictError(SfuError):
    """Another negotiation of the same session is under way (409)."""


# --- rooms ----------------------------------------------------------------------------


class MeteredPeerSendError(MeteredError):
    """A room cannot take a message, or a channel."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code
        """``"reserved_channel"``, ``"not_joined"``, ``"invalid_args"`` or ``"self_send"``."""


class MeteredPeerStateError(MeteredError):
    """A call does not fit the state of a peer."""

    def __init__(self, message: str, *, code: str, method: str, current_state: str) -> None:
        super().__init__(message)
        self.code = code
        """``"invalid_state"`` or ``"track_already_attached"``."""
        self.method = method
        self.current_state = current_state


@dataclass(frozen=True)
class ReplaceTrackFailure:
    """Name a member for whom a track could not be replaced, and the error."""

    peer_id: str
    err: BaseException


class MeteredPeerReplaceTrackError(MeteredError):
    """A track could not be replaced for every member."""

    def __init__(
        self,
        message: str,
        *,
        succeeded: tuple[str, ...] = (),
        failed: tuple[ReplaceTrackFailure, ...] = (),
    ) -> None:
        super().__init__(message)
        self.succeeded = succeeded
        """Ids of the members that get the new track."""
        self.failed = failed


class ReconcileTimeoutError(SignallingError, MeteredTimeoutError):
    """The server did not list a room's members."""

    def __init__(self, message: str) -> None:
        MeteredTimeoutError.__init__(self, message, sent=True)


# --- media --------------------------------------------------------------------


class NegotiationFailedError(MeteredError):
    """A WebRTC connection could not be set up."""

    def __init__(self, message: str, *, stage: str) -> None:
        super().__init__(message)
        self.stage = stage
        """How far it came: ``"offer"``, ``"answer"``, ``"ICE"``, ``"DTLS"``, ``"first frame"``."""


class DataChannelOverflowError(MeteredError):
    """A data channel's buffer is full, or too many sends wait for it to open."""

    def __init__(self, message: str, *, queued: int, cap: int) -> None:
        super().__init__(message)
        self.queued = queued
        """Bytes that are in the buffer, or sends that wait for the channel to open."""
        self.cap = cap
        """How many there may be."""


class MediaError(MeteredError):
    """A file, device or track cannot be used for media."""


class MediaNotFoundError(MediaError, FileNotFoundError):
    """There is no such media file."""
