"""Make frames of the sound and the pictures that callers push, when the frames are due.

There is no producer's thread: whoever consumes the track takes what is there, every
20 ms for sound, and so nothing is prepared ahead that would have to be dropped when a
caller changes its mind. Sound that runs out is silence, and a picture that is not
followed by another is shown again.

Time passes for them as for all sources: what a consumer that went away did not take in
time is dropped, and callers who wait for room go on. Before a track is first consumed,
what was pushed waits.

The feed's lock guards everything here. Methods are called with it held.
"""

from __future__ import annotations

import math
from fractions import Fraction

from av import VideoFrame

from metered_sync.engine.sending.feed import DueFrame, Feed, FeedQueue, Frame
from metered_sync.engine.webrtc.media_frames import (
    AUDIO_RATE,
    SAMPLES_PER_FRAME,
    VIDEO_RATE,
    audio_frame,
    private_copy,
)

__all__ = [
    "BYTES_PER_SAMPLE",
    "BYTES_PER_SECOND",
    "PushedPictureQueue",
    "PushedQueue",
    "PushedSoundQueue",
]

BYTES_PER_SAMPLE = 4
"""Bytes of one sample of sound: 16 bits, stereo."""
BYTES_PER_SECOND = AUDIO_RATE * BYTES_PER_SAMPLE
BYTES_PER_FRAME = SAMPLES_PER_FRAME * BYTES_PER_SAMPLE
FRAME_SECONDS = SAMPLES_PER_FRAME / AUDIO_RATE
SILENT_FRAME = bytes(BYTES_PER_FRAME)
MAX_SOUND_LAG = 0.1
"""Seconds by which sound may be late before its clock is moved, lest it come in a burst."""
UNTAKEN_KEPT = 1.0
"""Seconds for which frames that nobody takes are kept, once playing has started."""
STILL_INTERVAL = 0.25
"""Seconds after which a picture is shown again."""


class PushedQueue(FeedQueue):
    """A queue that can be told to end with its last frame."""

    def end(self) -> None:
        """End the track once all frames have been handed out."""
        self.ending = True
        self.feed.moved.notify_all()
        self._end_if_empty()
        for listener in tuple(self._listeners):
            listener()

    def _is_empty(self) -> bool:
        raise NotImplementedError

    def _end_if_empty(self) -> None:
        if self.ending and self._is_empty():
            self.feed._stop(None)

    def _hand_out(self, item: DueFrame) -> Frame | None:
        frame = super()._hand_out(item)
        self._end_if_empty()
        return frame

    def _is_left_alone(self, due: float) -> bool:
        """Say whether nobody took the frame due then, and nobody waits."""
        late = self.feed.clock() - due
        return self.feed.started and not self._waiters and late > UNTAKEN_KEPT


class PushedSoundQueue(PushedQueue):
    """A queue of sound, 48 kHz, stereo, 16 bits, handed out 20 ms at a time, for ever."""

    def __init__(self, feed: Feed, kind: str, size: int) -> None:
        """Make a queue that callers should fill with ``size`` bytes at most."""
        super().__init__(feed, kind, size)
        self.sound = bytearray()
        self.latest = SILENT_FRAME
        """The sound handed out latest."""
        self._due = 0.0  # of the next slice, on the feed's clock
        self._grown = False

    @property
    def room(self) -> int:
        """Bytes that may be added."""
        return max(0, self._size - len(self.sound))

    def add(self, sound: bytes | memoryview) -> None:
        """Add sound at the end."""
        if not self.closed:
            self.sound += sound
            self._grown = True

    def clear(self) -> None:
        """Drop sound that has not been handed out."""
        self.sound.clear()
        self._grown = False
        self.feed.moved.notify_all()
        self._end_if_empty()

    def pass_time(self) -> None:
        """Drop sound that nobody took in time."""
        if self._is_left_alone(self._due):
            missed = int((self.feed.clock() - self._due) / FRAME_SECONDS)
            self._due += missed * FRAME_SECONDS
            self.feed.position = self._due
            self.latest = SILENT_FRAME
            if self.sound:
                del self.sound[: missed * BYTES_PER_FRAME]
                self.feed.moved.notify_all()
            self._end_if_empty()

    def _due_in(self) -> float:
        self.feed.begin()
        clock = self.feed.clock()
        if clock > self._due + MAX_SOUND_LAG:
            self._due = clock
        return self._due - clock

    def _next(self) -> DueFrame:
        due = self._due
        self._due += FRAME_SECONDS
        length = len(self.sound)
        if length < BYTES_PER_FRAME and self._grown and not self.ending:
            length = 0  # the rest is on its way: a gap within would be heard
        self._grown = False
        part = bytes(self.sound[: min(length, BYTES_PER_FRAME)])
        del self.sound[: len(part)]
        self.latest = part + SILENT_FRAME[len(part) :]
        frame = audio_frame(round(due * AUDIO_RATE), self.latest)
        return DueFrame(due, due + FRAME_SECONDS, frame)

    def _is_empty(self) -> bool:
        return not self.sound

    def _close(self) -> None:
        self.sound.clear()
        self.latest = SILENT_FRAME
        super()._close()


class PushedPictureQueue(PushedQueue):
    """The newest picture: handed out at once, and again where no other follows."""

    def __init__(self, feed: Feed, kind: str, size: int) -> None:
        """Make an empty queue; ``size`` does not matter."""
        super().__init__(feed, kind, size)
        self.again_after = STILL_INTERVAL
        """Seconds after which a picture is handed out again."""
        self.dropped = 0
        """Pictures that a newer one took the place of, or that nobody took in time."""
        self._new = False
        self._newest: VideoFrame | None = None
        self._due = -1.0  # of the newest picture, or of its repetition

    def show(self, picture: VideoFrame, due: float) -> None:
        """Take a picture, captured at ``due`` on the feed's clock."""
        if not self.closed:
            self.dropped += self._new
            self._newest, self._new = picture, True
            self._stamp(picture, due)
            self._wake()

    def pass_time(self) -> None:
        """Treat a picture that nobody took in time as an old one, only to be shown again."""
        if self._is_left_alone(self._due):
            self.dropped += self._new
            self._new = False
            self._end_if_empty()

    def _due_in(self) -> float:
        if self._new:
            return 0.0
        if self._newest is None:
            return math.inf
        return self._due + self.again_after - self.feed.clock()

    def _next(self) -> DueFrame | None:
        picture = self._newest
        if picture is None:  # stopped just now, by a finalizer
            return None
        if not self._new:  # whoever took it before may still be using it
            picture = private_copy(picture)
            self._stamp(picture, self.feed.clock())
        self._new = False
        return DueFrame(self._due, self._due, picture)

    def _stamp(self, picture: VideoFrame, due: float) -> None:
        self._due = max(due, self._due + 1 / VIDEO_RATE)
        picture.pts, picture.time_base = round(self._due * VIDEO_RATE), Fraction(1, VIDEO_RATE)

    def _is_empty(self) -> bool:
        return not self._new

    def _close(self) -> None:
        self._newest, self._new = None, False
        super()._close()
