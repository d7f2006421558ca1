"""Live sources: what comes from elsewhere as it happens, and cannot be made to wait.

They run from the moment they are made. What nobody takes in time is dropped, oldest
first, so that what is taken is new. A picture leaves as soon as it is there. Its
timestamp comes from the stream, moved onto the feed's clock by the delay of the
quickest pictures, so that the network's jitter is none of the timestamps'. Sound is
quicker, for it need not wait for the next picture to begin: it is held back for as long.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection
from fractions import Fraction
from typing import Any

import av.error
from av import AudioFrame, AudioResampler, VideoFrame
from av.video.reformatter import VideoReformatter

from metered_sync.bridge import guard
from metered_sync.bridge.deadline import Deadline, Signal
from metered_sync.engine.sending.feed import Feed, FeedQueue, Frame
from metered_sync.engine.webrtc.media_frames import AUDIO_RATE, SAMPLES_PER_FRAME, sound_kind
from metered_sync.errors import MediaError
from metered_sync.media.sources.base import Source
from metered_sync.media.sources.demuxing import as_yuv, decoded, streams_of

__all__ = ["LiveSource", "LostError", "Playout", "open_in_time", "read"]

AHEAD = {"video": 2, "audio": 15}
"""Frames that wait for a consumer, at most: 0.3 s of sound."""
HOLD = 0.25
"""Seconds for which sound is held back for its picture, at most."""
GAP = 0.06
"""Seconds by which sound may stray from its timestamps before they are believed."""
JUMP = 10.0
"""Seconds by which a frame may be early or late; beyond, the stream's clock was set anew."""
WINDOW = 10.0
"""Seconds in which the quickest frame tells the delay."""
BEHIND = 1.0
"""Seconds by which pictures may be late before decoding them all is taken to be too much."""
PATIENCE = 1.0
"""Seconds for which they may: a network that stood still for a while delivers all at once."""


class LostError(Exception):
    """What was played does not come any more."""


class LiveSource(Source):
    """A source that is live: it runs from the start, and what is not taken is gone."""

    def __init__(self, label: str, kinds: Collection[str], produce: Callable[[Feed], None]) -> None:
        """Make the tracks, and start; the arguments are those of :class:`Source`."""
        super().__init__(label, {kind: AHEAD[kind] for kind in kinds}, produce, queue=LiveQueue)
        with self._feed.lock:
            self._feed._start()

    @property
    def duration(self) -> None:
        """``None``: nobody knows."""
        return None

    def seek(self, seconds: float) -> None:
        """Raise :class:`MediaError`: what is live cannot be wound back."""
        raise MediaError(f"{self._label} is live: there is nothing to seek in")


class LiveQueue(FeedQueue):
    """A queue whose producer never waits: where it is full, the oldest frame is dropped."""

    def put(self, frame: Frame | None, due: float, position: float) -> bool:
        """Queue a frame; say whether to go on, as :meth:`FeedQueue.put` does."""
        with self._feed.lock:
            while len(self.items) >= self._size:
                self.items.popleft()
        return super().put(frame, due, position)


def open_in_time(function: Callable[[], Any], deadline: Deadline, label: str) -> Any:
    """Open a container on a thread of its own; return it.

    FFmpeg knows neither Ctrl-C nor this deadline. What it opens too late is closed.

    Raises:
        TimeoutError: The deadline passed.
        Exception: What ``function`` raised.
    """
    guard.check_blocking(guard.generation(), label)
    lock = threading.Lock()  # guards what follows
    outcome: list[Any] = []
    waiting = True
    done = Signal()

    def run() -> None:
        try:
            result = function()
        except Exception as error:
            result = error
        with lock:
            if waiting:
                outcome.append(result)
            elif not isinstance(result, Exception):
                result.close()
        done.set()

    threading.Thread(target=run, name=f"metered-sync-opening {label}", daemon=True).start()
    try:
        done.wait(deadline)
    finally:
        with lock:
            waiting = False
            result = outcome.pop() if outcome else None
    if result is None:
        raise TimeoutError
    if isinstance(result, Exception):
        raise result
    return result


