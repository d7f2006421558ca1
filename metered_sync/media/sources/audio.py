"""Play the sound that a program makes, piece by piece."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from aiortc.mediastreams import MediaStreamTrack

from metered_sync.bridge.deadline import WAIT_SLICE, Deadline
from metered_sync.engine.sending.feed import PRODUCER_POLL
from metered_sync.engine.sending.pushed import BYTES_PER_SAMPLE, BYTES_PER_SECOND, PushedSoundQueue
from metered_sync.engine.webrtc.media_frames import AUDIO_RATE
from metered_sync.errors import ClosedError, MeteredTimeoutError, WrongThreadError
from metered_sync.media.sources.base import TrackSource
from metered_sync.media.sources.sound_input import SoundConverter
from metered_sync.wire.arguments import check_number

if TYPE_CHECKING:
    from av import AudioFrame
    from numpy.typing import NDArray
    from typing_extensions import Buffer

__all__ = ["AudioSource"]

UNCONSUMED_WAIT = 15.0
"""Seconds for which a push without a deadline waits for a consumer of the track."""
SILENCE_LEVEL = -127.0
"""The level of silence in dBFS, as RFC 6464 has it."""


class AudioSource(TrackSource[MediaStreamTrack, None]):
    """Play pushed sound on an audio track: speech, music, a microphone.

    It plays in real time, from the moment something consumes its track, and is silent
    while there is nothing to play. Before that moment what was pushed waits; afterwards
    time passes, also while nobody happens to listen.

    >>> with AudioSource(input_rate=22050) as voice:
    ...     peer.add_track(voice.audio)
    ...     voice.push(samples)  # int16, or float from -1 to 1
    ...     voice.wait_drained()
    """

    def __init__(
        self,
        *,
        input_rate: int = 16000,
        input_layout: str = "mono",
        max_buffered_seconds: float = 5.0,
    ) -> None:
        """Make the source.

        Args:
            input_rate: Samples per second of the bytes and arrays that will be pushed.
            input_layout: Their channels: ``"mono"``, ``"stereo"``, or another layout's
                name that FFmpeg knows, for instance ``"5.1"``.
            max_buffered_seconds: How much may wait to be played, in seconds from 0.1;
                pushing more blocks.
        """
        self._converter = SoundConverter(input_rate, input_layout)  # for the first in _turns
        max_buffered_seconds = check_number("max_buffered_seconds", max_buffered_seconds, 0.1)
        # The feed's lock guards what follows.
        self._turns: deque[tuple[int, object]] = deque()
        """Calls that push, in their order, with their threads; the first one may."""
        self._cleared = 0
        """How often everything was dropped, with the rest of what calls had to push."""
        self._converted_since = 0
        """The value of ``_cleared`` when the converter forgot the sound before."""
        self._ended = False
        super().__init__(
            f"AudioSource({input_rate}, {input_layout!r})",
            {"audio": round(max_buffered_seconds * AUDIO_RATE) * BYTES_PER_SAMPLE},
            None,
            queue=PushedSoundQueue,
        )
        self._queue: PushedSoundQueue = self._feed.queues["audio"]  # type: ignore[assignment]

    @property
    def buffered_seconds(self) -> float:
        """Seconds of sound that wait to be played."""
        self._feed.check_process()
        with self._feed.lock:
            self._queue.pass_time()
            return len(self._queue.sound) / BYTES_PER_SECOND

    @property
    def level(self) -> float:
        """The level of the 20 ms that are being played: RMS in dBFS, -127.0 for silence."""
        self._feed.check_process()
        with self._feed.lock:
            self._queue.pass_time()
            samples = np.frombuffer(self._queue.latest, np.int16).astype(np.float32)
        power = float(np.mean(np.square(samples / 32768)))
        return max(10 * math.log10(power), SILENCE_LEVEL) if power else SILENCE_LEVEL

    def push(self, sound: Buffer | NDArray[Any] | AudioFrame, timeout: float | None = None) -> None:
        """Add sound to be played; wait while too much is buffered.

        Calls from several threads play one after another. What does not fit is added as
        room becomes free, so one call may bring hours of sound.

        Args:
            sound: ``bytes`` (or another buffer): signed 16-bit little-endian samples, in
                the source's rate and layout, cut anywhere: what is left of a sample waits
                for the next bytes. An array: ``int16``, or floating point from -1 to 1, in
                the source's rate, of shape (samples,) or (samples, channels), or packed as
                PyAV's are: (1, samples * channels). Or an
                ``av.AudioFrame`` of any format, rate and layout.
            timeout: Seconds in which all of it must be buffered; 0 takes what fits. ``None``:
                as long as playing takes, but 15 s at most while nobody consumes the track.

        Raises:
            MeteredTimeoutError: There was no room for all of it in time; the rest of it has
                been dropped.
            ClosedError: The source has been ended or stopped; also while waiting.
            TypeError, ValueError: Something that cannot be played.
        """
        deadline = Deadline.of(timeout)
        patience = Deadline(UNCONSUMED_WAIT if timeout is None else math.inf)
        self._feed.check_call(deadline)
        checked = self._converter.check(sound)
        with self._turn(deadline, patience) as dropped:
            for part in self._converter.convert(checked):
                while part:
                    with self._feed.lock:
                        self._wait(lambda: self._queue.room or dropped(), deadline, patience)
                        if dropped():
                            return
                        room = self._queue.room
                        self._queue.add(part[:room])
                    part = part[room:]

    def clear(self) -> None:
        """Drop the sound that waits to be played, and what calls of :meth:`push` have still to add.

        Those calls return at once. What is being played ends within 20 ms, and silence
        follows until the next push: this is how an agent lets itself be interrupted.
        """
        self._feed.check_process()
        with self._feed.lock:
            self._cleared += 1
            self._queue.clear()

    def end(self) -> None:
        """Play the buffered sound, then end the track; :meth:`wait` waits for that.

        Nothing can be pushed any more: calls that still wait for room fail. Ending again
        does nothing.
        """
        self._feed.check_process()
        with self._feed.lock:
            self._ended = True
            self._feed.moved.notify_all()
            self._end_if_idle()

    def wait_drained(self, timeout: float | None = None) -> None:
        """Wait until all pushed sound has been played, or dropped.

        Args:
            timeout: Seconds to wait; ``None`` waits until then, or for Ctrl-C; 0 polls.

        Raises:
            MeteredTimeoutError: It was not played in time. It goes on playing.
        """
        deadline = Deadline.of(timeout)
        self._feed.check_call(deadline)
        with self._feed.lock:
            while not self._feed.stopped:
                self._queue.pass_time()
                if not self._queue.sound and not self._turns:
                    return
                left = deadline.left()
                if left == 0:
                    raise MeteredTimeoutError(
                        f"{self._label}: what was pushed was not played within {deadline}"
                        f"{self._unused()}"
                    )
                self._feed.moved.wait(min(left, PRODUCER_POLL, WAIT_SLICE))

    @contextmanager
    def _turn(self, deadline: Deadline, patience: Deadline) -> Iterator[Callable[[], bool]]:
        """Push while no other call does; yield a function: was all dropped since?"""
        me = (threading.get_ident(), object())
        try:
            with self._feed.lock:
                # (As a list: a signal handler may push in the middle of this.)
                if deadline.timeout and me[0] in [thread for thread, _ in list(self._turns)]:
                    raise WrongThreadError(
                        f"{self._label}: a signal handler or finalizer that has interrupted a "
                        "push cannot wait for the end of it; push with timeout=0 there"
                    )
                before = self._cleared
                self._turns.append(me)
                self._wait(lambda: self._turns[0] is me, deadline, patience)
            if self._converted_since != before:
                self._converter.reset()
                self._converted_since = before
            yield lambda: self._cleared != before
        finally:
            # (No call before it: Ctrl-C, which comes at calls, cannot keep this one out.)
            try:
                self._turns.remove(me)
            except ValueError:  # Ctrl-C came before
                pass
            with self._feed.lock:
                self._feed.moved.notify_all()
                self._end_if_idle()

    # --- with the lock held ---

    def _end_if_idle(self) -> None:
        """End the track, if that is wanted, once no call pushes any more: they leave at once."""
        if self._ended and not self._turns and not self._queue.ending:
            self._queue.add(self._converter.flush())
            self._queue.end()

    def _wait(self, ready: Callable[[], object], deadline: Deadline, patience: Deadline) -> None:
        """Wait until a push may go on; raise once the source has ended."""
        while True:
            self._queue.pass_time()
            if self._ended or self._feed.stopped:
                how = "ended" if self._ended else "stopped"
                raise ClosedError(f"{self._label} has been {how}: make another one to push to")
            if ready():
                return
            left = deadline.left()
            if not self._feed.started:
                left = min(left, patience.left())
            if left == 0:
                within = deadline if deadline.timeout < math.inf else patience
                raise MeteredTimeoutError(
                    f"{self._label}: no room for the rest of this sound within {within}, so it "
                    f"has been dropped{self._unused()}"
                )
            self._feed.moved.wait(min(left, PRODUCER_POLL, WAIT_SLICE))

    def _unused(self) -> str:
        """Return a hint for errors while nobody consumes the track."""
        if self._feed.started:
            return ""
        return (
            "; nobody consumes its track yet: add or publish it, and wait until somebody "
            "is connected"
        )
