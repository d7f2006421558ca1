"""Share one core between a remote track and all of its readers."""

from __future__ import annotations

from typing import Any

from metered_sync.bridge import guard
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.engine.webrtc.relay import RelayedTrack
from metered_sync.media.pixels import PixelConverter
from metered_sync.media.tracks.shared_frames import FrameCopier

__all__ = ["TrackCore"]


class TrackCore:
    """The part of a :class:`RemoteTrack` that its readers hold: frames, client and converters.

    A reader that holds the core keeps the client alive, and needs to know nothing of the
    track's other readers.
    """

    def __init__(self, incoming: IncomingTrack, owner: Any) -> None:
        """Share an incoming track; ``owner`` is the client that must outlive its readers."""
        self.incoming = incoming
        """The engine's side of the track, which spreads its frames over the readers."""
        self.metadata: dict[str, Any] | None = None
        """What its sender has told about it."""
        self.owner = owner
        """The client, or remote peer, that the track belongs to."""
        self.copier = FrameCopier()
        """Gives each reader frames of its own."""
        self.converter = PixelConverter()
        """Makes arrays of frames, for all readers."""
        self.born = guard.generation()
        """The process that the track was made in."""
        self.hub = incoming.hub
        """Hands the track's events to those who listen."""
        self.hub.label = self.label
        self._relay: RelayedTrack | None = None

    @property
    def relay(self) -> RelayedTrack:
        """The one track of aiortc's that this track is sent on as."""
        self.check_process()
        if self._relay is None:
            made = RelayedTrack(self.incoming)
            if self._relay is None:  # (no call between the two: they are one step)
                self._relay = made
        return self._relay

    @property
    def label(self) -> str:
        """The track in words, for messages and ``repr``."""
        return f"{self.incoming.kind} track {self.incoming.name or self.incoming.id!r}"

    def check_process(self) -> None:
        """Raise :class:`ForkedError` in a child of the process that the track was made in."""
        guard.check_process(self.born, self.label)
