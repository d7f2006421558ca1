"""Read a media file once: from a position to its end, in the order of playing.

The packets of the streams lie in the file in an order of its own, up to seconds
apart. They are split by stream, decoded only when their turn comes, and the frames
merged by time: so little is decoded ahead, whatever the file's order.
"""

from __future__ import annotations

import errno
import heapq
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any

import av
import numpy as np
from av import AudioFrame, AudioResampler
from av.stream import Disposition

from metered_sync.engine.webrtc.media_frames import (
    AUDIO_RATE,
    SAMPLES_PER_FRAME,
    mixed_down,
    sound_kind,
)
from metered_sync.engine.webrtc.pictures import PictureNormalizer
from metered_sync.errors import MediaError
from metered_sync.media.file_objects import FileObject
from metered_sync.media.pyav import OPEN_ERRORS, READ_ERRORS, media_errors, open_file
from metered_sync.media.sources.discontinuities import continuous

__all__ = ["Reading", "decoded", "pixel_aspect", "probe", "streams_of"]

MIN_SOUND_GAP = 0.1
"""Seconds that must be missing between two pieces of sound to be taken for a gap."""
MAX_KEPT_PACKETS = 500
MAX_KEPT_BYTES = 16 << 20
"""Packets, and bytes, of one stream that are kept while the other's are looked for."""


def streams_of(container: Any) -> dict[str, Any]:
    """Return the first stream of each kind that can be decoded; leave cover pictures out."""
    found: dict[str, Any] = {}
    for stream in container.streams:
        usable = getattr(stream, "codec_context", None) is not None
        cover = bool(stream.disposition & Disposition.attached_pic)
        if stream.type in ("video", "audio") and usable and not cover:
            found.setdefault(stream.type, stream)
    return found


def probe(path: str | FileObject, *, trusted: bool = False) -> tuple[list[str], float | None]:
    """Return the kinds of a file's streams, and its duration in seconds where it says.

    Raises:
        MediaError: It cannot be read or decoded, or has neither sound nor pictures.
    """
    with (
        media_errors(f"{path!r} cannot be opened as media", _remedy, errors=OPEN_ERRORS),
        open_file(path, trusted=trusted) as container,
    ):
        kinds = list(streams_of(container))
        duration = container.duration
        others = sorted({stream.type for stream in container.streams} - set(kinds))
    if not kinds:
        what = f" (only {', '.join(others)} that cannot be played)" if others else ""
        raise MediaError(f"{path!r} has neither audio nor video{what}")
    with (
        media_errors(f"{path!r} cannot be decoded"),
        Reading(path, kinds, 0.0, trusted=trusted) as reading,
    ):
        decodable = next(iter(reading), None) is not None
    if not decodable:
        raise MediaError(f"{path!r} cannot be decoded: there is not one frame in it")
    return kinds, None if duration is None else duration / 1e6


def _remedy(error: BaseException) -> str:
    """Return what to do about a file that FFmpeg cannot, or was told not to, open."""
    if isinstance(error, av.error.InvalidDataError):
        return "it is no film and no sound, or a damaged one"
    if getattr(error, "errno", None) != errno.EINVAL:
        return ""
    return (
        "a playlist, a list of files or a row of pictures opens whatever files it names: pass "
        "trusted=True where you trust it"
    )


