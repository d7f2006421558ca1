"""Encode pictures, and mux them and sound into a media file.

Files are written such that what has been written can be played whenever the process is
killed or the disk is full: MP4 in fragments, turned into an ordinary file at the end
(FFmpeg's ``hybrid_fragmented``); Matroska, WebM and Ogg in short pieces; WAV without a length.
"""

from __future__ import annotations

import contextlib
import io
import struct
from fractions import Fraction
from typing import Any

import av
from av import CodecContext, Packet, VideoFrame

from metered_sync.engine.webrtc.media_frames import AUDIO_RATE, VIDEO_RATE
from metered_sync.engine.webrtc.picture_extensions import Colours
from metered_sync.engine.webrtc.pictures import describe
from metered_sync.media.pyav import READ_ERRORS
from metered_sync.media.recording.fitting import PictureFitter
from metered_sync.media.recording.formats import ENCODERS, FileFormat
from metered_sync.media.recording.output_file import OutputFile
from metered_sync.media.recording.sound import AudioStream

__all__ = ["Muxer", "PacketStream", "VideoStream", "decoded_size"]

PICTURES_PER_KEY_FRAME = 60
"""Pictures from one key frame, which can be searched for, to the next."""
MIN_PICTURE_TICKS = VIDEO_RATE // 1000
"""The least time between two pictures, in 1/90000 s: Matroska counts milliseconds."""
MAX_LAST_PICTURE = 0.1
"""Seconds for which the last picture is shown, at most."""
SINGLE_PICTURE = 1 / 30
"""Seconds for which the only picture of a file is shown."""
AUDIO_BIT_RATES = {"aac": 128_000, "libopus": 96_000}
"""Bits per second of the encoders that can choose."""
CONTAINER_OPTIONS = {
    "matroska": {"cluster_time_limit": "500"},
    "webm": {"cluster_time_limit": "500"},
    "mp4": {"movflags": "hybrid_fragmented", "frag_duration": "500000"},
    "ogg": {"page_duration": "500000"},
    "wav": {},
}
"""FFmpeg's options for each container."""
COMMON_OPTIONS = {"flush_packets": "1", "max_interleave_delta": "1000000"}
"""FFmpeg's options for all containers: packets reach the file soon."""


class Muxer:
    """Write streams to a file; all of them are added before anything is written."""

    def __init__(self, output: OutputFile, format: FileFormat) -> None:
        self.format = format
        self._output = output
        self._container: Any = av.open(
            output,
            "w",
            format=format.container,
            options={**COMMON_OPTIONS, **CONTAINER_OPTIONS[format.container]},
        )

    def add_pictures(self, width: int, height: int) -> VideoStream:
        """Add a stream of pictures."""
        assert self.format.video is not None
        codec, options = self.format.video
        stream = self._container.add_stream(codec, rate=30, options=options)
        _set_up(stream.codec_context, width, height)
        return VideoStream(self, stream, PictureFitter(width, height))

    def add_packets(
        self, codec: str, first: bytes, size: tuple[int, int], colours: Colours | None = None
    ) -> PacketStream:
        """Add a stream of pictures that are encoded already; ``first`` is a key frame.

        ``colours`` are those that they do not say themselves.
        """
        with av.open(io.BytesIO(_sample(codec, first, size)), format=SAMPLES[codec]) as sample:
            stream = self._container.add_stream_from_template(sample.streams.video[0])
        if colours is not None:
            describe(stream.codec_context)
            stream.codec_context.colorspace, stream.codec_context.color_range = colours
        return PacketStream(self, stream, codec, size)

    def add_sound(self, *, passes: bool = False) -> AudioStream:
        """Add a stream of sound; with ``passes`` for what is encoded as the file has it."""
        stream = self._container.add_stream(self.format.audio, rate=AUDIO_RATE)
        stream.layout = "stereo"
        if self.format.audio in AUDIO_BIT_RATES:
            stream.codec_context.bit_rate = AUDIO_BIT_RATES[self.format.audio]
        return AudioStream(self.mux, stream, passes=passes)

    def mux(self, packet: Any) -> None:
        """Write a packet of an encoder."""
        self._container.mux(packet)
        self._output.keep()

    def close(self) -> None:
        """Write the end of the file."""
        self._container.close()


SAMPLES = {"h264": "h264", "vp8": "ivf"}
"""The simplest files that FFmpeg reads a codec from, whose parameters a stream takes over."""


def _sample(codec: str, first: bytes, size: tuple[int, int]) -> bytes:
    if codec == "h264":
        return first
    head = struct.pack("<4sHH4sHHIII4x", b"DKIF", 0, 32, b"VP80", *size, VIDEO_RATE, 1, 1)
    return head + struct.pack("<IQ", len(first), 0) + first


def decoded_size(codec: str, first: bytes) -> tuple[int, int] | None:
    """Return width and height of a key frame, in pixels; ``None``: it cannot be decoded."""
    decoder: Any = CodecContext.create(codec, "r")
    decoder.thread_count = 1
    with contextlib.suppress(*READ_ERRORS):
        for packet in Packet(first), None:
            for frame in decoder.decode(packet):
                return frame.width, frame.height
    return None


