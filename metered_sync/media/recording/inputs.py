"""Take the frames of recorded tracks, hold them until they are placed, and pass them on.

A track's frames are put into its :class:`TrackReader`, which never blocks; all readers of a
recording pass them on to one queue. The recording's thread takes them out and gives each to
its :class:`RecordedTrack`, which finds their place in time.

What is encoded already comes as packets: of sources that are, and of tracks that arrive in a codec
that the file takes. An arriving track that changes to something else, to another codec, or to
pictures that lie on their side, is decoded from there on. Packets of sound are decoded here where
there is something to mix them with.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection
from fractions import Fraction
from typing import Any, NamedTuple

from av import CodecContext, Packet

from metered_sync.bridge import engines
from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.loop import Engine
from metered_sync.bridge.reader import Reader
from metered_sync.engine.sending.access_units import AccessUnits, access_units
from metered_sync.engine.sending.fed_track import encoded_format
from metered_sync.engine.sending.packet_queue import is_key
from metered_sync.engine.sending.tee import attach_reader, detach_reader
from metered_sync.engine.webrtc.encoded_frames import EncodedFrame, EncodedFrameReader
from metered_sync.engine.webrtc.media_frames import AUDIO_RATE, VIDEO_RATE
from metered_sync.engine.webrtc.picture_extensions import Colours
from metered_sync.engine.webrtc.pictures import is_plain
from metered_sync.errors import MediaError
from metered_sync.media.pyav import READ_ERRORS
from metered_sync.media.recording.clock import TrackClock
from metered_sync.media.recording.mixing import MixerInput
from metered_sync.media.recording.muxing import PacketStream, VideoStream
from metered_sync.media.recording.sound import AudioStream
from metered_sync.media.tracks.given import AnyTrack
from metered_sync.media.tracks.track import RemoteTrack, core_of

__all__ = ["PLACING_TIME", "QueuedFrame", "RecordedTrack"]

MAX_WAITING_FRAMES = {"audio": 500, "video": 30}
"""Frames of one track that wait for the encoder, at most: 10 s of sound, 1 s of pictures."""
MAX_UNITS = 256
"""Units of a picture of H.264 that are looked at, which happens on the loop; slices are units."""
PLACING_TIME = 0.4
"""Seconds of frames by which a track is placed."""


class QueuedFrame(NamedTuple):
    """A frame on its way to the recording's thread, or the end of a track."""

    track: RecordedTrack
    frame: Any
    """``None``: the track has ended."""
    media: float
    """Seconds on the track's own clock."""
    arrived: float
    """When the frame came, or would have without buffers on the way (``time.monotonic()``)."""
    epoch: int
    """How often the track's connection was rebuilt before."""


class TrackReader(EncodedFrameReader):
    """Take one track's frames on any thread, and pass them on to the recording's queue."""

    def __init__(
        self,
        recorded: RecordedTrack,
        track: AnyTrack,
        inbox: Reader[QueuedFrame],
        codecs: Collection[str],
    ) -> None:
        super().__init__(f"recording of {recorded.label}")
        self.reads_frames = not codecs
        self.taken = 0
        """Frames that the recording's thread has taken out."""
        self._given = 0
        self._recorded = recorded
        self._track = track
        self._inbox = inbox
        self._limit = MAX_WAITING_FRAMES[track.kind]
        self._engine: Engine | None = None
        """On whose loop a local track is read."""
        self._lacking = False
        """Whether only a key frame can follow, for something was dropped."""
        self._codecs = codecs
        self._units: AccessUnits | None = None
        """Reads the frames of a track that arrives, as long as they are taken as they are."""
        self._latest = -math.inf
        """When the latest of them arrived."""

    def attach(self, deadline: Deadline) -> None:
        """Have the track deliver its frames here."""
        if isinstance(self._track, RemoteTrack):
            core_of(self._track).incoming.add(self)
        else:
            what = f"record {self._recorded.label}"
            with engines.in_use() as engine:
                self._engine = engine
                engine.call(attach_reader, self._track, self, deadline=deadline, what=what)

    def detach(self) -> None:
        """Have the track deliver no more frames here."""
        if isinstance(self._track, RemoteTrack):
            core_of(self._track).incoming.remove(self)
        elif self._engine is not None:
            self._engine.post(detach_reader, self._track, self)

    @property
    def lacks_key_frame(self) -> bool:
        """Whether only a key frame can be taken."""
        return self._lacking or self._recorded.format is None

    def take(self, encoded: EncodedFrame) -> bool:
        """Pass on a frame that arrives; ``False``: they are to be decoded from here on."""
        recorded = self._recorded
        if self._units is None and encoded.codec in self._codecs:
            self._units = access_units(encoded.codec, recorded.label)
            recorded.colours = _told(encoded.colours)
        if self._units is None or encoded.turns or not self._fits(encoded):
            return False
        try:
            unit = self._units.read(encoded.data)
        except MediaError:  # it has B-frames
            return False
        if unit is None:  # parameters alone, or a key frame without any
            return not encoded.key
        if recorded.format is None:
            if not unit.key:
                return True  # nobody could decode it
            recorded.format = self._units.format
        packet: Any = Packet(unit.data)
        rate = VIDEO_RATE if recorded.kind == "video" else AUDIO_RATE
        packet.pts, packet.time_base = encoded.pts, Fraction(1, rate)
        packet.is_keyframe = unit.key
        self._latest = encoded.arrived
        self._pass_on(packet, encoded.arrived)
        return True

    def _fits(self, encoded: EncodedFrame) -> bool:
        """Say whether a file's stream can hold a frame beside those before it."""
        recorded, colours = self._recorded, _told(encoded.colours)
        codec = encoded.codec if recorded.format is None else recorded.format.codec
        if (encoded.codec, colours) != (codec, recorded.colours):
            return False
        if codec == "h264":
            return encoded.data.count(b"\0\0\x01") <= MAX_UNITS
        return colours is None  # VP8 cannot say what others it has

    def put(self, item: Any) -> None:
        """Pass a frame on, or drop and count it where too many wait already."""
        arrived = monotonic()
        if isinstance(self._track, RemoteTrack):
            arrived -= core_of(self._track).incoming.latency
        if arrived > self._latest:  # else it has been passed on as it is
            self._pass_on(item, arrived)

    def _pass_on(self, item: Any, arrived: float) -> None:
        if self.ended or self._inbox.ended:
            return
        if self._given - self.taken >= self._limit or (self._lacking and not is_key(item)):
            self._dropped += 1
            self._lacking = self._recorded.format is not None and self._recorded.kind == "video"
            return
        self._lacking = False
        epoch = self._track.restarts if isinstance(self._track, RemoteTrack) else 0
        media = arrived if (time := _time(item)) is None else time
        self._given += 1
        self._inbox.put(QueuedFrame(self._recorded, item, media, arrived, epoch))

    def end(self, error: BaseException | None = None) -> None:
        """Pass on that the track has ended."""
        if not self.ended:
            super().end(error)
            self._inbox.put(QueuedFrame(self._recorded, None, 0.0, 0.0, 0))


