"""Hold one media section of a connection, and send a track of ours in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from aiortc import RTCRtpTransceiver

from metered_sync.bridge.clock import monotonic
from metered_sync.engine.sending.local_track import LocalTrack, Outlet
from metered_sync.engine.webrtc.aiortc_private.negotiation import retire
from metered_sync.engine.webrtc.aiortc_private.sending import name_stream
from metered_sync.engine.webrtc.stats import SAMPLE_INTERVAL, Sent
from metered_sync.engine.webrtc.stream_formats import StreamFormat

__all__ = ["Slot"]

WITH_SENDING = ("sendrecv", "sendonly")


@dataclass(eq=False)
class Slot:
    """A section's place in the descriptions of a connection, and our track in it."""

    kind: str
    """``"audio"``, ``"video"`` or ``"application"``."""
    mid: str = ""
    ours: bool = False
    """Whether we made it."""
    agreed: bool = False
    """Whether the other side has described it, too."""
    rejected: bool = False
    given_up: bool = False
    """Whether it was refused when we offered it: another section may take its place."""
    former: Slot | None = None
    """The section that was given up, in whose place this one is offered."""
    local: LocalTrack | None = None
    """Our track in it."""
    format: StreamFormat | None = None
    """The one codec that is sent here, where that is encoded already."""
    refused: bool = False
    """Whether the other side does not want to receive here."""
    transceiver: RTCRtpTransceiver | None = None
    """Of the present generation, as are the following fields."""
    outlet: Outlet | None = None
    heard: bool = False
    """Whether the other side sends here, as it last said."""
    room: bool = False
    """Whether the other side was ready to receive when it last described the section."""
    announced: str = ""
    """The id of the track that was attached: a track that replaces it does not change it."""
    told: str = ""
    """The same, as of our latest description."""
    counted: tuple[float, int] = (-math.inf, 0)
    """When the bytes sent were last counted (``time.monotonic()``), and how many there were."""
    bitrate: float = 0.0
    """Bits per second up to then."""

    def attach(self, local: LocalTrack) -> None:
        """Send a track here, as from the next description on."""
        transceiver = self.transceiver
        assert transceiver is not None
        if self.outlet is None:
            self.outlet, self.counted = local.outlet(), (monotonic(), 0)
        else:  # (a sender that waits for a track's next frame would never notice another one)
            self.outlet.switch(local)
        # Read when a description is made, like the stream's id, for which there is no parameter.
        transceiver.sender.replaceTrack(self.outlet)
        self.outlet.attach(transceiver.sender)
        name_stream(transceiver.sender, local.stream_id or "-")
        transceiver.direction = "sendrecv"
        self.local, self.refused, self.announced = local, False, local.id
        self.format = local.format

    def suits(self, local: LocalTrack, *, crowded: bool = False) -> bool:
        """Return whether a track may be attached here."""
        if self.kind != local.kind or self.transceiver is None or self.local is not None:
            return False
        if self.refused or self.rejected or not (self.ours or self.room):
            return False
        if self.format != local.format:
            return False
        return not local.apart or crowded or (self.ours and self.announced == local.id)

    def detach(self) -> None:
        """Send nothing here, as from the next description on."""
        self.local = None
        if self.outlet is not None:
            self.outlet.switch(None)
        if self.transceiver is not None:
            self.transceiver.direction = "recvonly"

    def retire(self) -> None:
        """Have aiortc leave the section out, in whose place another one is described."""
        if self.transceiver is not None:
            retire(self.transceiver)
            if self.outlet is not None:
                self.outlet.switch(None)

    async def stats(self) -> dict[str, Any]:
        """Return what was sent here so far on this generation; the bit rate since the last call."""
        sender = None if self.transceiver is None else self.transceiver.sender
        counts = await Sent().sample(sender, 0 if self.outlet is None else self.outlet.frames)
        now, (since, before) = monotonic(), self.counted
        if now - since >= SAMPLE_INTERVAL:
            self.bitrate = max(counts["bytes_sent"] - before, 0) * 8 / (now - since)
            self.counted = now, counts["bytes_sent"]
        return {
            "kind": self.kind,
            "id": None if self.local is None else self.local.id,
            **counts,
            "bitrate": self.bitrate,
        }

    @property
    def sends(self) -> bool:
        """Whether sending has been agreed on."""
        return self.transceiver is not None and self.transceiver.currentDirection in WITH_SENDING