class _Pictures:
    """A stream of pictures in a file, each of which lasts until the next."""

    kind = "video"

    def __init__(self, muxer: Muxer, stream: Any, codec: str) -> None:
        self.codec = codec
        self.frames = 0
        """Pictures written."""
        self.end = 0.0
        """The end of the last picture, in seconds."""
        self._muxer = muxer
        self._stream = stream
        self._packet: Any = None
        self._last = -MIN_PICTURE_TICKS

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, in pixels."""
        raise NotImplementedError

    def _stamp(self, at: float) -> int:
        wanted = round(at * VIDEO_RATE) if self.frames else 0
        self._last = max(wanted, self._last + MIN_PICTURE_TICKS)
        return self._last

    def _written(self) -> None:
        self.frames += 1
        self.end = self._last / VIDEO_RATE + SINGLE_PICTURE

    def flush(self) -> None:
        """Write what is held."""
        if self._packet is not None:
            self._mux(self._packet, self._packet.duration or round(SINGLE_PICTURE * VIDEO_RATE))

    def _put(self, packet: Any) -> None:
        before, self._packet = self._packet, packet
        if before is not None:
            duration = packet.pts - before.pts
            packet.duration = min(duration, round(MAX_LAST_PICTURE * VIDEO_RATE))
            self._mux(before, duration)

    def _mux(self, packet: Any, duration: int) -> None:
        packet.duration = duration
        self.end = (packet.pts + duration) / VIDEO_RATE
        self._muxer.mux(packet)


class PacketStream(_Pictures):
    """Write pictures that are encoded already into a stream of a file.

    It takes frames, too, for a track that has become another: they are encoded, in the codec of the
    stream and its first picture's size.
    """

    def __init__(self, muxer: Muxer, stream: Any, codec: str, size: tuple[int, int]) -> None:
        super().__init__(muxer, stream, codec)
        self._size = size
        self._encoder: _Encoder | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the first picture, in pixels."""
        return self._size

    def write(self, picture: Any, at: float) -> None:
        """Write a picture to be shown from ``at`` seconds on; the first, a key frame, from 0."""
        stamp = self._stamp(at)
        if isinstance(picture, VideoFrame):
            self._encoder = self._encoder or _Encoder(self.codec, self._size)
            self._write(self._encoder.encode(picture, stamp))
        else:
            own: Any = Packet(bytes(picture))  # (the other one may be on its way to senders)
            own.pts, own.is_keyframe = stamp, picture.is_keyframe
            self._write([own])
        self._written()

    def _write(self, packets: list[Any]) -> None:
        for packet in packets:
            packet.dts, packet.time_base = packet.pts, Fraction(1, VIDEO_RATE)
            packet.stream = self._stream
            self._put(packet)

    def flush(self) -> None:
        """Write what is held, by the encoder as well."""
        if self._encoder is not None:
            self._write(self._encoder.flush())
        super().flush()


class _Encoder:
    """Encode pictures such that a stream can go on with them, whatever it began with."""

    def __init__(self, codec: str, size: tuple[int, int]) -> None:
        name, options = ENCODERS[codec]
        width, height = max(size[0] & ~1, 2), max(size[1] & ~1, 2)
        self._fitter = PictureFitter(width, height)
        self._encoder: Any = CodecContext.create(name, "w")
        _set_up(self._encoder, width, height)
        self._encoder.options = options

    def encode(self, frame: VideoFrame, stamp: int) -> list[Any]:
        """Return the packets of a picture, the first of which is a key frame with parameters."""
        fitted = self._fitter.fit(frame)
        fitted.pts, fitted.time_base = stamp, Fraction(1, VIDEO_RATE)
        return list(self._encoder.encode(fitted))

    def flush(self) -> list[Any]:
        """Return the packets that are held."""
        return list(self._encoder.encode(None))


def _set_up(encoder: Any, width: int, height: int) -> None:
    """Tell an encoder of the pictures that it will get."""
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base = Fraction(1, VIDEO_RATE)
    encoder.gop_size = PICTURES_PER_KEY_FRAME
    describe(encoder)
    if encoder.codec.name == "libvpx":
        encoder.bit_rate = max(width * height * 3, 200_000)


class VideoStream(_Pictures):
    """Encode pictures into a stream of a file."""

    def __init__(self, muxer: Muxer, stream: Any, fitter: PictureFitter) -> None:
        super().__init__(muxer, stream, stream.codec_context.codec.name)
        self.fitter = fitter

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, in pixels."""
        return self.fitter.width, self.fitter.height

    def write(self, frame: VideoFrame, at: float) -> None:
        """Write a picture to be shown from ``at`` seconds on; the first one from 0."""
        fitted = self.fitter.fit(frame)
        fitted.pts, fitted.time_base = self._stamp(at), Fraction(1, VIDEO_RATE)
        for packet in self._stream.encode(fitted):
            self._put(packet)
        self._written()

    def flush(self) -> None:
        """Write the frames that the encoder holds."""
        if self.frames:
            for packet in self._stream.encode(None):
                self._put(packet)
        super().flush()