class RecordedTrack:
    """Place the frames of one track in time and write them; on the recording's thread."""

    def __init__(
        self, track: AnyTrack, inbox: Reader[QueuedFrame], codecs: Collection[str] = ()
    ) -> None:
        """Prepare; of frames that arrive, those in ``codecs`` are taken as they are."""
        name = track.name if isinstance(track, RemoteTrack) else None
        self.label = f"{track.kind} track {name or track.id!r}"
        self.kind: str = track.kind
        self.format = encoded_format(track)
        """The format of what comes, where that is encoded already, and known."""
        self.encoded = self.format is not None
        """Whether it is encoded already at its source."""
        self.colours: Colours | None = None
        """The colours of pictures that arrived, and are taken as they are, if a file must tell."""
        self._decoder: Any = None
        self.reader = TrackReader(self, track, inbox, codecs)
        self.held: list[QueuedFrame] = []
        """Frames that wait until the track can be placed."""
        self.came = False
        """Whether any frame of the track came."""
        self.ended = False
        self.sink: VideoStream | PacketStream | AudioStream | MixerInput | None = None
        self._clock = TrackClock()
        self._epoch = 0

    @property
    def full(self) -> bool:
        """Whether more frames are held than should be."""
        return len(self.held) > 2 * MAX_WAITING_FRAMES[self.kind]

    def earliest(self) -> float:
        """Return the moment at which the first held frame belongs."""
        return self.held[0].media + min(item.arrived - item.media for item in self.held)

    def take(self, item: QueuedFrame, zero: float | None) -> None:
        """Write a frame, or hold it until it can be placed."""
        if item.frame is None:
            self.ended = True
            return
        if not self.came and not is_key(item.frame):
            return  # nothing in the file could be decoded up to the next key frame
        self.came = True
        if item.epoch != self._epoch:
            self.release(zero)
            self._clock, self._epoch = TrackClock(), item.epoch
        if zero is None or self.held or not self._clock.fits(item.media, item.arrived):
            self.held.append(item)
        else:
            self._write(item, zero)

    def advance(self, zero: float, now: float) -> None:
        """Write the held frames once they are enough to be placed by."""
        if self.held and (self.ended or self.full or now - self.held[0].arrived >= PLACING_TIME):
            self.release(zero)

    def release(self, zero: float | None) -> None:
        """Place the held frames, and write them."""
        if self.held and zero is not None:
            held, self.held = self.held, []
            self._clock.anchor((item.media, item.arrived) for item in held)
            for item in held:
                self._write(item, zero)

    def _write(self, item: QueuedFrame, zero: float) -> None:
        at = self._clock.place(item.media, item.arrived) - zero
        if isinstance(self.sink, AudioStream) and not isinstance(item.frame, Packet):
            self.sink = self.sink.mix()
        if isinstance(self.sink, MixerInput):
            for frame in self._decoded(item.frame):
                self.sink.write(frame, item.media, at)
        elif isinstance(item.frame, Packet) and isinstance(self.sink, VideoStream):
            pass  # the file had been begun without it, or it is broken
        elif self.sink is not None:
            self.sink.write(item.frame, at)

    def _decoded(self, frame: Any) -> list[Any]:
        """Return sound to be mixed, which may be encoded already."""
        if not isinstance(frame, Packet):
            return [frame]
        if self._decoder is None:
            self._decoder = CodecContext.create("libopus", "r")
            self._decoder.format, self._decoder.layout = "s16", "stereo"
            self._decoder.sample_rate = AUDIO_RATE
        with contextlib.suppress(*READ_ERRORS):
            return list(self._decoder.decode(frame))
        return []


def _told(colours: Colours | None) -> Colours | None:
    """Return colours that a file must tell; ``None``: those that players suppose."""
    return None if is_plain(colours) else colours


def _time(item: Any) -> float | None:
    """Return the seconds that a frame, or a packet, says."""
    if item.pts is None or not item.time_base:
        return None
    return float(item.pts * item.time_base)
