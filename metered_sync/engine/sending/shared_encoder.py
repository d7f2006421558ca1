"""Encode a track once for several senders.

A sender of aiortc (1.14 to 1.16) has an encoder of its own, so that a track that goes to
four receivers is encoded four times. But it also takes what is encoded already from its
track, and only has its encoder ``pack`` it. So all outlets that carry one track with one
codec share a :class:`SharedEncoder`, which is an encoder of aiortc's, and each sender gets
a :class:`PackingEncoder` in place of its own: that passes on what it is given, and what the
receiver asks for.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

from aiortc.codecs.base import Encoder
from av import Packet, VideoFrame

from metered_sync.bridge.clock import monotonic
from metered_sync.engine.webrtc.encoding import PINNED, DescribedH264Encoder, ExactVp8Encoder
from metered_sync.engine.webrtc.media_frames import VIDEO_RATE
from metered_sync.engine.webrtc.pictures import PictureNormalizer
from metered_sync.wire.key_frames import detector

__all__ = ["CODECS", "Encoded", "PackingEncoder", "SharedEncoder"]

logger = logging.getLogger("metered_sync")
MIN_KEY_FRAME_INTERVAL = 0.25
"""Seconds from one key frame to the next that receivers can bring about by asking."""

CODECS: dict[str, type[ExactVp8Encoder] | type[DescribedH264Encoder]] = {
    "vp8": ExactVp8Encoder,
    "h264": DescribedH264Encoder,
}


class Encoded(NamedTuple):
    """A picture, encoded and cut into what fits into packets; or 20 ms of sound, or the like."""

    pts: int
    """The timestamp, in 1/90000 s."""
    payloads: list[bytes]
    key: bool
    """Whether the picture can be decoded without those before it."""
    raw: bytes = b""
    """In the place of payloads: a picture, or sound, as its codec has it."""
    again: bool = False
    """Whether it was sent before, and is sent once more to a receiver that lacks it."""


class EncodedConsumer(Protocol):
    """A taker of encoded pictures: an outlet."""

    wish: int | None
    """The bit rate that the receiver asked for, if it did."""

    def put(self, pts: int, content: Encoded) -> None:
        """Take an encoded picture."""

    def wants_key(self) -> None:
        """Pass on that the receiver needs a key frame."""

    def wishes(self, bitrate: int) -> None:
        """Pass on the bit rate that the receiver asks for."""


class SharedEncoder:
    """The encoder of one track with one codec, for all who take its pictures.

    It runs on aiortc's executor, one picture at a time. While it is busy it keeps the
    newest picture; what it leaves out is counted.
    """

    def __init__(self, codec: str, bitrate: int | None, show_again: Callable[[], None]) -> None:
        """Make an encoder that serves nobody yet.

        Args:
            codec: ``"vp8"`` or ``"h264"``.
            bitrate: Bits per second, held whatever receivers wish. ``None``: the least
                that one of them wishes, between the limits of aiortc.
            show_again: Called when a key frame is asked for: has the newest picture put
                again where none is about to come.
        """
        self.codec = codec
        self.pictures = 0
        """Pictures encoded so far."""
        self.dropped = 0
        """Pictures left out because newer ones came."""
        self._show_again = show_again
        self._bitrate = bitrate
        self._encoder = self._new_encoder()
        self._normalizer = PictureNormalizer()
        self._consumers: set[EncodedConsumer] = set()
        self._waiting: tuple[int, VideoFrame] | None = None
        self._busy = False
        self._key_at = math.inf
        """The moment from which a key frame is due (``time.monotonic()``)."""
        self._last_keys = deque((-math.inf, -math.inf), maxlen=2)
        self._failed = False
        self._starved = False

    @property
    def consumers(self) -> int:
        """How many outlets take the encoded pictures."""
        return len(self._consumers)

    @property
    def bitrate(self) -> int:
        """Bits per second that the encoder aims at."""
        return int(self._encoder.target_bitrate)

    @property
    def key_frame_in(self) -> float:
        """Seconds until the key frame that was asked for is due; 0: now, or none was."""
        return 0.0 if self._key_at == math.inf else max(0.0, self._key_at - monotonic())

    def add(self, consumer: EncodedConsumer) -> None:
        """Serve one more outlet: the next picture is a key frame."""
        self._consumers.add(consumer)
        self._key_at = 0.0
        self.adapt()
        self._show_again()

    def remove(self, consumer: EncodedConsumer) -> None:
        """Serve an outlet no longer."""
        self._consumers.discard(consumer)
        self.adapt()

    def adapt(self) -> None:
        """Follow the bit rates that receivers ask for."""
        wishes = [consumer.wish for consumer in self._consumers if consumer.wish is not None]
        if wishes:
            self._encoder.target_bitrate = min(wishes)

    def key_frame(self, consumer: EncodedConsumer | None = None) -> None:
        """Make a key frame soon, for a receiver that has lost something: for all of them."""
        # (Two may follow each other: who comes just after the first waits for nothing.)
        due = max(monotonic(), self._last_keys[0] + 2 * MIN_KEY_FRAME_INTERVAL)
        self._key_at = min(self._key_at, due)
        self._show_again()

    def put(self, pts: int, frame: VideoFrame) -> None:
        """Encode a picture, unless a newer one comes first."""
        self.dropped += self._waiting is not None
        self._waiting = pts, frame
        if not self._busy:
            self._start()

    def _new_encoder(self) -> Any:
        if self._bitrate is None:
            return CODECS[self.codec]()
        return PINNED[self.codec](int(self._bitrate))

    def _start(self) -> None:
        if self._waiting is None or not self._consumers:
            self._waiting = None
            return
        (pts, frame), self._waiting = self._waiting, None
        now = monotonic()
        key = now >= self._key_at
        if key:
            self._key_at = math.inf
            self._last_keys.append(now)
        self._busy = True
        pictures = deque([frame])
        loop = asyncio.get_running_loop()
        try:
            job = loop.run_in_executor(None, self._encode, pts, pictures, key)
        except RuntimeError as error:  # it has no thread, and gets none; the next picture may
            pictures.clear()  # the executor still has the job
            self._busy = False
            self.dropped += 1
            self._key_at = 0.0 if key else self._key_at
            if not self._starved:
                logger.warning("pictures are not sent, for want of a thread: %s", error)
            self._starved = True
            return
        self._starved = False
        job.add_done_callback(functools.partial(self._done, key))

    def _encode(self, pts: int, pictures: deque[VideoFrame], key: bool) -> Encoded:
        """Encode a picture, if it is still there; on a thread of the executor."""
        if not pictures:
            return Encoded(pts, [], False)
        frame = pictures[0]
        frame = self._normalizer.normal(frame)
        frame.pts, frame.time_base = pts, Fraction(1, VIDEO_RATE)
        payloads, _ = self._encoder.encode(frame, key)
        is_key = detector(self.codec)
        assert is_key is not None
        return Encoded(pts, payloads, any(map(is_key, payloads[:1])))

    def _done(self, key: bool, job: asyncio.Future[Encoded]) -> None:
        self._busy = False
        if job.cancelled():
            return
        error = job.exception()
        if error is not None:
            if not self._failed:  # else every picture would fill the log
                logger.error("pictures cannot be encoded as %s", self.codec, exc_info=error)
            self._failed = True
            # Nothing may be encoded again with what could not be opened: PyAV 19 crashes.
            self._encoder = self._new_encoder()
            self.adapt()
        encoded = None if error else job.result()
        if encoded is None or not encoded.payloads:
            self._key_at = 0.0 if key else self._key_at
        else:
            self.pictures += 1
            for consumer in tuple(self._consumers):
                consumer.put(encoded.pts, encoded)
        self._start()


class PackingEncoder(Encoder):
    """The encoder that a sender is given: it packs pictures that are encoded already."""

    def __init__(self, consumer: EncodedConsumer, codec: str) -> None:
        self._consumer = consumer
        self._codec = codec
        self._own: Encoder | None = None

    def encode(self, frame: Any, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        """Encode a frame, as the sender's own encoder would: from a track that is no outlet."""
        self._own = self._own or CODECS[self._codec]()
        return self._own.encode(frame, force_keyframe)

    def pack(self, packet: Any) -> tuple[list[bytes], int]:
        """Return payloads and timestamp of an encoded picture, or of encoded sound."""
        if not packet.raw:
            return packet.payloads, packet.pts
        if self._codec not in CODECS:
            return [packet.raw], packet.pts
        self._own = self._own or CODECS[self._codec]()
        whole = Packet(packet.raw)
        whole.pts, whole.time_base = packet.pts, Fraction(1, VIDEO_RATE)
        return self._own.pack(whole)[0], packet.pts

    @property
    def target_bitrate(self) -> int:
        """The bit rate that the receiver asks for; set with each of its estimates."""
        return self._consumer.wish or 0

    @target_bitrate.setter
    def target_bitrate(self, bitrate: int) -> None:
        self._consumer.wishes(bitrate)
