"""Keep the tracks that a client publishes and subscribes to, over all its sessions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiortc import RTCRtpTransceiver

from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.link import EventSink
from metered_sync.engine.sending.local_track import LocalTrack, Outlet
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.engine.webrtc.stats import Sent
from metered_sync.wire.key_frames import MAX_PIXELS
from metered_sync.wire.sfu import TrackInfo

__all__ = ["Incoming", "Outgoing", "SfuSink"]


@dataclass(eq=False)
class Outgoing:
    """A track that is published, on this session or on one after it."""

    local: LocalTrack
    name: str | None
    owned: bool = True
    """Whether the local track is this publication's alone: then it is closed with it, and its
    end unpublishes it."""
    session_id: str = ""
    track_id: str = ""
    mid: str = ""
    closed: bool = False
    """Whether the track is not to be published (any more)."""
    sent: Sent = field(default_factory=Sent)
    handle: Callable[[], Any] = lambda: None
    """Returns the user's object for the publication, while there is one."""
    transceiver: RTCRtpTransceiver | None = None
    outlet: Outlet | None = None
    """The track that is sent on the present connection."""

    def info(self) -> TrackInfo:
        """Return the ids, name and kind that subscribers need."""
        return TrackInfo(self.session_id, self.track_id, self.name, self.local.kind, self.mid)

    def release(self) -> None:
        """Take the track off its connection. Its source goes on."""
        if self.transceiver is not None:
            self.transceiver.sender.replaceTrack(None)
        if self.outlet is not None:
            self.outlet.close()
        self.transceiver = self.outlet = None

    def close(self) -> None:
        """Publish the track no longer. Its source goes on: it is the user's."""
        self.closed = True
        if self.owned:
            self.local.close()

    async def keep_counts(self) -> None:
        """Remember the counts of a connection that is about to go."""
        if self.transceiver is not None and self.outlet is not None:
            await self.sent.keep(self.transceiver.sender, self.outlet.frames)

    async def sample(self) -> dict[str, Any]:
        """Return the counts so far; bit rates are taken from such samples."""
        sender = None if self.transceiver is None else self.transceiver.sender
        frames = 0 if self.outlet is None else self.outlet.frames
        counts = await self.sent.stats(sender, frames)
        return {"kind": self.local.kind, "id": self.track_id, "name": self.name, **counts}


class Incoming(IncomingTrack):
    """A track that is subscribed to, on this session or on one after it."""

    def __init__(self, info: TrackInfo, max_pixels: int = MAX_PIXELS) -> None:
        super().__init__(
            info.kind,
            id=info.track_id,
            name=info.name,
            stream_id=info.session_id,
            max_pixels=max_pixels,
        )
        self.info = info
        self.requested: TrackInfo | None = None
        """The ids that were subscribed to last: others may have come meanwhile."""
        self.transceiver: RTCRtpTransceiver | None = None
        """The transceiver on which the track arrives, or did."""
        self.live = False
        """Whether the track still arrives there."""
        self.mid = ""
        self.own_id = ""
        """The id by which the SFU calls the track in this session's descriptions."""
        self.attached_at = 0.0
        self.listed = bool(info.kind)
        """Whether its publisher has been seen to have it."""
        self.look_at = 0.0
        """The moment of the next look at the publisher, if the track stays silent."""
        self.pause = 0.0
        """Seconds from that look to the one after it."""
        self.gone_at: float | None = None
        """The moment since which the publisher's session has been gone."""
        self.gone_from = ""
        """The id of that session."""
        self.sought_since: float | None = None
        """The same moment, once the track has been found by its name."""

    def refer(self, info: TrackInfo) -> None:
        """Subscribe to this track from now on."""
        self.info = info
        self.id, self.stream_id = info.track_id, info.session_id
        self.name = info.name or self.name

    def learn(self, info: TrackInfo) -> None:
        """Take over what its publisher's session lists: above all the name."""
        self.refer(info)
        self.listed = True

    def attach(self, transceiver: RTCRtpTransceiver) -> None:
        """Note the transceiver on which the track arrives from now on."""
        if self.attached_at:
            self.restarts += 1
        self.kind, self.mid = transceiver.kind, str(transceiver.mid)
        self.transceiver, self.live = transceiver, True
        self.attached_at = monotonic()
        self.gone_at, self.pause, self.look_at = None, 0.0, 0.0

    def silence(self, now: float) -> float:
        """Return the seconds since the latest frame, or since it was subscribed to."""
        return now - max(self.last, self.attached_at)


class SfuSink(EventSink, Protocol):
    """Take what happens to an SFU link to the face; on the loop, without blocking."""

    def republished(self, publication: Any, session_id: str, track_id: str) -> None:
        """Tell that a publication has other ids than these now."""

    def unpublished(self, publication: Any) -> None:
        """Tell that a publication is no more: its source has ended."""

    def track_ended(self, incoming: Incoming) -> None:
        """Tell that a received track has ended."""
