"""Give the frames of all local tracks timestamps on one clock.

Sources count time as they like: from 0 or from anywhere, in any unit, with gaps, or not
at all. What leaves must rise strictly, also when a sender is handed over from one source
to another: a receiver takes a timestamp that jumps back for one that has wrapped round.
So every frame is put on a clock of this process here. It follows the source's own time,
which is smooth, as long as that keeps near the real one.
"""

from __future__ import annotations

from collections.abc import Iterator

from av import AudioFrame, AudioResampler, VideoFrame

from metered_sync.bridge.clock import monotonic
from metered_sync.engine.webrtc.media_frames import (
    AUDIO_RATE,
    SAMPLES_PER_FRAME,
    VIDEO_RATE,
    mixed_down,
    sound_kind,
)

__all__ = [
    "CLOCK_LEAD",
    "CLOCK_SLACK",
    "READY_PAUSE",
    "READY_WITHIN",
    "AudioTimeline",
    "PacketTimeline",
    "VideoTimeline",
    "ticks",
]

CLOCK_SLACK = 0.5
"""Seconds by which a source may be behind the clock, or ahead of it without being held up."""
CLOCK_LEAD = 2.0
"""Seconds by which timestamps may be ahead of the clock."""
MAX_LATE = 15.0
"""Seconds by which a packet may be late before its source is taken to count anew."""
READY_WITHIN = 0.002
"""Seconds within which a frame must come to be one that lay ready."""
READY_PAUSE = 0.001
"""Seconds to sleep after a frame that lay ready: some sources never wait."""

_started = monotonic()


def ticks(rate: int) -> int:
    """Return the present moment on the clock, in ticks at ``rate`` a second."""
    return round((monotonic() - _started) * rate)


class VideoTimeline:
    """Timestamps for the pictures of one source."""

    def __init__(self) -> None:
        self._offset: int | None = None
        self._last = -1

    def again(self) -> int:
        """Return a timestamp for the latest picture to be shown once more, now."""
        self._last = max(ticks(VIDEO_RATE), self._last + 1)
        return self._last

    def place(self, frame: VideoFrame) -> int:
        """Return a frame's timestamp, in 1/90000 s."""
        now = ticks(VIDEO_RATE)
        stamped = frame.pts is not None and frame.time_base
        own = round(frame.time * VIDEO_RATE) if stamped else now
        pts = now if self._offset is None else own + self._offset
        astray = not now - CLOCK_SLACK * VIDEO_RATE < pts < now + CLOCK_LEAD * VIDEO_RATE
        if pts <= self._last or astray:
            pts = max(now, self._last + 1)
        self._offset = pts - own
        self._last = pts
        return pts


class PacketTimeline:
    """Timestamps for the packets of one source, which keeps to real time.

    None is left out, and none is ahead of the clock. What comes all at once, after a pause, is
    that late: it is squeezed into the moment at which it comes.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._offset: int | None = None
        self._last = -1

    def place(self, own: int) -> int:
        """Return a packet's timestamp for the time that its source gives it, in the same ticks."""
        offset = ticks(self._rate) - own
        if self._offset is None or offset > self._offset + MAX_LATE * self._rate:
            self._offset = offset
        self._offset = min(self._offset, offset)
        self._last = max(own + self._offset, self._last + 1)
        return self._last


class AudioTimeline:
    """Timestamps for the sound of one source, cut into pieces of 20 ms.

    Samples are counted, which is the smoothest there is. A source that pauses leaves a gap.
    """

    def __init__(self) -> None:
        self._resampler: AudioResampler | None = None
        self._shape: tuple[str, str, int] | None = None
        self._next: int | None = None

    def slices(self, frame: AudioFrame) -> Iterator[tuple[int, bytes]]:
        """Yield each complete piece: timestamp in 1/48000 s; 960 samples, s16, stereo.

        An encoder of aiortc refuses a frame whose rate or layout is not that of the first.
        """
        frame = mixed_down(frame)
        shape = sound_kind(frame)
        if self._resampler is None or shape != self._shape:
            self._resampler = AudioResampler(
                "s16", "stereo", AUDIO_RATE, frame_size=SAMPLES_PER_FRAME
            )
            self._shape = shape
        for part in self._resampler.resample(frame):
            now = ticks(AUDIO_RATE)
            if self._next is None or self._next < now - CLOCK_SLACK * AUDIO_RATE:
                self._next = now
            yield self._next, bytes(part.planes[0])[: SAMPLES_PER_FRAME * 4]
            self._next += SAMPLES_PER_FRAME
