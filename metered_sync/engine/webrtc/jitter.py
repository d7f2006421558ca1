"""Hand whole frames to the decoder: sooner than aiortc does, and only where somebody reads.

aiortc (1.14 to 1.16) holds each picture until the next one begins: it hands frame N to the
decoder with the first packet of frame N+1, and one frame with each packet, so that what
waited for a lost packet may stay late for ever. Sound is held for 80 ms, and for 320 ms
after the first loss. What stands in for its jitter buffers here hands over

- a picture when its last packet has come (the RTP marker bit) and nothing before it is
  missing, and all that waited together with it;
- a piece of sound at once, where nothing before it is missing;
- nothing while nobody wants it; then, from the next key frame on, which is asked for at once: the
  next packet may be long in coming;
- pictures and sound also to those who take them as they are encoded, whether frames are decoded or
  not;
- nothing that would wait for more than ``MAX_DECODER_WAIT`` behind others: where the decoder
  is slower than the stream, those that wait are dropped, too, up to the next key frame.

A lost packet of a picture is asked for until it comes. What did not come within
``VIDEO_GIVE_UP`` is given up: pictures go on with the next key frame, and one is asked for,
again and again. No picture is decoded whose predecessors are missing.

Only receivers that are given to :func:`take_over` are touched; where a version of aiortc works
in another way, its own jitter buffers stay.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from aiortc import RTCRtpReceiver

from metered_sync.bridge.clock import monotonic
from metered_sync.engine.webrtc.aiortc_private.extensions import extensions_of
from metered_sync.engine.webrtc.aiortc_private.packet_path import PacketPath, payload
from metered_sync.engine.webrtc.aiortc_private.receiving import (
    keep_starting,
    key_frame_requests,
    packet_path,
)
from metered_sync.engine.webrtc.encoded_frames import EncodedFrame
from metered_sync.engine.webrtc.picture_extensions import (
    COLOR_SPACE,
    VIDEO_ORIENTATION,
    Colours,
    read_colours,
    read_turns,
)
from metered_sync.wire.key_frames import detector, largest_size, starts_picture, stream_detector

__all__ = ["MAX_PICTURE_BYTES", "FrameConsumer", "Intake", "take_over"]

MAX_WAITING = 512
"""Packets kept behind a missing one. After more, or a larger jump, a stream begins anew."""
MAX_STALE_PACKETS = 20
"""Packets in a row, far older than those handed over, after which the sender has begun anew."""
MAX_MISORDER = 50
"""Packets sent before the first one that comes, which may still follow."""
VIDEO_GIVE_UP = 1.0
"""Seconds to wait for a missing packet of a picture before a key frame is asked for."""
AUDIO_GIVE_UP = 0.1
"""Seconds to wait for a missing packet of sound: nobody sends it again."""
MAX_COUNTED_WAIT = 0.25
"""Seconds that count as waiting between two packets at most: this process may have stood still."""
MAX_HELD_AUDIO = 5
"""Packets of sound that wait for a missing one at most."""
NACK_INTERVAL = 0.1
"""Seconds after which a missing packet is asked for again; it doubles each time."""
NACK_INTERVAL_MAX = 0.4
"""The longest of these pauses: what was asked for twice is on a long way, or behind much else."""
KEY_FRAME_REQUEST_INTERVAL = 0.5
"""Seconds after which a key frame is asked for again."""
PACKET_EXPECTED = 0.5
"""Seconds after a packet for which the next one is expected soon."""
KEY_FRAME_OVERDUE = 5.0
"""Seconds to wait for a key frame; then the consumer is told that its sender sends none."""
MAX_DECODER_WAIT = 0.3
"""Seconds for which the oldest frame may wait for the decoder."""
MAX_PICTURE_PACKETS = 8192
"""Packets of one picture; of more, it is dropped, and a key frame asked for."""
MAX_PICTURE_BYTES = 4 << 20
"""Bytes of one picture, likewise; a key frame of 4096 x 2304 pixels has some 1 MiB."""


class FrameConsumer(Protocol):
    """The track that the frames belong to."""

    @property
    def passes_on(self) -> bool:
        """Whether somebody takes frames as they are encoded."""

    def wanted(self) -> bool:
        """Say whether anything is wanted: frames, decoded or as they are encoded."""

    def decodes(self) -> bool:
        """Say whether frames are to be decoded."""

    def pass_on(self, encoded: EncodedFrame) -> bool:
        """Give a frame to those who take it so; say whether one of them lacks a key frame."""

    def leave_out(self) -> None:
        """Count a frame that came and is not decoded."""

    def appears(self, pts: int, turns: int, colours: Colours | None) -> None:
        """Note how pictures are to be shown from a timestamp on: quarters clockwise, colours."""

    def admits(self, width: int, height: int) -> bool:
        """Say whether a picture of this size is to be decoded; count one that is not."""

    def drop(self, count: int) -> None:
        """Count frames that the decoder is too slow for."""

    def lack_key_frame(self, lacking: bool) -> None:
        """Note whether a key frame is overdue, without which nothing can be decoded."""


class Intake(Protocol):
    """A receiver's way from packets to frames."""

    consumer: FrameConsumer
    """The track that it hands its frames to at present."""

    def begin_reading(self) -> None:
        """Take note of one more reader, on the loop: it is to have a picture soon."""


