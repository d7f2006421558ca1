"""Know of one announced track of a member whether somebody reads it, and receive it then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.reader import Reader
from metered_sync.engine.sfu.tracks import Incoming
from metered_sync.engine.sfu_rooms.messages import AnnouncedTrack
from metered_sync.errors import MediaError
from metered_sync.wire.sfu import TrackInfo

__all__ = ["RoomTrack", "SubscribePolicy"]

SubscribePolicy = Literal["on-read", "all", "none"]
"""Which tracks are received: those that somebody reads, all, or none."""

LINGER = 5.0
"""Seconds for which a track is received after its last reader has gone."""
TOUCH_INTERVAL = 0.5
"""Seconds between two calls that are told to the receiver, of those that read now and then."""


class RoomTrack(Incoming):
    """A track that a member has announced. It is received while it is wanted, and not before."""

    def __init__(
        self,
        announced: AnnouncedTrack,
        session_id: str,
        peer_id: str,
        *,
        max_pixels: int,
        policy: SubscribePolicy,
        on_demand: Callable[[], None],
    ) -> None:
        """Prepare; ``on_demand`` is called on any thread once somebody reads the track."""
        super().__init__(_info(announced, session_id), max_pixels)
        self.stream_id = announced.stream_id
        self.peer_id = peer_id
        """The member that sends the track, under the id that it has now."""
        self.wanted_unread = policy == "all"
        """Whether the track is received though nobody reads it."""
        self.opened = monotonic()
        """The moment at which a reader was opened, or called, last."""
        self.subscribed: TrackInfo | None = None
        """The ids under which the track is received at present."""
        self.missing_since: float | None = None
        """The moment since which the SFU does not have the track."""
        self.retry_at = 0.0
        """The moment before which it is not asked for again."""
        self.retry_pause = 0.0
        self.asked_at: float | None = None
        """The moment at which the member was asked for its state, because of this track."""
        self._policy = policy
        self._on_demand = on_demand
        self._used = -LINGER
        self._told = 0.0

    # --- readers, on any thread ---

    def add(self, reader: Reader[Any]) -> None:
        """Spread frames to one more reader, and receive the track for it."""
        if self._policy == "none":
            raise MediaError(
                f"the {self.kind} track {self.name or self.id!r} is not received: the peer was "
                'made with subscribe="none"; make it with "on-read"'
            )
        super().add(reader)
        self.touch()

    def touch(self) -> None:
        """Note that a reader is opened or called just now."""
        now = self.opened = monotonic()
        if not self.attached_at:  # it was let go: what is still queued has become old
            for reader in self.readers:
                if reader.idle_since is not None:
                    reader.discard()
        if self.subscribed is None or now - self._told > TOUCH_INTERVAL:
            self._told = now
            self._on_demand()

    def take(self) -> None:
        """Receive the track though nobody reads it."""
        self.wanted_unread = True
        self._on_demand()

    # --- the loop ---

    def wanted_at(self, now: float) -> bool:
        """Return whether the track is to be received: somebody reads it, or did a moment ago."""
        if self.ended or self._policy == "none":
            return False
        for reader in self.readers:
            if not reader.ended:
                self._used = max(
                    self._used, now if reader.idle_since is None else reader.idle_since
                )
        return self.wanted_unread or now - self._used < LINGER

    def announce(self, announced: AnnouncedTrack, session_id: str) -> None:
        """Take over what the member says of the track now; look for it again."""
        self.info = _info(announced, session_id)
        self.id, self.name = announced.track_id, announced.name
        self.stream_id = announced.stream_id
        self.retry_at, self.retry_pause = 0.0, 0.0

    def refer(self, info: TrackInfo) -> None:
        """Leave the track as its member announces it: the SFU's lists say nothing new of it."""

    @property
    def outdated(self) -> bool:
        """Whether its member has said something of the track since it was subscribed to last."""
        return self.requested is not None and self.requested is not self.info

    def found(self) -> None:
        """Note that the track is received, under the ids that were asked for."""
        self.subscribed = self.requested
        self.missing_since, self.asked_at = None, None
        self.retry_at, self.retry_pause = 0.0, 0.0

    def let_go(self) -> None:
        """Note that the track is not received any more, which is no restart when it is again."""
        self.subscribed, self.transceiver, self.live = None, None, False
        self.attached_at = 0.0

    def lost(self) -> None:
        """Note that the track does not arrive any more, and has to be subscribed to anew."""
        self.subscribed, self.transceiver, self.live = None, None, False

    def retry_later(self, now: float, least: float, most: float) -> None:
        """Ask for the track again after a pause, which grows."""
        self.missing_since = self.missing_since or now
        self.retry_pause = min(max(self.retry_pause * 2, least), most)
        self.retry_at = now + self.retry_pause


def _info(announced: AnnouncedTrack, session_id: str) -> TrackInfo:
    return TrackInfo(session_id, announced.track_id, announced.name, announced.kind)
