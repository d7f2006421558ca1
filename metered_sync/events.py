"""The events that clients emit: frozen values, one class for each kind.

Register for a class with ``client.on(Message, fn)``, queue a class with
``client.events(Message)``, or wait for one with ``client.wait_for(Message)``.
Registering for :class:`Event` means all of them.

:class:`Message`, :class:`Direct`, :class:`Presence`, :class:`Data`, :class:`DCMessage` and what
:class:`~metered_sync.EncodedSource` is told are
*message-like*: a full queue may drop them, and counts what it dropped. All others are
*lifecycle* events: ten times as many may wait as the queue holds; beyond that it keeps the
newest of each kind and member.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from metered_sync.wire.events import (
    Connected,
    Direct,
    Disconnected,
    Event,
    GoingAway,
    IceServer,
    IceServerConfig,
    Message,
    Outage,
    Presence,
    PresencePeer,
    ServerError,
    StateChange,
    TokenProviderError,
)
from metered_sync.wire.media_events import (
    BitrateWanted,
    ConnectionReset,
    Data,
    DCClose,
    DCError,
    DCMessage,
    DCOpen,
    FatalError,
    IceCandidateError,
    Joined,
    KeyFrameWanted,
    Left,
    NegotiationError,
    SpeakersChanged,
)

if TYPE_CHECKING:  # (what these events carry emits them)
    from metered_sync.data_channel import DataChannel
    from metered_sync.media.tracks.stream import MediaStream
    from metered_sync.media.tracks.track import RemoteTrack
    from metered_sync.publication import Publication
    from metered_sync.remote_peer import RemotePeer

__all__ = [
    "BitrateWanted",
    "Connected",
    "ConnectionReset",
    "DCClose",
    "DCError",
    "DCMessage",
    "DCOpen",
    "Data",
    "DataChannelOpened",
    "Direct",
    "Disconnected",
    "Event",
    "FatalError",
    "GoingAway",
    "IceCandidateError",
    "IceServer",
    "IceServerConfig",
    "Joined",
    "KeyFrameWanted",
    "Left",
    "Message",
    "NegotiationError",
    "Outage",
    "PeerJoined",
    "PeerLeft",
    "Presence",
    "PresencePeer",
    "Republished",
    "ServerError",
    "SpeakersChanged",
    "StateChange",
    "StreamAdded",
    "StreamRemoved",
    "TokenProviderError",
    "Track",
    "TrackEnded",
]


OBJECT_SIZE = 8192
"""Bytes that an event counts which carries an object of ours: a queue keeps that alive."""


@dataclass(frozen=True)
class PeerJoined(Event):
    """A member has come, or come back: then it is the same object as before."""

    frame_size: ClassVar[int] = OBJECT_SIZE
    peer: RemotePeer

    @property
    def _subject(self) -> tuple[str, ...]:
        return "presence", self.peer.id


@dataclass(frozen=True)
class PeerLeft(Event):
    """A member has left the room, or its connection to the service is gone."""

    frame_size: ClassVar[int] = OBJECT_SIZE
    peer: RemotePeer

    @property
    def _subject(self) -> tuple[str, ...]:
        return "presence", self.peer.id


@dataclass(frozen=True)
class Track(Event):
    """A member sends a track: for the first time, or again."""

    frame_size: ClassVar[int] = OBJECT_SIZE
    track: RemoteTrack
    streams: tuple[MediaStream, ...]
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True)
class TrackEnded(Event):
    """A received track has ended: no more frames will come."""

    frame_size: ClassVar[int] = OBJECT_SIZE
    track: RemoteTrack


@dataclass(frozen=True)
class StreamAdded(Event):
    """A member sends the first track of a stream."""

    frame_size: ClassVar[int] = OBJECT_SIZE
    stream: MediaStream
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True)
class StreamRemoved(Event):
    """A member sends no track of a stream any more."""

    frame_size: ClassVar[int] = OBJECT_SIZE
    stream: MediaStream


@dataclass(frozen=True)
class DataChannelOpened(Event):
    """A member has opened a data channel."""

    frame_size: ClassVar[int] = OBJECT_SIZE
    channel: DataChannel


@dataclass(frozen=True)
class Republished(Event):
    """The session was lost, and a track is published again in the one that replaces it."""

    publication: Publication
    """The publication, with its new ``session_id`` and ``track_id``."""
    old_session_id: str
    old_track_id: str