def take_over(receiver: RTCRtpReceiver, consumer: FrameConsumer) -> Intake | None:
    """Have a receiver hand its frames over without delay, while its consumer wants them.

    Doing it again gives it another consumer.

    Returns:
        What takes its packets from now on; ``None`` where this version of aiortc permits no other.
    """
    path = packet_path(receiver)
    if path is None:
        return None
    keep_starting(receiver)
    present, nacks = path.buffer, path.nacks
    if isinstance(present, _Intake):
        present.consumer = consumer
        return present
    intake: _Intake
    if nacks is None:
        intake = _AudioIntake(path, consumer)
    else:
        intake = _VideoIntake(path, consumer, key_frame_requests(receiver))
        path.nacks = _Nacks(nacks)
    path.buffer = intake
    return intake


class _Intake:
    """Packets put in order, in the place of a jitter buffer of aiortc's."""

    def __init__(self, path: PacketPath, consumer: FrameConsumer) -> None:
        self.consumer = consumer
        self._path = path
        self._ssrc: int | None = None
        self._next = 0
        """The number of the packet that is to be taken next."""
        self._waiting: dict[int, Any] = {}
        """Packets behind one that is missing, by their numbers."""
        self._stuck: float | None = None
        """Seconds for which the next packet has been missing."""
        self._seen = 0.0
        """The moment at which the latest packet came."""
        self._source: int | None = None
        """The stream that it was of, also where it was left out."""
        self._late = 0
        self._passed = 0.0
        """Seconds that have passed while packets came."""
        self._handed_over: deque[float] = deque()
        """What had passed when each of the frames that wait for the decoder was handed over."""

    def add(self, packet: Any) -> tuple[bool, None]:
        """Take a packet, with its payload in ``_data``; hand over the frames it completes.

        Returns:
            Whether to ask for a key frame; and no frame, where aiortc's returns one.
        """
        now = monotonic()
        waited = min(now - self._seen, MAX_COUNTED_WAIT)
        self._passed += waited
        self._seen, self._source = now, packet.ssrc
        if not self.consumer.wanted():
            self._leave_out(packet)
            return False, None
        number = packet.sequence_number
        if packet.ssrc != self._ssrc:
            self._begin(packet, now)
        ahead = (number - self._next) & 0xFFFF
        if ahead >= 0x8000:
            if not self._rewind(number):
                # It came twice, or after it was given up.
                self._late += ahead < 0x10000 - MAX_WAITING
                if self._late <= MAX_STALE_PACKETS:
                    return self._ask(now), None
                self._begin(packet, now)
        elif ahead >= MAX_WAITING:
            self._begin(packet, now)
        self._late = 0
        if number == self._next and not self._waiting:  # the usual case
            self._next = (number + 1) & 0xFFFF
            self._take(packet, now)
        else:
            self._waiting[number] = packet
            self._take_all(now, waited)
        return self._ask(now), None

    def begin_reading(self) -> None:
        """Take note of one more reader; see :class:`Intake`."""

    def _take_all(self, now: float, waited: float) -> None:
        while self._waiting:
            before = self._next
            while (packet := self._waiting.pop(self._next, None)) is not None:
                self._next = (self._next + 1) & 0xFFFF
                self._take(packet, now)
            if not self._waiting:
                self._stuck = None
            elif self._stuck is None or self._next != before:
                self._stuck = 0.0
            else:
                self._stuck += waited
            number = self._resume_at(now) if self._waiting else None
            if number is None:
                return
            # What is missing is given up.
            for old in [n for n in self._waiting if (n - number) & 0xFFFF >= 0x8000]:
                del self._waiting[old]
            self._next = number

    def _in_order(self) -> list[int]:
        return sorted(self._waiting, key=lambda number: (number - self._next) & 0xFFFF)

    def _begin(self, packet: Any, now: float) -> None:
        """Go on from this packet, whatever came before."""
        self._ssrc, self._next = packet.ssrc, packet.sequence_number
        self._waiting.clear()
        self._stuck, self._late = None, 0

    def _leave_out(self, packet: Any) -> None:
        """Note a packet that nobody wants."""
        self._ssrc = None
        self._waiting.clear()
        self.consumer.leave_out()

    def _rewind(self, number: int) -> bool:
        """Go back to an older packet, where a stream has only just begun."""
        return False

    def _decoder_is_late(self) -> bool:
        """Say whether frames wait too long for the decoder; then drop those that wait."""
        waiting = self._path.waiting
        while len(self._handed_over) > waiting:
            self._handed_over.popleft()
        if not self._handed_over or self._passed - self._handed_over[0] <= MAX_DECODER_WAIT:
            return False
        self._handed_over.clear()
        self.consumer.drop(self._path.drop_waiting())
        return True

    def _hand_over(self, first: Any, data: bytes) -> None:
        self._handed_over.append(self._passed)
        self._path.hand_over(first, data)

    def _take(self, packet: Any, now: float) -> None:
        """Take the next packet."""
        raise NotImplementedError

    def _resume_at(self, now: float) -> int | None:
        """Return the packet number to go on from, where missing ones are to be given up."""
        raise NotImplementedError

    def _ask(self, now: float) -> bool:
        """Say whether to ask for a key frame now."""
        return False