class Reading:
    """Read the frames of a file from a position on, merged by time.

    Iterating gives ``(seconds, kind, frame)``: pictures in yuv420p, sound in s16,
    stereo, 48 kHz, 960 samples a frame. Use with ``with``.
    """

    def __init__(
        self,
        path: str | FileObject,
        kinds: Collection[str],
        position: float,
        *,
        trusted: bool = False,
    ) -> None:
        self._container = open_file(path, trusted=trusted)
        try:
            found = streams_of(self._container)
            self._streams = {kind: found[kind] for kind in kinds if kind in found}
            if not self._streams:
                raise MediaError(f"{path!r} has changed: its {' and '.join(kinds)} is gone")
            self._base = (self._container.start_time or 0) / 1e6
            self._position = position
            if position > 0:
                # Where a file cannot be searched, all of it up to there is decoded.
                with suppress(*READ_ERRORS):
                    self._container.seek(int((self._base + position) * 1e6))
        except BaseException:
            self._container.close()
            raise
        self._packets: dict[int, deque[Any]] = {
            stream.index: deque() for stream in self._streams.values()
        }
        packets = self._container.demux(*self._streams.values())
        self._demuxed: Iterator[Any] = continuous(self._container, packets)
        self._ends = dict.fromkeys(self._streams, 0.0)

    @property
    def ends(self) -> Collection[float]:
        """The end of each stream, in seconds, once all has been read."""
        return self._ends.values()

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *exc: object) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[tuple[float, str, Any]]:
        decoders = {"video": self._video, "audio": self._audio}
        streams = [decoders[kind](stream) for kind, stream in self._streams.items()]
        for time, kind, frame in heapq.merge(*streams, key=lambda item: item[0]):
            if frame is not None:
                yield time, kind, frame

    def _of(self, stream: Any) -> Iterator[Any]:
        """Yield a stream's packets; instead of one, a time up to which there is none."""
        mine = self._packets[stream.index]
        while True:
            while not mine:
                packet = next(self._demuxed, None)
                if packet is None:
                    return
                theirs = self._packets[packet.stream.index]
                theirs.append(packet)
                if theirs is not mine and (
                    len(theirs) > MAX_KEPT_PACKETS or sum(p.size for p in theirs) > MAX_KEPT_BYTES
                ):
                    at = packet.dts if packet.pts is None else packet.pts
                    if at is not None and packet.time_base is not None:
                        yield float(at * packet.time_base) - self._base
            yield mine.popleft()

    def _video(self, stream: Any) -> Iterator[tuple[float, str, Any]]:
        interval = picture_interval(stream)
        last: float | None = None
        normalizer = PictureNormalizer(pixel_aspect(stream))
        for packet in self._of(stream):
            if isinstance(packet, float):
                yield packet, "video", None
                continue
            for frame in decoded(packet):
                next_time = 0.0 if last is None else last + interval
                time = next_time if frame.time is None else frame.time - self._base
                if last is not None and time <= last:
                    time = next_time
                last = time
                self._ends["video"] = time + interval
                if time + interval > self._position:
                    yield time, "video", normalizer.normal(frame)

    def _audio(self, stream: Any) -> Iterator[tuple[float, str, Any]]:
        resampler: AudioResampler | None = None
        shape = None
        count = 0  # the time of what comes out next, in samples
        taken = 0.0  # the time of what goes in next, likewise
        for packet in self._of(stream):
            if isinstance(packet, float):
                yield packet, "audio", None
                continue
            for frame in decoded(packet):
                at = taken if frame.time is None else (frame.time - self._base) * AUDIO_RATE
                if (
                    resampler is None or at - taken > MIN_SOUND_GAP * AUDIO_RATE
                ):  # something is missing
                    count += round(at - taken)
                    taken = at
                frame = mixed_down(frame)
                if shape != sound_kind(frame):
                    shape = sound_kind(frame)
                    resampler = AudioResampler("s16", "stereo", AUDIO_RATE, SAMPLES_PER_FRAME)
                    count = round(taken)
                taken += frame.samples * AUDIO_RATE / frame.sample_rate
                frame.pts = None
                assert resampler is not None
                for piece in resampler.resample(frame):
                    if (count + SAMPLES_PER_FRAME // 2) / AUDIO_RATE > self._position:
                        yield count / AUDIO_RATE, "audio", piece
                    count += SAMPLES_PER_FRAME
                    self._ends["audio"] = count / AUDIO_RATE
        if resampler is not None:
            for piece in resampler.resample(None):
                self._ends["audio"] = (count + piece.samples) / AUDIO_RATE
                yield count / AUDIO_RATE, "audio", _padded(piece)
                count += SAMPLES_PER_FRAME


def pixel_aspect(stream: Any) -> float:
    """Return how much wider than high a stream's pixels are, as far as its container says."""
    return float(stream.sample_aspect_ratio or 1)


def decoded(packet: Any) -> list[Any]:
    """Return the frames of a packet; none of one that is damaged."""
    try:
        return list(packet.decode())
    except READ_ERRORS:
        return []


def _padded(frame: AudioFrame) -> AudioFrame:
    """Return the last piece of sound, filled up with silence."""
    if frame.samples == SAMPLES_PER_FRAME:
        return frame
    samples = np.zeros((1, SAMPLES_PER_FRAME * 2), np.int16)
    samples[:, : frame.samples * 2] = frame.to_ndarray()
    padded = AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
    padded.sample_rate = AUDIO_RATE
    return padded


def picture_interval(stream: Any) -> float:
    """Return the seconds from picture to picture that a stream tells; where it does not, 1/30."""
    rate = stream.average_rate or stream.guessed_rate
    return float(1 / rate) if rate and rate <= 1000 else 1 / 30
