"""Spread a source's frames at one frame rate: as they are, or encoded once for many senders."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from av import VideoFrame

from metered_sync.engine.sending.outlet import Outlet
from metered_sync.engine.sending.shared_encoder import SharedEncoder
from metered_sync.engine.webrtc.media_frames import VIDEO_RATE

__all__ = ["FrameRateLimit", "Rendition"]

REPEAT_AFTER = 0.25
"""Seconds to wait for the next picture where one is asked for; then the newest is sent again."""
JITTER_ALLOWED = 0.002
"""Seconds by which a picture may come before its turn: sources are no more exact."""


class FrameRateLimit:
    """The choice of pictures that a frame rate allows."""

    def __init__(self, max_framerate: float | None) -> None:
        self._interval = 0.0 if max_framerate is None else 1 / max_framerate
        self._next: float | None = None

    def allows(self, at: float) -> bool:
        """Say whether the picture shown at this moment, in seconds, is one of them."""
        if not self._interval:
            return True
        if self._next is None or abs(at - self._next) > 1:  # the first, or the clock jumped
            self._next = at
        if at < self._next - JITTER_ALLOWED:
            return False
        # From when it was due, so that 20 of 30 frames are 20; not from further back, lest a
        # pause is made up for.
        self._next = max(self._next, at - self._interval) + self._interval
        return True


class Rendition:
    """The outlets that take a source's frames at one frame rate, and their encoders."""

    def __init__(
        self, max_framerate: float | None, again: Callable[[], tuple[int, VideoFrame] | None]
    ) -> None:
        """Make a rendition without outlets.

        Args:
            max_framerate: Pictures a second at most; ``None``: all.
            again: Returns the newest picture, if there is one, and a timestamp with which it
                is shown once more.
        """
        self.outlets: set[Outlet] = set()
        self.encoders: dict[tuple[str, int | None], SharedEncoder] = {}
        """By codec, and by the bit rate that is held whatever receivers ask for."""
        self._limit = FrameRateLimit(max_framerate)
        self._again = again
        self._awaited = False
        """Whether a receiver has asked for a picture since the newest one came."""
        self._repeating: asyncio.TimerHandle | None = None

    def add(self, outlet: Outlet, bitrate: int | None) -> None:
        """Feed an outlet; where it names a codec, with pictures encoded for all such outlets."""
        self.outlets.add(outlet)
        if outlet.codec is not None:
            key = outlet.codec, bitrate
            encoder = self.encoders.get(key)
            if encoder is None:
                encoder = SharedEncoder(outlet.codec, bitrate, self._show_again)
                self.encoders[key] = encoder
            outlet.encoder = encoder
            encoder.add(outlet)

    def remove(self, outlet: Outlet) -> None:
        """Feed an outlet no longer."""
        self.outlets.discard(outlet)
        encoder, outlet.encoder = outlet.encoder, None
        if isinstance(encoder, SharedEncoder):
            encoder.remove(outlet)
            if not encoder.consumers:
                self.encoders = {k: e for k, e in self.encoders.items() if e is not encoder}

    def put_picture(self, pts: int, picture: VideoFrame) -> None:
        """Pass a picture on, if the frame rate allows it."""
        if self._limit.allows(pts / VIDEO_RATE):
            self._pass_on(pts, picture)

    def put_sound(self, pts: int, samples: bytes) -> None:
        """Pass 20 ms of sound on."""
        for outlet in self.outlets:
            outlet.put(pts, samples)

    def close(self) -> None:
        """Show no picture again: nobody takes any."""
        if self._repeating is not None:
            self._repeating.cancel()
            self._repeating = None

    def _pass_on(self, pts: int, picture: VideoFrame) -> None:
        self._awaited = False
        for outlet in self.outlets:
            if outlet.encoder is None:
                outlet.put(pts, picture)
        for encoder in self.encoders.values():
            encoder.put(pts, picture)

    def _show_again(self) -> None:
        """Send the newest picture once more, unless another one comes soon."""
        self._awaited = True
        if self._repeating is None:
            self._repeating = asyncio.get_running_loop().call_later(REPEAT_AFTER, self._repeat)

    def _repeat(self) -> None:
        self._repeating = None
        if not self._awaited:
            return
        early = max((encoder.key_frame_in for encoder in self.encoders.values()), default=0.0)
        if early > 0:  # it would be no key frame yet, and no other picture may come
            self._repeating = asyncio.get_running_loop().call_later(early, self._repeat)
        elif (shown := self._again()) is not None:
            self._pass_on(*shown)