class _AudioIntake(_Intake):
    """An intake for sound: each packet is a frame."""

    def _take(self, packet: Any, now: float) -> None:
        data = payload(packet)
        if not data:
            return
        if self.consumer.passes_on:
            codec, pts = self._path.codec_of(packet), self._path.pts_of(packet)
            self.consumer.pass_on(EncodedFrame(codec, data, True, pts, now))
        if self.consumer.decodes():
            self._decoder_is_late()
            self._hand_over(packet, data)
        else:
            self.consumer.leave_out()

    def _resume_at(self, now: float) -> int | None:
        assert self._stuck is not None
        if len(self._waiting) < MAX_HELD_AUDIO and self._stuck < AUDIO_GIVE_UP:
            return None
        return self._in_order()[0]


class _VideoIntake(_Intake):
    """An intake for pictures, each of one packet or of many."""

    def __init__(
        self, path: PacketPath, consumer: FrameConsumer, request: Callable[[int], None]
    ) -> None:
        """Prepare; ``request`` asks the sender of a stream for a key frame."""
        super().__init__(path, consumer)
        self._request = request
        self._parts: list[Any] = []
        """The packets of the next picture, as far as they have come."""
        self._size = 0
        """The bytes of these packets."""
        self._endless: int | None = None
        """The timestamp of a picture that was too long, while its packets come."""
        self._refused = False
        """Whether the latest key frame was refused: nothing that refers to it can be decoded."""
        self._appearance: tuple[int, Colours | None] = (0, None)
        """How the latest picture is to be shown: quarters clockwise, colours."""
        self._told: object = None
        """The consumer that was told of it, and what it was told."""
        self._first: list[Any] | None = None
        """The first packets of a stream that has only just begun."""
        self._ended: int | None = None
        """The timestamp of the latest picture that ended with a marker."""
        self._trusted = True
        """Whether markers stand where pictures end (RFC 6184 lets H.264 err)."""
        self._begun = False
        """Whether a picture has come that a stream can begin with."""
        self._flowing = False
        """Whether the pictures have come that the next one refers to."""
        self._decoder_begun = False
        """Whether the decoder has had a frame."""
        self._decoding = False
        """Whether the decoder has the pictures that the next one refers to."""
        self._owing = False
        """Whether somebody who takes pictures as they are encoded lacks a key frame."""
        self._undecodable = False
        """Whether a picture could not be decoded, and no key frame was asked for since."""
        self._starving: float | None = None
        """The moment since which a key frame has been missing."""
        self._asked = -KEY_FRAME_REQUEST_INTERVAL
        """The moment at which a key frame was last asked for."""
        self._left = False
        """Whether the latest packets were left out."""
        self._skipping = False
        """Whether pictures are dropped because the decoder was late."""
        self._lacking = False
        """Whether a key frame is overdue."""

    def begin_reading(self) -> None:
        """Ask for a key frame, unless a picture that can be shown is expected soon."""
        now = monotonic()
        prepared = self._decoding if self.consumer.decodes() else self._flowing
        if prepared and not self._left and now - self._seen < PACKET_EXPECTED:
            return
        if self._source is not None and now - self._asked >= KEY_FRAME_REQUEST_INTERVAL:
            self._asked = now
            self._request(self._source)

    def _begin(self, packet: Any, now: float) -> None:
        # A stream begins with a key frame; in its middle one must be asked for.
        middle = self._left or packet.ssrc == self._ssrc
        super()._begin(packet, now)
        self._parts.clear()
        self._ended = None
        self._first = None if middle else []
        self._flowing = self._decoding = self._left = self._skipping = False
        self._endless = None
        self._starving = now if middle else None

    def _leave_out(self, packet: Any) -> None:
        self._ssrc, self._left = None, True
        self._waiting.clear()
        self._parts.clear()
        if packet.marker:
            self.consumer.leave_out()

    def _rewind(self, number: int) -> bool:
        if self._first is None or (self._next - number) & 0xFFFF > MAX_MISORDER:
            return False
        self._waiting |= {packet.sequence_number: packet for packet in self._first}
        self._first.clear()
        self._parts.clear()
        self._ended = None
        self._next = number
        return True

    def _take(self, packet: Any, now: float) -> None:
        if self._first is not None:
            self._first.append(packet)
            if len(self._first) > MAX_MISORDER:
                self._first = None
        if self._parts and self._parts[0].timestamp != packet.timestamp:
            self._release(now)
        if not self._parts:
            if not payload(packet):  # nothing but padding
                return
            if packet.timestamp == self._endless:
                return
            if packet.timestamp == self._ended and not self._starts(packet):
                self._trusted = False
            self._size, self._endless = 0, None
        self._parts.append(packet)
        self._size += len(payload(packet))
        if len(self._parts) > MAX_PICTURE_PACKETS or self._size > MAX_PICTURE_BYTES:
            self._endless = packet.timestamp
            self._refuse(now)
            return
        if packet.marker and self._trusted:
            self._ended = packet.timestamp
            self._release(now)

    def _release(self, now: float) -> None:
        parts, self._parts = self._parts, []
        key = self._has_key(parts, self._begun)
        self._flowing |= key
        if not self._flowing:
            self._starving = self._starving or now
            self.consumer.leave_out()
            if self._skipping:
                self.consumer.drop(1)
            return
        data = b"".join(map(payload, parts))
        size = largest_size(self._path.codec_of(parts[0]), data)
        if size is not None and not self.consumer.admits(*size):
            self._refuse(now)
            return
        self._begun, self._first, self._refused = True, None, False
        self._note_appearance(parts, key)
        self._owing = self.consumer.passes_on and self._pass_on(parts[0], data, key, now)
        if self._decode(parts, now):
            self._hand_over(parts[0], data)
        else:
            self.consumer.leave_out()

    def _pass_on(self, first: Any, data: bytes, key: bool, now: float) -> bool:
        """Give a picture to those who take it as it is encoded; see ``pass_on`` there."""
        codec, pts = self._path.codec_of(first), self._path.pts_of(first)
        return self.consumer.pass_on(EncodedFrame(codec, data, key, pts, now, *self._appearance))

    def _decode(self, parts: list[Any], now: float) -> bool:
        """Say whether the decoder is to have a picture; note what is owed to it."""
        wanted = self.consumer.decodes()
        if not wanted:
            self._decoding = self._skipping = False
        elif self._decoder_is_late():
            self._decoding, self._skipping = False, True
        if wanted and not self._decoding:
            self._decoding = self._has_key(parts, self._decoder_begun)
        if wanted and not self._decoding:
            self._starving = self._starving or now
            if self._skipping:
                self.consumer.drop(1)
            return False
        self._starving, self._skipping = None, False
        self._decoder_begun |= wanted
        if self._lacking:
            self._lacking = False
            self.consumer.lack_key_frame(False)
        return wanted

    def _note_appearance(self, parts: list[Any], key: bool) -> None:
        """Tell how a picture is to be shown, where that changes; see ``picture_extensions``."""
        values: dict[str, bytes] = {}
        for packet in parts:
            if further := extensions_of(packet):  # (few packets have any)
                values |= further
        turns, colours = self._appearance
        if key:
            turns, colours = 0, None
        if VIDEO_ORIENTATION in values:
            turns = read_turns(values[VIDEO_ORIENTATION])
        if COLOR_SPACE in values:
            colours = read_colours(values[COLOR_SPACE])
        self._appearance = turns, colours
        told = self.consumer, turns, colours
        if told != self._told:
            self._told = told
            self.consumer.appears(self._path.pts_of(parts[0]), turns, colours)

    def _refuse(self, now: float) -> None:
        """Drop a picture that would cost too much, and what refers to it: ask for a key frame."""
        self._parts.clear()
        self._first = None
        self._flowing, self._decoding, self._refused = False, False, True
        self._starving = self._starving or now
        self.consumer.leave_out()

    def _resume_at(self, now: float) -> int | None:
        assert self._stuck is not None
        if self._stuck < VIDEO_GIVE_UP:
            return None
        self._starving = self._starving or now
        for number in self._in_order():
            if self._has_key([self._waiting[number]], self._begun):
                self._parts.clear()
                self._flowing = self._decoding = False
                return number
        return None

    def _ask(self, now: float) -> bool:
        starving, self._owing = self._starving, self._owing and self.consumer.passes_on
        self._undecodable |= self._path.take_failure()
        if starving is None and not self._owing and not self._undecodable:
            return False
        if now - self._asked < KEY_FRAME_REQUEST_INTERVAL:
            return False
        self._asked, self._undecodable = now, False
        if starving is None:
            return True
        # (Where key frames come, and are refused for their size, the consumer knows that.)
        if not self._lacking and not self._refused and now - starving > KEY_FRAME_OVERDUE:
            self._lacking = True
            self.consumer.lack_key_frame(True)
        return True

    def _starts(self, packet: Any) -> bool:
        return starts_picture(self._path.codec_of(packet), packet.payload)

    def _has_key(self, packets: list[Any], begun: bool) -> bool:
        """Say whether a picture is a key frame: one to begin with, unless parameters have come."""
        test = (detector if begun else stream_detector)(self._path.codec_of(packets[0]))
        return test is None or any(test(packet.payload) for packet in packets)


class _Nacks:
    """Requests for missing packets, repeated; aiortc's own asks again with the next loss only."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator
        self._waits: dict[int, tuple[float, float]] = {}
        """The moment at which each missing packet is asked for next, and the pause after that."""
        self._next = math.inf
        """The first of these moments."""
        self.missing: set[int] = set()
        """The numbers to ask for now."""

    def add(self, packet: Any) -> bool:
        """Note a packet; say whether to ask for missing ones."""
        now = monotonic()
        if not self._generator.add(packet) and now < self._next:
            return False
        new = now, NACK_INTERVAL
        waits = {number: self._waits.get(number, new) for number in self._generator.missing}
        self.missing = {number for number, (due, _) in waits.items() if due <= now}
        for number in self.missing:
            pause = waits[number][1]
            waits[number] = now + pause, min(2 * pause, NACK_INTERVAL_MAX)
        self._waits = waits
        self._next = min((due for due, _ in waits.values()), default=math.inf)
        return bool(self.missing)
