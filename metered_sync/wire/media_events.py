"""Define the events of rooms, data channels and sources that are encoded already.

:class:`Data`, :class:`DCMessage` and what sources are told are *message-like*: see
:mod:`metered_sync.wire.events`. (They are apart because a dataclass takes long to make, and a
program that only sends messages needs none of these.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from metered_sync.wire.events import Event

__all__ = [
    "BitrateWanted",
    "ConnectionReset",
    "DCClose",
    "DCError",
    "DCMessage",
    "DCOpen",
    "Data",
    "FatalError",
    "IceCandidateError",
    "Joined",
    "KeyFrameWanted",
    "Left",
    "NegotiationError",
    "SpeakersChanged",
]


# --- rooms ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Joined(Event):
    """A room was joined."""

    peer_id: str
    """Who this peer is to the others."""
    channel: str


@dataclass(frozen=True)
class Left(Event):
    """A room was left: by ``close()``, or because the connection ended for good."""

    peer_id: str
    channel: str
    reason: str


@dataclass(frozen=True)
class Data(Event):
    """A member's message."""

    droppable: ClassVar[bool] = True

    sender_peer_id: str
    data: Any
    kind: Literal["broadcast", "direct"]
    """``"broadcast"`` to the whole room, or ``"direct"`` to this peer alone."""
    sender_metadata: dict[str, Any] | None = None


@dataclass(frozen=True)
class SpeakersChanged(Event):
    """Other members of the room speak than before."""

    speakers: tuple[str, ...]
    """Their ids, the loudest first."""


@dataclass(frozen=True)
class FatalError(Event):
    """The room has ended for good; make a new peer."""

    err: BaseException


@dataclass(frozen=True)
class ConnectionReset(Event):
    """The media connection to a member was made anew: reopen data channels."""


@dataclass(frozen=True)
class NegotiationError(Event):
    """Media could not be negotiated with a member; more attempts may follow."""

    err: BaseException


@dataclass(frozen=True)
class IceCandidateError(Event):
    """A network address that a member has offered cannot be used."""

    err: BaseException


# --- data channels --------------------------------------------------------------------


@dataclass(frozen=True)
class DCOpen(Event):
    """The data channel is open. There is none for a channel that was open from the start."""


@dataclass(frozen=True)
class DCMessage(Event):
    """A message has arrived on a data channel."""

    droppable: ClassVar[bool] = True

    data: str | bytes


@dataclass(frozen=True)
class DCClose(Event):
    """The data channel is closed, here, by the other side, or with its connection."""


@dataclass(frozen=True)
class DCError(Event):
    """A message that nobody waited for could not be sent."""

    err: Exception


# --- sources --------------------------------------------------------------------------


@dataclass(frozen=True)
class KeyFrameWanted(Event):
    """A receiver has just come, or has lost something: the encoder should make a key frame."""

    droppable: ClassVar[bool] = True


@dataclass(frozen=True)
class BitrateWanted(Event):
    """Receivers can take so much now: the encoder should keep to it."""

    droppable: ClassVar[bool] = True

    bitrate: int
    """Bits per second: the least that one of them reports."""
