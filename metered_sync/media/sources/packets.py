"""Take the packets of containers as they are: pictures in H.264 or VP8, sound in Opus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from av import Packet
from av.bitstream import BitStreamFilterContext

from metered_sync.engine.sending.access_units import START_CODE, AccessUnit, access_units
from metered_sync.engine.sending.feed import Feed
from metered_sync.engine.webrtc.media_frames import AUDIO_RATE, VIDEO_RATE
from metered_sync.engine.webrtc.stream_formats import StreamFormat
from metered_sync.errors import MediaError
from metered_sync.media.file_objects import FileObject
from metered_sync.media.pyav import OPEN_ERRORS, READ_ERRORS, media_errors, open_file
from metered_sync.media.sources.demuxing import Reading, picture_interval, streams_of
from metered_sync.media.sources.playout import StreamDelay, StreamLostError

__all__ = [
    "RATES",
    "PacketPlayout",
    "PacketReading",
    "PacketStream",
    "Sendable",
    "packet_of",
    "probe_packets",
    "sendable_streams",
]

EXAMINED = 120
"""Pictures of a file that are looked at before it is played, with the sound between them; where it
has none, pieces of sound."""
RATES = {"video": VIDEO_RATE, "audio": AUDIO_RATE}
"""Ticks a second of the timestamps of packets, by kind."""
NAMES = {
    "aac": "AAC",
    "av1": "AV1",
    "hevc": "H.265 (HEVC)",
    "mjpeg": "MJPEG",
    "mp3": "MP3",
    "pcm_alaw": "G.711 (A-law)",
    "pcm_mulaw": "G.711 (µ-law)",
    "vp9": "VP9",
}
"""Codecs that cameras and files have, by FFmpeg's names."""
CODECS = {
    "video": {"h264": "h264", "vp8": "vp8", "libvpx": "vp8"},
    "audio": {"opus": "opus", "libopus": "opus"},
}
"""Those that are sent as they are."""
MAX_CHANNELS = 2
"""Channels of Opus in RTP (RFC 7587, section 7): of more, a packet holds several streams."""
MAX_SOUND_PACKET = 1300
"""Bytes of a packet of Opus: RTP has one in each datagram (RFC 7587, section 4.2), and larger ones
get lost on the way. 20 ms never have more than 1,276 (RFC 6716, section 3.2.1)."""
MIN_INTERVAL = 0.001


class Sendable(NamedTuple):
    """The streams of a container that can be sent as they are, and why others cannot."""

    formats: dict[str, StreamFormat]
    refused: dict[str, str]


class PacketStream:
    """Read the packets of one stream."""

    def __init__(self, stream: Any, label: str) -> None:
        """Prepare.

        Raises:
            MediaError: Another codec than those that can be sent as they are, or too many channels.
        """
        kind: str = stream.type
        self.label = f"{label}: its {'video' if kind == 'video' else 'sound'}"
        name: str = stream.codec_context.name
        codec = CODECS[kind].get(name)
        if codec is None:
            fitting = "H.264 and VP8" if kind == "video" else "Opus"
            other = "audio" if kind == "video" else "video"
            raise MediaError(
                f"{self.label} is {NAMES.get(name, name)}, and only {fitting} can be sent as it "
                f"is: take its .{other} alone, have it encoded so at its origin, or leave "
                "encoded=True out"
            )
        channels = stream.codec_context.layout.nb_channels if codec == "opus" else 0
        if channels > MAX_CHANNELS:
            raise MediaError(
                f"{self.label} is Opus of {channels} channels, and WebRTC carries two as they are: "
                "take its .video alone, have it encoded in stereo at its origin (`ffmpeg -i IN "
                "-c:v copy -ac 2 -c:a libopus OUT.mkv`), or leave encoded=True out"
            )
        header = bytes(stream.codec_context.extradata or b"") if codec == "h264" else b""
        self._filter: Any = None
        if header[:1] == b"\x01":
            self._filter = BitStreamFilterContext("h264_mp4toannexb", stream)
            header = _annex_b(header)
        self._units = access_units(codec, self.label, header)
        self._limit = MAX_SOUND_PACKET if codec == "opus" else None

    @property
    def format(self) -> StreamFormat | None:
        """The format; ``None`` while no parameters have come."""
        return self._units.format

    def read(self, packet: Any) -> list[AccessUnit]:
        """Return what a packet holds, as it is to be sent; nothing of one that is damaged.

        Raises:
            MediaError: It cannot be sent as it is.
        """
        if not packet.size:
            return []
        if self._limit is not None and packet.size > self._limit:
            raise MediaError(
                f"{self.label} has packets of Opus of {packet.size} bytes, and WebRTC carries each "
                f"in one datagram, of {self._limit} bytes at most: have it encoded in packets of "
                "20 ms at its origin (`ffmpeg -i IN -c:v copy -c:a libopus -frame_duration 20 "
                "OUT.mkv`), take its .video alone, or leave encoded=True out"
            )
        try:
            packets = [packet] if self._filter is None else self._filter.filter(packet)
        except READ_ERRORS:
            return []
        units = (self._units.read(bytes(one)) for one in packets)
        return [unit for unit in units if unit is not None]


def _annex_b(header: bytes) -> bytes:
    """Return the parameter sets in the header of an MP4 file (ISO/IEC 14496-15, 5.3.3.1)."""
    units = []
    at = 5
    for mask in (0x1F, 0xFF):
        count, at = (header[at] & mask if at < len(header) else 0), at + 1
        for _ in range(count):
            size = int.from_bytes(header[at : at + 2], "big")
            units.append(header[at + 2 : at + 2 + size])
            at += 2 + size
    return b"".join(START_CODE + unit for unit in units)


