"""Hand one sender the frames of a local track, or of another one that replaces it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, Protocol

from aiortc import RTCRtpSender
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import VideoFrame

from metered_sync.bridge.clock import monotonic
from metered_sync.engine.sending.shared_encoder import (
    CODECS,
    Encoded,
    PackingEncoder,
)
from metered_sync.engine.webrtc.aiortc_private.capabilities import Capability, can
from metered_sync.engine.webrtc.aiortc_private.sending import (
    before_first_frame,
    discards,
    encoder_of,
    on_key_frame_request,
    set_encoder,
)
from metered_sync.engine.webrtc.media_frames import (
    AUDIO_RATE,
    SAMPLES_PER_FRAME,
    VIDEO_RATE,
    audio_frame,
)
from metered_sync.engine.webrtc.pictures import PictureNormalizer
from metered_sync.engine.webrtc.stream_formats import StreamFormat

__all__ = ["SOUND_QUEUE", "Feeder", "Outlet"]

SOUND_QUEUE = 10
"""Frames of sound, 20 ms each, that wait for a sender at most."""
ENCODED_QUEUE = 30
"""Encoded pictures that wait for a sender at most: they cannot be left out one by one."""
REPLAY_RATE = 4_000_000
"""Bytes a second at which pictures are sent again: more at once would be lost on the way."""
REPLAY_PAUSE = 0.004
"""Seconds from one picture that is sent again to the next, at least: small ones come faster else
than a receiver decodes, which would drop them."""
REPLAY_TICKS = 9
"""Ticks between pictures that are sent again."""
MAX_SEAM = 0.1
"""Seconds of silence between two sources that are not worth a gap in the timestamps."""

Content = VideoFrame | Encoded | bytes


class Feeder(Protocol):
    """A track that feeds outlets."""

    kind: str
    id: str
    format: StreamFormat | None
    """The format of what it sends, where that is encoded already."""

    def add(self, outlet: Outlet) -> None:
        """Feed an outlet from now on."""

    def remove(self, outlet: Outlet) -> None:
        """Feed an outlet no longer."""

    def update(self) -> None:
        """Learn that an outlet has begun to be consumed."""


class OutletEncoder(Protocol):
    """What an outlet's encoded pictures come from."""

    def key_frame(self, outlet: Outlet) -> None:
        """Let an outlet's receiver go on, which needs a key frame for that."""

    def adapt(self) -> None:
        """Follow the bit rates that receivers ask for."""


