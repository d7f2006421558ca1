"""Send what is encoded already to all outlets of one source, and pictures again to who needs them.

The latest *group of pictures* is kept: a key frame, and what came after it. A receiver that
comes late, or has lost something, asks for a key frame. No encoder is here to make one: so it is
sent that group once more, quickly, and goes on from there. Its timestamps go on as well: the
group's are squeezed into the moment at which it is sent, or a receiver would show it in real time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aiortc.codecs.h264 import H264Encoder

from metered_sync.bridge.clock import monotonic
from metered_sync.engine.sending.fed_track import EncoderFeedback
from metered_sync.engine.sending.kept_group import KeptGroup
from metered_sync.engine.sending.outlet import Outlet
from metered_sync.engine.sending.shared_encoder import Encoded
from metered_sync.engine.sending.timeline import PacketTimeline
from metered_sync.engine.webrtc.media_frames import AUDIO_RATE, VIDEO_RATE
from metered_sync.engine.webrtc.stream_formats import StreamFormat

__all__ = ["PacketFanout"]

REPLAY_INTERVAL = 1.0
"""Seconds from one time that a receiver is sent the group again to the next, at least."""


class PacketFanout:
    """The outlets that take a source's packets. To outlets it is their encoder."""

    def __init__(self, format: StreamFormat, feedback: EncoderFeedback | None) -> None:
        """Make one without outlets.

        Args:
            format: What is sent: outlets for another codec get nothing.
            feedback: The encoder, where that is the user's own.
        """
        self.format = format
        self.outlets: set[Outlet] = set()
        self._feedback = feedback
        self._rate = AUDIO_RATE if format.codec == "opus" else VIDEO_RATE
        self._timeline = PacketTimeline(self._rate)
        self._begun = -1
        """The time of the last packet that another reader has taken, as the source gives it."""
        # (Of VP8 each sender counts its own pictures.)
        self._packer = H264Encoder() if format.codec == "h264" else None
        self._group: KeptGroup[Encoded] = KeptGroup()
        self._replayed: dict[Outlet, float] = {}
        """When outlets whose receivers asked for it were sent the group again, most recently."""
        self._replaying: dict[Outlet, asyncio.TimerHandle] = {}
        self._asked = -REPLAY_INTERVAL
        self._asking: asyncio.TimerHandle | None = None
        """Set while the user's encoder is to be asked for a key frame."""

    def add(self, outlet: Outlet) -> None:
        """Feed an outlet, from the latest key frame on."""
        self.outlets.add(outlet)
        if outlet.codec == self.format.codec:
            outlet.encoder = self
            self._ask()
            outlet.replay(self._group.pictures)

    def remove(self, outlet: Outlet) -> None:
        """Feed an outlet no longer."""
        self.outlets.discard(outlet)
        outlet.encoder = None
        self._replayed.pop(outlet, None)
        self._cancel(outlet)

    def close(self) -> None:
        """Keep nothing: nobody takes it any more."""
        self._group.clear()
        self._ask_no_more()
        for outlet in tuple(self._replaying):
            self._cancel(outlet)

    def begin(self, group: Sequence[Any]) -> None:
        """Go on where another reader of the source has come to, with the latest group."""
        for packet in group:
            self._keep(self._pack(packet, self._place(packet)), packet.size)
            self._begun = packet.pts
        for outlet in tuple(self.outlets):
            if outlet.encoder is self:
                outlet.replay(self._group.pictures)

    def put(self, packet: Any) -> None:
        """Send a packet to all."""
        if packet.pts <= self._begun:  # it was on its way here while the group was taken
            return
        pts = self._place(packet)
        encoded = self._pack(packet, pts)
        for outlet in tuple(self.outlets):
            if outlet.encoder is self:
                outlet.put(pts, encoded)
        if self._rate == VIDEO_RATE:
            self._keep(encoded, packet.size)

    def _place(self, packet: Any) -> int:
        return self._timeline.place(round(packet.pts * packet.time_base * self._rate))

    def _pack(self, packet: Any, pts: int) -> Encoded:
        if self._packer is not None:
            return Encoded(pts, self._packer.pack(packet)[0], bool(packet.is_keyframe))
        key = self._rate == AUDIO_RATE or bool(packet.is_keyframe)
        return Encoded(pts, [], key, raw=bytes(packet))

    def _keep(self, encoded: Encoded, size: int) -> None:
        if encoded.key:
            self._ask_no_more()
        self._group.add(encoded, key=encoded.key, size=size, time=encoded.pts / VIDEO_RATE)

    # --- as an encoder ---

    def key_frame(self, outlet: Outlet) -> None:
        """Send one outlet the group again, soon; have the user's encoder make a key frame."""
        if self._rate == AUDIO_RATE:
            return
        self._ask()
        if outlet not in self._replaying:
            wait = self._replayed.get(outlet, 0.0) + REPLAY_INTERVAL - monotonic()
            if wait <= 0:
                self._replay(outlet)
            else:
                loop = asyncio.get_running_loop()
                self._replaying[outlet] = loop.call_later(wait, self._replay, outlet)

    def _ask(self) -> None:
        """Ask the user's encoder for a key frame: at once, or a second after the time before."""
        if self._feedback is not None and self._asking is None:
            wait = self._asked + REPLAY_INTERVAL - monotonic()
            if wait <= 0:
                self._ask_now()
            else:
                self._asking = asyncio.get_running_loop().call_later(wait, self._ask_now)

    def _ask_no_more(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None

    def _ask_now(self) -> None:
        self._asking, self._asked = None, monotonic()
        if self._feedback is not None:
            self._feedback.key_frame_wanted()

    def adapt(self) -> None:
        """Tell the user's encoder what receivers can take: the least of that."""
        wishes = [outlet.wish for outlet in self.outlets if outlet.wish is not None]
        if wishes and self._feedback is not None:
            self._feedback.bitrate_wanted(min(wishes))

    def _replay(self, outlet: Outlet) -> None:
        self._cancel(outlet)
        if outlet.replay(self._group.pictures):
            self._replayed[outlet] = monotonic()

    def _cancel(self, outlet: Outlet) -> None:
        timer = self._replaying.pop(outlet, None)
        if timer is not None:
            timer.cancel()
