"""Writing a media file: formats, encoders, the file itself.

Files are written such that what has been written can be played whenever the process is
killed or the disk is full: MP4 in fragments, turned into an ordinary file at the end
(FFmpeg's ``hybrid_fragmented``); Matroska, WebM and Ogg in short pieces; WAV without a length.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av import AudioFrame, VideoFrame

from metered_sync.bridge import guard
from metered_sync.engine.webrtc.media_frames import AUDIO_RATE, VIDEO_RATE
from metered_sync.errors import MediaError
from metered_sync.media.recording.alignment import Fitter, Mixer

__all__ = ["FORMATS", "Format", "Movie", "Output", "Pictures", "Sound", "check_encoders"]

KEY_FRAMES = 60
"""Pictures between two that can be searched for."""
STEP = VIDEO_RATE // 1000
"""The least time between two pictures: Matroska counts milliseconds."""
LAST = 0.1
"""Seconds for which the last picture is shown, at most."""
STILL = 1 / 30
"""Seconds for which a picture is shown that is the only one."""
H264 = ("libx264", {"preset": "veryfast", "tune": "zerolatency", "crf": "23", "bf": "0"})
VP8 = ("libvpx", {"deadline": "realtime", "cpu-used": "8", "crf": "10", "lag-in-frames": "0"})
BIT_RATES = {"aac": 128_000, "libopus": 96_000}


@dataclass(frozen=True)
class Format:
    """What a file's suffix stands for."""

    container: str
    audio: str
    video: tuple[str, dict[str, str]] | None = None


_MP4, _OGG = Format("mp4", "aac", H264), Format("ogg", "libopus")
FORMATS = {
    ".m4a": Format("mp4", "aac"),
    ".mkv": Format("matroska", "libopus", H264),
    ".mp4": _MP4,
    ".ogg": _OGG,
    ".opus": _OGG,
    ".wav": Format("wav", "pcm_s16le"),
    ".webm": Format("webm", "libopus", VP8),
}

OPTIONS = {
    "matroska": {"cluster_time_limit": "500"},
    "webm": {"cluster_time_limit": "500"},
    "mp4": {"movflags": "hybrid_fragmented", "frag_duration": "500000"},
    "ogg": {"page_duration": "500000"},
    "wav": {},
}
COMMON = {"flush_packets": "1", "max_interleave_delta": "1000000"}


def check_encoders(format: Format, path: str) -> None:
    """Raise if PyAV, of which there are builds with less in them, cannot encode this."""
    needed = [format.audio] if format.video is None else [format.audio, format.video[0]]
    lacking = [name for name in needed if name not in av.codecs_available]
    if lacking:
        raise MediaError(
            f"{path!r} cannot be written: this build of PyAV lacks the encoder "
            f"{' and '.join(lacking)}; use PyAV's wheel from PyPI, or another suffix"
        )


class Output:
    """A file that FFmpeg writes to. After the first error it takes no more bytes.

    It is cut back then to where it was complete (:meth:`keep`), and stays as it is, though
    FFmpeg is told to close it all the same.
    """

    def __init__(self, path: str) -> None:
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115
        self._born = guard.generation()
        self._at = 0
        self._kept = 0
        self.size = 0
        """Bytes written."""
        self.error: OSError | None = None
        self.closed = False

    def write(self, data: Any) -> int:
        """Write all of it; in a forked child, where FFmpeg may end the file, nothing."""
        if self.error is None and self._born == guard.generation():
            try:
                self._file.seek(self._at)
                left = memoryview(data)
                while left:
                    left = left[self._file.write(left) :]
                self.size = max(self.size, self._file.tell())
            except OSError as error:
                self.fail(error)
                raise
        self._at += len(data)
        return len(data)

    def keep(self) -> None:
        """Take note that the file is complete as far as it goes."""
        self._kept = self.size

    def fail(self, error: OSError) -> None:
        """Take nothing more, and forget what is not complete."""
        if self.error is None:
            self.error = error
            with contextlib.suppress(OSError):
                self._file.truncate(self._kept)
                self.size = self._kept

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to another position."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}
        self._at = start[whence] + offset
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def close(self) -> None:
        """Close it, for good. (Not what FFmpeg's end calls: a network disk may fail here.)"""
        if not self.closed:
            self.closed = True
            self._file.close()