class Outlet(MediaStreamTrack):
    """The track that one sender sends. An outlet ends when it is closed, not before.

    It holds the newest picture, or ``SOUND_QUEUE`` slices of sound; what it drops is counted.
    Once its sender's codec is known it takes pictures that are encoded already, and
    begins with a key frame.
    """

    def __init__(self, local: Feeder, *, own_id: bool = False) -> None:
        """Make an outlet of a track; with the track's id, or with one of its own."""
        super().__init__()
        self.kind = local.kind
        self._own_id = own_id
        if not own_id:
            self._id = local.id
        self.local: Feeder | None = local
        """The track that feeds this outlet, if one does."""
        self.asked = False
        """Whether a sender has begun to consume this outlet."""
        self.codec: str | None = None
        """The codec, in lower case, of the pictures taken here; ``None``: not encoded."""
        self.encoder: OutletEncoder | None = None
        """The encoder of the pictures; set by the track that feeds this outlet."""
        self.wish: int | None = None
        """The bit rate that the receiver asked for, if it did."""
        self.frames = 0
        """Frames handed out so far."""
        self.on_sent: Callable[[], object] | None = None
        """Called once the first frame has been sent."""
        self.dropped = 0
        """Frames dropped because the sender was slow."""
        self._rate, self._length = (
            (VIDEO_RATE, 1) if self.kind == "video" else (AUDIO_RATE, SAMPLES_PER_FRAME)
        )
        self._items: deque[tuple[int, Content]] = deque()
        self._room = ENCODED_QUEUE
        self._ready = asyncio.Event()
        self._normalizer = PictureNormalizer()
        self._sender: RTCRtpSender | None = None
        self._packing: PackingEncoder | None = None
        self._hungry = False
        """Whether the receiver can go on with a key frame only."""
        self._idle = False
        """Whether the sender may not send, by what was negotiated."""
        self._closed = False
        self._floor: int | None = None
        """The least timestamp that the next frame may have."""
        self._offset: int | None = 0
        """The ticks to add to timestamps; ``None``: computed with the next frame."""
        self._handed = 0.0
        """When the latest frame was handed out (``time.monotonic()``)."""
        local.add(self)

    def __repr__(self) -> str:
        return f"<Outlet of {self.local!r}: {self.readyState}>"

    def attach(self, sender: RTCRtpSender) -> None:
        """Name the sender that this outlet serves, so that pictures are encoded once for several.

        Before or after the sender has begun; doing it again changes nothing.
        """
        if sender is self._sender:
            return
        self._sender = sender
        encoded = self.local is not None and self.local.format is not None
        if (self.kind == "video" or encoded) and can(Capability.ENCODERS):
            before_first_frame(sender, self._settle)

    def switch(self, local: Feeder | None) -> None:
        """Take frames from another track from now on, or from none, without an end."""
        if local is not None and local.kind != self.kind:
            raise ValueError(f"a track of kind {self.kind!r} cannot go on with {local.kind!r}")
        if local is self.local or self._closed:
            return
        self._let_go()
        self._carry(local)

    def close(self) -> None:
        """End the outlet, and its sender with it."""
        self.stop()

    def stop(self) -> None:
        """End the outlet, as a sender does with its track. The source goes on."""
        self.switch(None)
        self._closed = True
        self._ready.set()
        super().stop()

    async def recv(self) -> Any:
        """Return the next frame; wait while there is none.

        Raises:
            MediaStreamError: It was closed.
        """
        if not self.asked:
            self.asked = True
            if self.local is not None:
                self.local.update()
        if self.frames and self.on_sent is not None:
            on_sent, self.on_sent = self.on_sent, None
            on_sent()
        while not self._items and not self._closed:
            self._ready.clear()
            await self._ready.wait()
        if self._closed:
            raise MediaStreamError(f"{self!r} was closed")
        pts, content = self._items.popleft()
        if not self._items:
            self._room = ENCODED_QUEUE
        pts = self._continued(pts, again=isinstance(content, Encoded) and content.again)
        self.frames += 1
        if isinstance(content, Encoded):
            assert self._sender is not None
            assert self._packing is not None
            self._install(self._sender, self._packing)
            if content.again:
                await asyncio.sleep(max(_size(content) / REPLAY_RATE, REPLAY_PAUSE))
            return content._replace(pts=pts)
        if isinstance(content, VideoFrame):
            frame = self._normalizer.normal(content)
            frame.pts, frame.time_base = pts, Fraction(1, VIDEO_RATE)
            return frame
        return audio_frame(pts, content)

    # --- for the track it carries ---

    def put(self, pts: int, content: Content) -> None:
        """Take a picture or a piece of sound of the track that feeds this outlet."""
        if not self.asked:
            return
        if isinstance(content, Encoded):
            if not self._is_of_use(content):
                return
        else:
            self._drop(len(self._items) + 1 - (1 if self.kind == "video" else SOUND_QUEUE))
        self._items.append((pts, content))
        self._ready.set()

    def replay(self, group: Sequence[Encoded]) -> bool:
        """Take pictures, from a key frame on, that were here before: all up to the newest.

        Returns:
            Whether they are sent: there are any, and the sender may send.
        """
        if not group:
            return False
        if discards(self._sender):
            self._idle = self._hungry = True
            return False
        self._items.clear()  # the group has them as well
        newest = group[-1].pts
        for back, encoded in zip(range(len(group) - 1, -1, -1), group, strict=True):
            self._items.append((newest - back * REPLAY_TICKS, encoded._replace(again=True)))
        self._room = ENCODED_QUEUE + len(group)
        self._hungry = self._idle = False
        self._ready.set()
        return True

    # --- for its sender ---

    def wants_key(self) -> None:
        """Ask for a key frame, as the receiver does."""
        if self.encoder is not None:
            self.encoder.key_frame(self)

    def wishes(self, bitrate: int) -> None:
        """Note the bit rate that the receiver asks for."""
        self.wish = bitrate
        if self.encoder is not None:
            self.encoder.adapt()

    def _settle(self, codec: str) -> None:
        """Take pictures encoded with the sender's codec from now on, if that is possible."""
        own = self.local.format if self.local is not None else None
        if (codec in CODECS or (own is not None and codec == own.codec)) and not self._closed:
            local = self.local
            self._let_go()
            self.codec, self._packing = codec, PackingEncoder(self, codec)
            self._carry(local)
        if self._packing is not None and self._sender is not None:
            self._install(self._sender, self._packing)

    def _install(self, sender: RTCRtpSender, packing: PackingEncoder) -> None:
        """Have the sender pack what is encoded here, and ask here for key frames."""
        if encoder_of(sender) is not packing:
            set_encoder(sender, packing)
            on_key_frame_request(sender, self.wants_key)

    # --- inside ---

    def _let_go(self) -> None:
        if self.local is not None:
            self.local.remove(self)
        self.local = None
        self._items.clear()

    def _carry(self, local: Feeder | None) -> None:
        self.local = local
        self._offset = None
        self._hungry = self.codec is not None
        if local is not None:
            if not self._own_id:
                self._id = local.id
            local.add(self)

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._items.popleft()
            self.dropped += 1

    def _is_of_use(self, encoded: Encoded) -> bool:
        """Say whether the receiver can decode this picture, and is to get it."""
        if discards(self._sender):  # it throws away what it gets
            self._idle = self._hungry = True
            return False
        if self._idle or len(self._items) >= self._room:
            self._drop(len(self._items))
            self._idle, self._hungry = False, True
            if not encoded.key:
                self.wants_key()
        self._hungry = self._hungry and not encoded.key
        return not self._hungry

    def _continued(self, pts: int, *, again: bool) -> int:
        """Return a frame's timestamp, moved to follow the frame before it."""
        now = monotonic()
        if self._offset is None:
            self._offset = 0
            if self._floor is not None:
                gap = pts - self._floor
                if self.kind == "audio" and gap < MAX_SEAM * self._rate:
                    self._offset = -gap
                elif gap < 0:
                    self._offset = round((now - self._handed) * self._rate) - gap
        pts += self._offset
        if again and self._floor is not None:
            pts = max(pts, self._floor)
        self._floor = pts + self._length
        self._handed = now
        return pts


def _size(encoded: Encoded) -> int:
    return len(encoded.raw) or sum(map(len, encoded.payloads))