def read(container: Any, feed: Feed, playout: Playout, silence: float = math.inf) -> bool:
    """Play what a container delivers, until it ends.

    Reads that have a timeout are repeated, until nothing has come for ``silence`` seconds.

    Returns:
        Whether to go on: ``False`` once the feed is stopped, ``True`` at the stream's end.

    Raises:
        LostError: The silence; or what is played is not among what it offers.
        FFmpegError: The container cannot be read any further.
    """
    streams = [s for kind, s in streams_of(container).items() if kind in feed.queues]
    if not streams:
        raise LostError(f"there is no {' and no '.join(feed.queues)} any more")
    heard = time.monotonic()
    while True:
        try:
            for packet in container.demux(*streams):
                heard = time.monotonic()
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
        if time.monotonic() - heard > silence:
            raise LostError(f"nothing has come for {silence:g} s")


class _Delay:
    """How far a stream's time is from the feed's clock, for its quickest frames."""

    def __init__(self) -> None:
        self.offset: float | None = None
        self._least = 0.0  # how much later the quickest frame came, of those
        self._since = 0.0  # this time

    def due(self, time: float | None, now: float) -> float:
        """Return when a frame that is here now is due, on the feed's clock."""
        if time is None:
            return now
        if self.offset is None or abs(now - time - self.offset) > JUMP:
            self.offset, self._least, self._since = now - time, 0.0, now
        late = now - time - self.offset
        self._least = max(0.0, min(self._least, late))
        if late < 0:
            self.offset += late
        elif now - self._since > WINDOW:
            self.offset += self._least
            self._least, self._since = math.inf, now
        return time + self.offset


class Playout:
    """Decodes a live stream's packets and puts the frames into a feed's queues."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._reformatter = VideoReformatter()
        self._video_pts = -1
        self._audio_end = 0  # in samples
        self.begin()

    def begin(self) -> None:
        """Expect another stream: what comes first is due at once."""
        self._video, self._audio = _Delay(), _Delay()
        self._in_time = self._feed.clock()  # when pictures were not late, most recently
        self._key_needed = True
        self._resampler: AudioResampler | None = None
        self._shape: object = None
        self._sound_due = 0.0  # of what goes into the resampler next
        self._piece_due = 0.0  # and of what comes out

    def put(self, packet: Any) -> None:
        """Decode a packet, unless nobody wants its kind, and put what is in it."""
        kind = packet.stream.type
        queue = self._feed.queues[kind]
        if not queue.wanted or queue.closed:
            self._key_needed |= kind == "video"
        elif kind == "audio":
            for sound in decoded(packet):
                self._put_sound(queue, sound)
        elif not self._left_out(packet):
            for picture in decoded(packet):
                self._put_picture(queue, picture)

    def _left_out(self, packet: Any) -> bool:
        """Whether not to decode: it needs what was left out, or this machine is too slow."""
        now = self._feed.clock()
        stamp = packet.pts if packet.dts is None else packet.dts
        late = 0.0
        if stamp is not None and self._video.offset is not None:
            late = now - float(stamp * packet.time_base) - self._video.offset
        if late < BEHIND:
            self._in_time = now
        elif now > self._in_time + 2 * PATIENCE:
            self._in_time, self._video.offset = now, None  # what is sent is that old
        elif now > self._in_time + PATIENCE:
            self._key_needed = True
            return True
        if self._key_needed and not packet.is_keyframe:
            return True
        self._key_needed = False
        return False

    def _put_picture(self, queue: FeedQueue, frame: VideoFrame) -> None:
        due = self._video.due(frame.time, self._feed.clock())
        frame = as_yuv(frame, self._reformatter)
        self._video_pts = max(round(due * 90000), self._video_pts + 1)
        frame.pts, frame.time_base = self._video_pts, Fraction(1, 90000)
        queue.put(frame, due, due)

    def _put_sound(self, queue: FeedQueue, frame: AudioFrame) -> None:
        due = self._audio.due(frame.time, self._feed.clock())
        if self._audio.offset is not None and self._video.offset is not None:
            due += min(max(self._video.offset - self._audio.offset, 0.0), HOLD)
        shape = sound_kind(frame)
        if self._resampler is None or self._shape != shape:
            self._resampler = AudioResampler("s16", "stereo", AUDIO_RATE, SAMPLES_PER_FRAME)
            self._shape = shape
            self._sound_due = self._piece_due = due
        elif frame.time is not None and abs(due - self._sound_due) > GAP:
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