class Movie:
    """A file with its streams; all of them are added before anything is written."""

    def __init__(self, output: Output, format: Format) -> None:
        self.format = format
        self._output = output
        self._container: Any = av.open(
            output,
            "w",
            format=format.container,
            options={**COMMON, **OPTIONS[format.container]},
        )

    def add_pictures(self, width: int, height: int) -> Pictures:
        """Add a stream of pictures."""
        assert self.format.video is not None
        codec, options = self.format.video
        stream = self._container.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, VIDEO_RATE)
        stream.codec_context.gop_size = KEY_FRAMES
        if codec == "libvpx":
            stream.codec_context.bit_rate = max(width * height * 3, 200_000)
        return Pictures(self, stream, Fitter(width, height))

    def add_sound(self) -> Sound:
        """Add a stream of sound."""
        stream = self._container.add_stream(self.format.audio, rate=AUDIO_RATE)
        stream.layout = "stereo"
        if self.format.audio in BIT_RATES:
            stream.codec_context.bit_rate = BIT_RATES[self.format.audio]
        return Sound(self, stream)

    def mux(self, packet: Any) -> None:
        """Write what an encoder gave."""
        self._container.mux(packet)
        self._output.keep()

    def close(self) -> None:
        """Write the end of the file."""
        self._container.close()


class Pictures:
    """A stream of pictures."""

    kind = "video"

    def __init__(self, movie: Movie, stream: Any, fitter: Fitter) -> None:
        self.codec: str = stream.codec_context.codec.name
        self.frames = 0
        """Pictures written."""
        self.end = 0.0
        """Where the last one ends, in seconds."""
        self.fitter = fitter
        self._movie = movie
        self._stream = stream
        self._packet: Any = None
        self._last = -STEP

    def write(self, frame: VideoFrame, at: float) -> None:
        """Write a picture that is to be shown from ``at`` seconds on; the first one from 0."""
        fitted = self.fitter.fit(frame)
        wanted = round(at * VIDEO_RATE) if self.frames else 0
        self._last = max(wanted, self._last + STEP)
        fitted.pts, fitted.time_base = self._last, Fraction(1, VIDEO_RATE)
        for packet in self._stream.encode(fitted):
            self._put(packet)
        self.frames += 1
        self.end = self._last / VIDEO_RATE + STILL

    def flush(self) -> None:
        """Write what the encoder holds."""
        if self.frames:
            for packet in self._stream.encode(None):
                self._put(packet)
        if self._packet is not None:
            self._mux(self._packet, self._packet.duration or round(STILL * VIDEO_RATE))

    def _put(self, packet: Any) -> None:
        before, self._packet = self._packet, packet
        if before is not None:
            duration = packet.pts - before.pts
            packet.duration = min(duration, round(LAST * VIDEO_RATE))
            self._mux(before, duration)

    def _mux(self, packet: Any, duration: int) -> None:
        packet.duration = duration
        self.end = (packet.pts + duration) / VIDEO_RATE
        self._movie.mux(packet)


class Sound:
    """A stream of sound, mixed from any number of tracks."""

    kind = "audio"

    def __init__(self, movie: Movie, stream: Any) -> None:
        self.codec: str = stream.codec_context.codec.name
        self.frames = 0
        """Packets written."""
        self.mixer = Mixer()
        self._movie = movie
        self._stream = stream

    @property
    def end(self) -> float:
        """Where it ends, in seconds."""
        return self.mixer.position / AUDIO_RATE

    def write_until(self, position: int) -> None:
        """Write what is mixed, up to a position in samples."""
        while (at := self.mixer.position) < position:
            # (Not all at once: after a long pause there is much silence to write.)
            samples = self.mixer.take(min(position, at + AUDIO_RATE // 10))
            frame = AudioFrame.from_ndarray(samples.reshape(1, -1), "s16", "stereo")
            frame.sample_rate = AUDIO_RATE
            frame.pts, frame.time_base = at, Fraction(1, AUDIO_RATE)
            self._put(self._stream.encode(frame))

    def flush(self) -> None:
        """Write what the encoder holds."""
        if self.mixer.position:
            self._put(self._stream.encode(None))

    def _put(self, packets: Any) -> None:
        for packet in packets:
            self._movie.mux(packet)
            self.frames += 1
