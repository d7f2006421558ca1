"""Decode live streams, and place their frames in time.

Frames that are not taken in time are dropped, oldest first, so that those taken are new. A picture
leaves as soon as it is there. Its timestamp comes from the stream, moved onto the feed's
clock by the delay of the quickest pictures, so that the network's jitter is none of the
timestamps'. Sound is quicker, for it need not wait for the next picture to begin: it is held
back for as long.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Protocol

import av.error
from av import AudioFrame, AudioResampler, VideoFrame

from metered_sync.bridge.clock import monotonic
from metered_sync.engine.sending.feed import Feed, FeedQueue
from metered_sync.engine.webrtc.media_frames import (
    AUDIO_RATE,
    SAMPLES_PER_FRAME,
    mixed_down,
    sound_kind,
)
from metered_sync.engine.webrtc.pictures import PictureNormalizer
from metered_sync.media.sources.demuxing import decoded, pixel_aspect, streams_of

__all__ = ["Playout", "StreamDelay", "StreamLostError", "read"]

MAX_SOUND_DELAY = 0.25
"""Seconds for which sound is held back for its picture, at most."""
MAX_SOUND_STRAY = 0.06
"""Seconds by which sound may stray from its timestamps before they are believed."""
MIN_CLOCK_JUMP = 10.0
"""Seconds by which a frame must be early or late for the stream's clock to have been set anew."""
DELAY_WINDOW = 10.0
"""Seconds within which the quickest frame tells the stream's delay."""
MAX_PICTURE_LAG = 1.0
"""Seconds by which pictures may be late before decoding them all is taken to be too much."""
MAX_LAG_DURATION = 1.0
"""Seconds for which pictures may be late: a network that stood still delivers all at once."""


class StreamLostError(Exception):
    """The end of a stream that was not meant to end."""


class PacketSink(Protocol):
    """A taker of a container's packets."""

    def put(self, packet: Any) -> None:
        """Take a packet."""


def read(container: Any, feed: Feed, playout: PacketSink, silence: float = math.inf) -> bool:
    """Play a container's packets until it ends.

    Reads that have a timeout are repeated, until nothing has come for ``silence`` seconds.

    Returns:
        Whether to go on: ``False`` once the feed is stopped, ``True`` at the stream's end.

    Raises:
        StreamLostError: The silence; or what is played is not among what it offers.
        FFmpegError: The container cannot be read any further.
    """
    streams = [s for kind, s in streams_of(container).items() if kind in feed.queues]
    if not streams:
        raise StreamLostError(f"there is no {' and no '.join(feed.queues)} any more")
    heard = monotonic()
    while True:
        try:
            for packet in container.demux(*streams):
                heard = monotonic()
                playout.put(packet)
                if feed.interrupted and feed.take_seek() is None:
                    return False
            return True
        except av.error.ExitError:  # the timeout
            pass
        except av.error.BlockingIOError:  # some devices do not wait themselves
            with feed.lock:
                feed.moved.wait(0.005)
        if feed.interrupted and feed.take_seek() is None:
            return False
        if monotonic() - heard > silence:
            raise StreamLostError(f"nothing has come for {silence:g} s")


class StreamDelay:
    """Follow how far a stream's time is from the feed's clock, by its quickest frames."""

    def __init__(self) -> None:
        self.offset: float | None = None
        self._least = 0.0  # how much later the quickest frame came, of those
        self._since = 0.0  # this time

    def due(self, time: float | None, now: float) -> float:
        """Return when a frame that came ``now`` is due, on the feed's clock."""
        if time is None:
            return now
        if self.offset is None or abs(now - time - self.offset) > MIN_CLOCK_JUMP:
            self.offset, self._least, self._since = now - time, 0.0, now
        late = now - time - self.offset
        self._least = max(0.0, min(self._least, late))
        if late < 0:
            self.offset += late
        elif now - self._since > DELAY_WINDOW:
            self.offset += self._least
            self._least, self._since = math.inf, now
        return time + self.offset


class Playout:
    """Decode a live stream's packets, and put the frames into a feed's queues."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._video_pts = -1
        self._audio_end = 0  # in samples
        self.begin()

    def begin(self) -> None:
        """Expect another stream, whose first frame is due at once."""
        self._video, self._audio = StreamDelay(), StreamDelay()
        self._in_time = self._feed.clock()  # when pictures were not late, most recently
        self._key_needed = True
        self._normalizer: PictureNormalizer | None = None
        self._resampler: AudioResampler | None = None
        self._shape: object = None
        self._sound_due = 0.0  # of what goes into the resampler next
        self._piece_due = 0.0  # and of what comes out

    def put(self, packet: Any) -> None:
        """Decode a packet, unless nobody wants its kind, and put its frames."""
        kind = packet.stream.type
        queue = self._feed.queues[kind]
        if not queue.wanted or queue.closed:
            self._key_needed |= kind == "video"
        elif kind == "audio":
            for sound in decoded(packet):
                self._put_sound(queue, sound)
        elif not self._left_out(packet):
            for picture in decoded(packet):
                self._put_picture(queue, picture, pixel_aspect(packet.stream))

    def _left_out(self, packet: Any) -> bool:
        """Whether to leave a packet out: it needs others that were, or this machine is too slow."""
        now = self._feed.clock()
        stamp = packet.pts if packet.dts is None else packet.dts
        late = 0.0
        if stamp is not None and self._video.offset is not None:
            late = now - float(stamp * packet.time_base) - self._video.offset
        if late < MAX_PICTURE_LAG:
            self._in_time = now
        elif now > self._in_time + 2 * MAX_LAG_DURATION:
            self._in_time, self._video.offset = now, None  # what is sent is that old
        elif now > self._in_time + MAX_LAG_DURATION:
            self._key_needed = True
            return True
        if self._key_needed and not packet.is_keyframe:
            return True
        self._key_needed = False
        return False

    def _put_picture(self, queue: FeedQueue, frame: VideoFrame, aspect: float) -> None:
        due = self._video.due(frame.time, self._feed.clock())
        if self._normalizer is None:
            self._normalizer = PictureNormalizer(aspect)
        frame = self._normalizer.normal(frame)
        self._video_pts = max(round(due * 90000), self._video_pts + 1)
        frame.pts, frame.time_base = self._video_pts, Fraction(1, 90000)
        queue.put(frame, due, due)

    def _put_sound(self, queue: FeedQueue, frame: AudioFrame) -> None:
        due = self._audio.due(frame.time, self._feed.clock())
        if self._audio.offset is not None and self._video.offset is not None:
            due += min(max(self._video.offset - self._audio.offset, 0.0), MAX_SOUND_DELAY)
        frame = mixed_down(frame)
        shape = sound_kind(frame)
        if self._resampler is None or self._shape != shape:
            self._resampler = AudioResampler("s16", "stereo", AUDIO_RATE, SAMPLES_PER_FRAME)
            self._shape = shape
            self._sound_due = self._piece_due = due
        elif frame.time is not None and abs(due - self._sound_due) > MAX_SOUND_STRAY:
            self._piece_due += due - self._sound_due
            self._sound_due = due
        self._sound_due += frame.samples / frame.sample_rate
        frame.pts = None
        for piece in self._resampler.resample(frame):
            pts = round(self._piece_due * AUDIO_RATE)
            if pts >= self._audio_end:  # else that time has been played already
                piece.pts, piece.time_base = pts, Fraction(1, AUDIO_RATE)
                self._audio_end = pts + piece.samples
                queue.put(piece, self._piece_due, self._piece_due)
            self._piece_due += SAMPLES_PER_FRAME / AUDIO_RATE
