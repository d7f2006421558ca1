"""Define the events of a connection to the messaging service: a frozen class for each kind.

Those of rooms, data channels and sources are in :mod:`metered_sync.wire.media_events`; those that
carry an object of the face (a member, a track, a publication) in :mod:`metered_sync.events`, which
re-exports all.

:class:`Message`, :class:`Direct` and :class:`Presence` are *message-like*: a full queue may drop
them, and counts what it dropped. All others are *lifecycle* events: ten times as many may wait as
the queue holds; beyond that it keeps the newest of each kind and member.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from metered_sync.wire.fields import copied
from metered_sync.wire.secrets import cut_secrets

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Connected",
    "Direct",
    "Disconnected",
    "Event",
    "GoingAway",
    "IceServer",
    "IceServerConfig",
    "Message",
    "Outage",
    "Presence",
    "PresencePeer",
    "ServerError",
    "StateChange",
    "TokenProviderError",
    "own_copy",
    "sized",
]

E = TypeVar("E", bound="Event")


@dataclass(frozen=True)
class IceServer:
    """A STUN or TURN server, as WebRTC's ``RTCIceServer``."""

    urls: tuple[str, ...]
    """One or more ``stun:``, ``stuns:``, ``turn:`` or ``turns:`` addresses; a string is one."""
    username: str | None = None
    credential: str | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            urls: str | Sequence[str],
            username: str | None = None,
            credential: str | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        urls: Any = self.urls
        if isinstance(urls, (str, list)):  # as browsers and aiortc write it
            object.__setattr__(self, "urls", (urls,) if isinstance(urls, str) else tuple(urls))

    def __repr__(self) -> str:
        secret = ", username=…, credential=…" if self.username or self.credential else ""
        return cut_secrets(f"IceServer(urls={self.urls!r}{secret})")

    def as_dict(self) -> dict[str, Any]:
        """Return the server as JSON has it: for a browser, or for a token's metadata."""
        fields = {"username": self.username, "credential": self.credential}
        urls = self.urls[0] if len(self.urls) == 1 else list(self.urls)
        return {"urls": urls, **{name: text for name, text in fields.items() if text is not None}}


IceServerConfig = IceServer
"""The name of :class:`IceServer` in the async client."""


@dataclass(frozen=True)
class PresencePeer:
    """One member of a channel."""

    peer_id: str
    metadata: dict[str, Any] | None = None
    """The ``peerMetadata`` of the member's token, where it has one."""


@dataclass(frozen=True)
class Event:
    """The base of all events."""

    droppable: ClassVar[bool] = False
    """Whether a full queue may drop events of this class."""
    frame_size: ClassVar[int] = 0
    """Bytes of the frame, or message, that brought the event, or what the object in it counts."""

    @property
    def _subject(self) -> tuple[str, ...]:
        """The key of what the event tells of: a newer one of the same key makes it obsolete."""
        return (type(self).__name__,)


def sized(event: E, size: int) -> E:
    """Note the bytes of the frame that brought an event; return the event."""
    object.__setattr__(event, "frame_size", size)
    return event


def own_copy(event: E) -> E:
    """Return an equal event for one more reader: the data in it are its own."""
    fields = vars(event)
    own = {name: _own(value) for name, value in fields.items()}
    if all(own[name] is value for name, value in fields.items()):
        return event  # nothing in it can be changed
    twin = copy(event)
    vars(twin).update(own)
    return twin


def _own(value: Any) -> Any:
    """Return data that can be changed as a copy, and all else as it is."""
    if isinstance(value, PresencePeer):
        return PresencePeer(value.peer_id, copied(value.metadata))
    if isinstance(value, tuple) and any(isinstance(one, PresencePeer) for one in value):
        return tuple(_own(one) for one in value)
    return copied(value)


@dataclass(frozen=True)
class StateChange(Event):
    """The object's ``state`` changed."""

    from_: str
    to: str


@dataclass(frozen=True)
class Connected(Event):
    """The server's welcome has arrived: the first time, and after each reconnect."""

    peer_id: str
    server_time: float
    """The server's clock, unix seconds."""
    expires_at: float | None
    """When the token expires, unix seconds; ``None`` for a publishable key."""
    is_reconnect: bool
    max_message_size: int
    """The largest frame the server accepts, in bytes."""
    ice_servers: tuple[IceServer, ...] | None = None
    metadata: dict[str, Any] | None = None
    """The ``metadata`` of the key or token, without the ICE servers in it."""


@dataclass(frozen=True)
class Disconnected(Event):
    """The connection is gone. Without ``will_reconnect`` this is for good."""

    code: int
    reason: str
    will_reconnect: bool


@dataclass(frozen=True)
class Outage(Event):
    """An outage is over: messages sent to this client meanwhile are lost."""

    duration: float
    """Seconds from the loss of the connection until its subscriptions were back."""


@dataclass(frozen=True)
class Message(Event):
    """A message published to a channel."""

    droppable: ClassVar[bool] = True

    channel: str
    sender_peer_id: str
    data: Any
    sender_metadata: dict[str, Any] | None = None
    """Only with ``include_sender_metadata``, and where the sender's token has some."""


@dataclass(frozen=True)
class Direct(Event):
    """A message sent to this client alone."""

    droppable: ClassVar[bool] = True

    sender_peer_id: str
    data: Any
    sender_metadata: dict[str, Any] | None = None


@dataclass(frozen=True)
class Presence(Event):
    """Members joined or left a channel. The first one after subscribing lists who is there."""

    droppable: ClassVar[bool] = True

    channel: str
    joined: tuple[PresencePeer, ...]
    left: tuple[PresencePeer, ...]


@dataclass(frozen=True)
class ServerError(Event):
    """The server reported an error that belongs to no call of yours.

    After a reconnect that is also a subscription which the server would not take again, with
    its code, or did not acknowledge, with the code ``"subscription_lost"``. Its readers end.
    """

    code: str
    message: str | None = None
    request_id: str | None = None


@dataclass(frozen=True)
class GoingAway(Event):
    """The server is about to restart; the client reconnects after the delay."""

    retry_after_ms: int


@dataclass(frozen=True)
class TokenProviderError(Event):
    """The token provider failed three times or more in a row; attempts go on."""

    consecutive_failures: int
    err: Exception