def packet_of(unit: AccessUnit, pts: int, kind: str) -> Any:
    """Return a packet for a track."""
    packet: Any = Packet(unit.data)
    packet.pts = packet.dts = pts
    packet.time_base = Fraction(1, RATES[kind])
    packet.is_keyframe = unit.key
    return packet


def sendable_streams(
    streams: Mapping[str, Any], label: str, packets: Iterable[Any] = ()
) -> Sendable:
    """Return which streams can be sent as they are, after a look at some packets of theirs.

    Raises:
        MediaError: None of them can.
    """
    found: dict[int, tuple[str, PacketStream]] = {}
    refused: dict[str, str] = {}
    for kind, stream in streams.items():
        try:
            found[stream.index] = (kind, PacketStream(stream, label))
        except MediaError as error:
            refused[kind] = str(error)
    for packet in packets:
        kind, one = found.get(packet.stream.index, ("", None))
        if one is not None and kind not in refused:
            try:
                one.read(packet)
            except MediaError as error:
                refused[kind] = str(error)
    formats: dict[str, StreamFormat] = {}
    for kind, one in found.values():
        if kind in refused:
            continue
        if one.format is None:
            refused[kind] = (
                f"{one.label} does not begin with its parameters (SPS, PPS), without which nobody "
                "can decode it: leave encoded=True out"
            )
        else:
            formats[kind] = one.format
    if not formats:
        raise MediaError("; and ".join(refused.values()))
    return Sendable(formats, refused)


def probe_packets(
    path: str | FileObject, label: str, *, trusted: bool = False
) -> tuple[Sendable, float | None]:
    """Return which streams of a file can be sent as they are, and its duration in seconds.

    Raises:
        MediaError: It cannot be read, or none of them can.
    """
    with (
        media_errors(f"{path!r} cannot be opened as media", errors=OPEN_ERRORS),
        open_file(path, trusted=trusted) as container,
    ):
        streams = streams_of(container)
        if not streams:
            raise MediaError(f"{path!r} has neither audio nor video")
        duration: int | None = container.duration
        sendable = sendable_streams(streams, label, _first(container, streams))
    return sendable, None if duration is None else duration / 1e6


def _first(container: Any, streams: Mapping[str, Any]) -> Iterator[Any]:
    counted = streams.get("video", streams.get("audio"))
    number = 0
    for packet in container.demux(*streams.values()):
        number += packet.stream.index == counted.index
        if number > EXAMINED:
            return
        yield packet


class PacketReading(Reading):
    """Read the packets of a file from a position on, merged by time.

    Iterating gives ``(seconds, kind, access unit)``; pictures from the key frame before the
    position on.
    """

    def __init__(
        self,
        path: str | FileObject,
        kinds: Iterable[str],
        position: float,
        label: str,
        *,
        trusted: bool = False,
    ) -> None:
        super().__init__(path, tuple(kinds), position, trusted=trusted)
        self._label = label

    def _video(self, stream: Any) -> Iterator[tuple[float, str, Any]]:
        began = False
        for time, unit in self._units_of(stream, picture_interval(stream)):
            began |= unit is None or unit.key
            if began:
                yield time, "video", unit

    def _audio(self, stream: Any) -> Iterator[tuple[float, str, Any]]:
        for time, unit in self._units_of(stream, 0.02):
            if unit is None or time >= self._position:
                yield time, "audio", unit

    def _units_of(self, stream: Any, interval: float) -> Iterator[tuple[float, AccessUnit | None]]:
        reader = PacketStream(stream, self._label)
        following = 0.0
        for packet in self._of(stream):
            if isinstance(packet, float):
                yield packet, None
                continue
            if packet.duration and packet.time_base and stream.type == "audio":
                interval = float(packet.duration * packet.time_base)
            for unit in reader.read(packet):
                stamped = packet.pts is not None and packet.time_base is not None
                time = float(packet.pts * packet.time_base) - self._base if stamped else following
                time = max(time, following - interval + MIN_INTERVAL)
                following = time + interval
                self._ends[stream.type] = following
                yield time, unit


class PacketPlayout:
    """Put a live stream's packets into a feed's queues, as they come."""

    def __init__(self, feed: Feed, label: str) -> None:
        self._feed = feed
        self._label = label
        self._last = dict.fromkeys(RATES, -1)
        self.begin()

    def begin(self) -> None:
        """Expect another stream, whose first packet is due at once."""
        self._streams: dict[str, PacketStream] = {}
        self._delays = {kind: StreamDelay() for kind in RATES}

    def put(self, packet: Any) -> None:
        """Put a packet, unless nobody wants its kind.

        Raises:
            StreamLostError: It cannot be sent as it is (any more).
        """
        kind: str = packet.stream.type
        feed = self._feed
        queue = feed.queues.get(kind)
        if queue is None:
            return
        try:
            if kind not in self._streams:
                self._streams[kind] = PacketStream(packet.stream, self._label)
            units = self._streams[kind].read(packet)
        except MediaError as error:
            raise StreamLostError(str(error)) from None
        for unit in units:
            stamped = packet.pts is not None and packet.time_base is not None
            time = float(packet.pts * packet.time_base) if stamped else None
            due = self._delays[kind].due(time, feed.clock())
            self._last[kind] = max(round(due * RATES[kind]), self._last[kind] + 1)
            queue.put(packet_of(unit, self._last[kind], kind), due, due)
